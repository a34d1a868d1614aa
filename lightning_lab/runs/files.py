"""Files that are written whole or not at all. Free of torch.

A reader never sees half a file, and a machine that loses power keeps the old one or the new one: the bytes go to a
temporary file in the same folder, are forced to disk, and take the name in one step.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def write_whole(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file through a temporary one beside it.

    Args:
        path: The file to create or replace. Its folder is made if it does not exist.
        write: Called once with the open temporary file.

    Raises:
        OSError: If the folder cannot be written or the disk is full. What stands under the name is then the old file
            or the new one, whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files; a record is meant to be read
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content`, whole or not at all."""
    write_whole(path, lambda file: _write_all(file, content))


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Word `value` as indented JSON."""
    return json.dumps(value, indent=2) + "\n"


def _write_all(file: BinaryIO, data: bytes) -> None:
    file.write(data)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    # The new name is on disk only when the folder is. Windows cannot open folders and needs no such step.
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
