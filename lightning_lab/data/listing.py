"""What is in an image tree: the classes and the image files, with errors that name the folder."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

from lightning_lab.runs.errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})

log = logging.getLogger(__name__)


def class_folders(folder: Path) -> list[str]:
    """List the classes of an image tree: the names of its folders, sorted.

    Args:
        folder: For example ``root/train``.

    Returns:
        The class names. At least two.

    Raises:
        InputError: If the folder is missing, has fewer than two class folders, or two of them are one class.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}. Expected an image tree: {folder}/<class>/<image>.")
    names = _folders(folder)
    if len(names) < 2:
        raise InputError(f"{folder} has {len(names)} class folders; at least two are needed: {folder}/<class>/<image>.")
    for name in names:
        check_writable(folder / name)
    _check_apart(folder, names)
    return names


def check_same_classes(train: Path, test: Path) -> None:
    """Compare the class folders of both parts, by name only: nothing in `test` is opened.

    Raises:
        InputError: If a class is in one part and not in the other.
    """
    if not test.is_dir():
        raise InputError(f"There is no folder {test}. It needs the class folders of {train}.")
    known, found = set(class_folders(train)), set(_folders(test))
    if known != found:
        missing = ", ".join(sorted(known - found)) or "none"
        extra = ", ".join(sorted(found - known)) or "none"
        raise InputError(
            f"The classes of {test} are not those of {train}: missing: {missing}; not in train: {extra}. "
            "Both need the same class folders."
        )


def list_images(folder: Path) -> list[Path]:
    """List the image files below `folder`, sorted by path; hidden ones are left out.

    Links to files are followed, wherever they lead; links to folders below `folder` are not, because they can lead in
    a circle, and that is said.

    Raises:
        InputError: If there is no such folder, a folder cannot be listed, or a link leads nowhere.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, not a folder." if folder.exists() else f"There is no folder {folder}.")
    return sorted(path for path in _visible(folder) if path.suffix.lower() in SUFFIXES and _is_file(path))


def check_writable(path: Path) -> None:
    """Refuse a name that no table and no picture could show.

    Raises:
        InputError: If the name has bytes that are no UTF-8, or control characters such as a line break.
    """
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in path.name):
        raise InputError(f"{str(path)!a} has bytes in its name that are no UTF-8, or a control character. Rename it.")


def _visible(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_refuse):  # rglob also walks hidden folders, and is slower
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            if Path(parent, name).is_symlink():
                log.warning("%s is a link to a folder: its images are not read.", Path(parent, name))
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _folders(folder: Path) -> list[str]:
    try:
        visible = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        _refuse(error)
    return sorted(entry.name for entry in visible if _leads_somewhere(entry) and entry.is_dir())


def _check_apart(folder: Path, names: Sequence[str]) -> None:
    alike: dict[str, str] = {}
    for name in names:
        # One class to a reader, and one folder on a disk that takes upper and lower case for the same.
        other = alike.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise InputError(f"{folder} has two folders of one class, {other!a} and {name!a}. Put them together.")
    places = sorted(((folder / name).resolve(), name) for name in names)
    for (outer, first), (inner, second) in pairwise(places):  # sorted by its parts, a folder stands before its own
        if inner.is_relative_to(outer):
            raise InputError(
                f"{folder / second} and {folder / first} are links to one place, or one holds the other: the same "
                "images would be of two classes. Remove one of them."
            )


def _is_file(path: Path) -> bool:
    return _leads_somewhere(path) and path.is_file()


def _leads_somewhere(path: Path) -> bool:
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path} is a link to {path.readlink()}, which is not there. Repair or remove it.")
    return True


def _refuse(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename} cannot be listed: {error.strerror}. Let it be read, or remove it.") from error
