"""Files that are written whole or not at all. Free of torch.

A reader never sees half a file, and a machine that loses power keeps the old one or the new one: the bytes go to a
temporary file in the same folder, are forced to disk, and take the name in one step.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from lightning_lab.runs.errors import NotWrittenError

#: What a file system without hard links answers: FAT, some network and cloud file systems.
_NO_LINKS = (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
#: What a file system answers that cannot force a folder to disk, or does so by itself.
_NO_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def write_whole(
    path: Path, write: Callable[[BinaryIO], None], *, keep: Path | None = None, new_folders: int | None = None
) -> None:
    """Write a file through a temporary one beside it.

    Args:
        path: The file to create or replace.
        write: Called once with the open temporary file.
        keep: Where the file that stood there before goes to, in the same folder; None lets it go.
        new_folders: How many folders above the file may be made, 0 or 1; None makes all that do not exist.

    Raises:
        NotWrittenError: If the folder cannot be written or the disk is full. What stands under the name is then the
            old file or the new one, whole.
    """
    try:
        if new_folders != 0:
            path.parent.mkdir(parents=new_folders is None, exist_ok=True)
        _write_whole(path, write, keep)
    except OSError as error:
        raise NotWrittenError(path, error) from error


def write_bytes(path: Path, content: bytes, *, keep: Path | None = None, new_folders: int | None = None) -> None:
    """Write `content`, whole or not at all; see :func:`write_whole`."""
    write_whole(path, lambda file: _write_all(file, content), keep=keep, new_folders=new_folders)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Word `value` as indented JSON."""
    return json.dumps(value, indent=2) + "\n"


def remove_unfinished(folder: Path, *, but: Sequence[str] = ()) -> None:
    """Remove the temporary files that killed processes left in a folder.

    Args:
        folder: Where no other process is writing, because this one has the lock. Need not exist.
        but: Files that others may be writing all the same.
    """
    for path in folder.glob(".*.tmp"):
        if not path.name.startswith(tuple(f".{name}." for name in but)):
            _remove(path)


def _write_whole(path: Path, write: Callable[[BinaryIO], None], keep: Path | None) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files; a record is meant to be read
        if keep is not None and path.exists():
            _keep(path, keep, temporary.with_suffix(".keep.tmp"))
        temporary.replace(path)
    except BaseException:
        _remove(temporary)
        raise
    _sync_folder(path.parent)


def _write_all(file: BinaryIO, data: bytes) -> None:
    file.write(data)


def _keep(path: Path, keep: Path, second: Path) -> None:
    # By a second name for the same file, so that at no moment neither of the two names is there.
    try:
        os.link(path, second)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        path.replace(keep)
        return
    try:
        second.replace(keep)
    finally:
        # Also after success: where a kill has left both names to one file, renaming one to the other does nothing.
        _remove(second)


def _remove(temporary: Path) -> None:
    with suppress(OSError):  # what went wrong before it is what the caller is to hear
        temporary.unlink()


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
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)
