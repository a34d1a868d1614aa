"""The short names of this project's classes on the command line."""

from __future__ import annotations

from typing import Any

import torch

from lightning_lab import data, nets, tasks
from lightning_lab.runs.errors import InputError, unknown

#: Classes that can be named without their module, by the key that takes them.
CLASSES: dict[str, Any] = {"model": tasks, "net": nets, "data": data}


def full_class_paths(args: list[str]) -> list[str]:
    """Replace short names by full ones; torchvision has a VGG too, and jsonargparse cannot choose.

    Args:
        args: The command line.

    Raises:
        InputError: If there is no class of that name.
    """
    full = list(args)
    for i, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        key = name.removeprefix("--").rpartition(".")[2]
        module = CLASSES.get(key)
        if (key, value or args[min(i + 1, len(args) - 1)]) == ("scheduler", "ReduceLROnPlateau"):
            module = torch.optim.lr_scheduler  # Lightning has a class of that name too
        if module is None or not name.startswith("--") or name.count(".") > 1:
            continue
        if not equals and i + 1 < len(args):
            value = args[i + 1]
        if "." in value or value.startswith("{") or not value:
            continue
        if value not in module.__all__:
            raise InputError(unknown(key, value, module.__all__))
        path = f"{module.__name__}.{value}"
        if equals:
            full[i] = f"{name}={path}"
        else:
            full[i + 1] = path
    return full
