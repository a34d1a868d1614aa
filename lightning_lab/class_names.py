"""The short names of this project's classes on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

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


def classes_first(args: list[str]) -> list[str]:
    """Put the class of an optimiser or a schedule in front of the arguments that are given for it.

    A class begins with its own defaults, so what is given ahead of it would be lost. It is not moved across a
    configuration or another class.

    Args:
        args: The command line.

    Example:
        >>> classes_first(["--model.optimizer.lr=0.1", "--model.optimizer", "Adam"])
        ['--model.optimizer', 'Adam', '--model.optimizer.lr=0.1']
    """
    ordered = list(args)
    for option in ("--model.optimizer", "--lr_schedule.scheduler"):
        for place, arg in enumerate(ordered):
            if arg.partition("=")[0] != option:
                continue
            since = max((i for i in range(place) if ordered[i].partition("=")[0] in ("--config", "-c")), default=-1)
            if any(one.partition("=")[0] == option for one in ordered[since + 1 : place]):
                continue  # the arguments so far are that one's
            first = next((i for i in range(since + 1, place) if ordered[i].startswith(f"{option}.")), None)
            if first is not None:
                size = 1 if "=" in arg else 2
                moved = ordered[place : place + size]
                del ordered[place : place + size]
                ordered[first:first] = moved
    return ordered


def check_classes(args: list[str]) -> None:
    """Refuse configurations that name a class beside arguments of it: jsonargparse drops the class without a word.

    Args:
        args: The command line, each configuration as ``--config=FILE``.

    Raises:
        InputError: If a file has ``optimizer: Adam`` and ``optimizer.lr: 0.1`` on one level.
    """
    for arg in args:
        option, _, file = arg.partition("=")
        found: list[tuple[str, str]] = []
        if option == "--config":
            with suppress(OSError, UnicodeError, yaml.YAMLError):  # told by the parser
                found = list(_torn(yaml.safe_load(Path(file).read_text())))
        for key, other in found:
            raise InputError(
                f"{file}: `{key}` names a class and `{other}` stands beside it. Write `class_path` and `init_args` "
                f"below `{key}`."
            )


def _torn(tree: Any) -> Iterator[tuple[str, str]]:
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if isinstance(value, str):
            yield from ((key, str(other)) for other in tree if str(other).startswith(f"{key}."))
        yield from _torn(value)


def is_optimisation(class_path: str) -> bool:
    """Say whether a full class path is that of an optimiser or a learning-rate schedule.

    Args:
        class_path: For example ``torch.optim.Adam``. It exists.
    """
    module, _, name = class_path.rpartition(".")
    found = getattr(import_module(module), name)
    return isinstance(found, type) and issubclass(found, Optimizer | LRScheduler)
