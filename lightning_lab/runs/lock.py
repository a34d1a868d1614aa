"""One owner per run directory. Free of torch.

The operating system holds the lock and takes it back when the process dies, however it dies, on NFS as well. Beside
it stands who has it, for the message that another process gets.
"""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from lightning_lab.runs.directory import RunDirectory
from lightning_lab.runs.errors import InputError, NotWrittenError
from lightning_lab.runs.files import remove_unfinished, write_json

LOCK, OWNER = ".lock", ".owner.json"
#: What is written by who has no lock: by `predict`, and at the end of a command that failed.
_WITHOUT_LOCK = ("predictions.csv", "traceback.txt")
#: Who only looks whether a lock is held has it for a moment.
_PATIENCE_S = 1.0


class RunLock:
    """The lock of one run directory.

    Args:
        folder: The run's folder. It is made when the lock is taken, and removed again if nothing was put into it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FileLock(folder / LOCK, timeout=_PATIENCE_S)
        self._made: list[Path] = []  # the folders that were not there, innermost first

    def acquire(self) -> None:
        """Take the lock, and remove the temporary files of those who had it and were killed.

        Raises:
            InputError: If another process has it.
            NotWrittenError: If the folder cannot be written.
        """
        self._made = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise InputError(
                f"The run {self.folder} is under way: {owner_of(self.folder)}. Wait for it, stop it, or choose another "
                "--run.name."
            ) from None
        except OSError as error:
            raise NotWrittenError(self.folder, error) from error
        for folder in (self.folder, RunDirectory(self.folder).checkpoints):
            remove_unfinished(folder, but=_WITHOUT_LOCK)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            write_json(self.folder / OWNER, {"host": platform.node(), "pid": os.getpid(), "since": started})
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        """Give the lock back; without effect if it is not held."""
        if not self._lock.is_locked:
            return
        with suppress(OSError):  # a full or vanished disk is told elsewhere
            (self.folder / OWNER).unlink(missing_ok=True)
            if {path.name for path in self.folder.iterdir()} <= {LOCK}:
                (self.folder / LOCK).unlink(missing_ok=True)
                for folder in self._made or [self.folder]:
                    folder.rmdir()  # not one that somebody else has put something into
        self._lock.release()


def is_locked(folder: Path) -> bool:
    """Tell whether a living process has the lock of a run."""
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except (Timeout, OSError):  # a folder of somebody else's: its owner file is believed
        return (folder / OWNER).exists()
    lock.release()
    return False


def owner_of(folder: Path) -> str:
    """Say who has the lock of a run."""
    try:
        owner = json.loads((folder / OWNER).read_text())
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process has its lock"
