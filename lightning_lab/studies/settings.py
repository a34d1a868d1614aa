"""What an arm may set, and which configurations it may stand on. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lightning_lab import shipped
from lightning_lab.runs.errors import InputError, unknown
from lightning_lab.studies.reading import Faults

#: The first part of every key that an arm can set; a test compares them with the parser's.
SECTIONS = (
    "channels_last",
    "checkpoint",
    "compile",
    "data",
    "early_stopping",
    "gradient_clipping",
    "least_squares_head",
    "lr_schedule",
    "model",
    "nan_guard",
    "penalty",
    "progress",
    "trainer",
)
#: Keys that are not an arm's to set, and who sets them.
_SET_BY_STUDY = {
    "run": "the study chooses the folder of each cell",
    "seed_everything": "`seeds` says which seeds there are",
    "then": "the test set is opened by select and test alone",
    "ckpt_path": "every cell starts from its seed",
    "config": "`base` says which configurations there are",
    "trainer.max_epochs": "every arm gets the study's budget",
    "trainer.max_steps": "every arm gets the study's budget",
    "trainer.max_time": "every arm gets the study's budget",
    "trainer.fast_dev_run": "every arm gets the study's budget",
}
_KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def read_bases(value: Any, path: str, faults: Faults) -> tuple[str, ...]:
    """Check the configurations of an arm.

    Args:
        value: A name or file, or a list of them, later ones laid over earlier ones.
        path: Where it stands in the study file.
        faults: Where what is wrong is noted.

    Returns:
        Those that exist: a shipped one by its name, a file by its absolute path, so that workers elsewhere find it.
    """
    names = value if isinstance(value, list) else [value]
    if not names:
        faults.add(path, "must name a configuration at least, got []. `lightning-lab configs` lists the shipped ones.")
    found = []
    for i, name in enumerate(names):
        where = f"{path}[{i}]" if isinstance(value, list) else path
        if not isinstance(name, str):
            faults.add(where, f"must be the name or file of a configuration, got {name!r}.")
            continue
        try:
            file = shipped.find(name)
        except InputError as error:
            faults.add(where, str(error))
            continue
        found.append(name if shipped.FOLDER in file.parents else str(file.absolute()))
    return tuple(found)


def read_settings(value: Any, path: str, faults: Faults) -> dict[str, Any]:
    """Check the settings of an arm and turn them into dotted keys, written as on the command line.

    Args:
        value: A mapping, of dotted keys or nested; ``base`` is taken over as it stands.
        path: Where it stands in the study file.
        faults: Where what is wrong is noted.

    Returns:
        The valid ones, sorted by key, which puts a class before its arguments.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        faults.add(path, f"must be a mapping of keys to values such as {{model.net.dropout: 0.3}}, got {value!r}.")
        return {}
    settings: dict[str, Any] = {}
    for key, content in _flat(value):
        where = f"{path}.{key}"
        if key in settings:
            faults.add(where, "is set twice. Leave one.")
        elif key == "base" or is_settable(key, where, faults):
            settings[key] = content
    return dict(sorted(settings.items()))


def is_settable(key: str, path: str, faults: Faults) -> bool:
    """Tell whether an arm may set a key; if not, note why."""
    parts = key.split(".")
    plain = ".".join(part for part in parts if part not in ("init_args", "class_path"))
    reason = _SET_BY_STUDY.get(parts[0]) or _SET_BY_STUDY.get(".".join(parts[:2]))
    if plain != key:
        faults.add(path, f"init_args and class_path are left out, as on the command line. Write `{plain}`.")
    elif not _KEY.fullmatch(key):
        faults.add(path, f"`{key}` is no key as on the command line, such as model.net.dropout.")
    elif reason:
        faults.add(path, f"`{key}` is not an arm's to set: {reason}. Leave it out.")
    elif parts[0] not in SECTIONS:
        faults.add(path, unknown("key", key, SECTIONS))
    else:
        return True
    return False


def dotted(tree: dict[Any, Any]) -> dict[str, Any]:
    """Turn nested settings into dotted keys, sorted, which puts a class before its arguments.

    Example:
        >>> dotted({"model": {"net": {"class_path": "VGG", "init_args": {"depth": 11}}}})
        {'model.net': 'VGG', 'model.net.depth': 11}
    """
    return dict(sorted(_flat(tree)))


def _flat(tree: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        if name == "class_path":
            yield prefix, value
        elif not isinstance(value, dict) or not value or key == "base":
            yield key, value
        else:
            yield from _flat(value, prefix if name == "init_args" else key)
