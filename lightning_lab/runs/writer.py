"""Files of a run written beside the training instead of in its way. Free of torch.

Forcing four files to disk takes 20 to 200 ms; an epoch of a small net takes less. So the training hands over bytes and
goes on, and one thread writes them, each file whole or not at all.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from lightning_lab.runs.directory import previous
from lightning_lab.runs.files import write_bytes

#: What is written first when several files wait. The last checkpoint knows which epoch was the best, so the best one
#: has to be on disk before it; the rest are views of what the last checkpoint holds.
ORDER = ("best.ckpt", "last.ckpt", "metrics.jsonl", "summary.json")


class BackgroundWriter:
    """Write files in the order of `ORDER`; of several contents for one file, only the newest is sure to be written.

    So the disk is behind the training by the time of one write at the most, however short the epochs are. Of a
    checkpoint, the one before it is kept under the name that `previous` gives.

    An error (no space left, say) is raised in the training's thread, at the next call; what waits behind that file is
    given up, because a file in `ORDER` must not be newer than the one before it. After that the run's last words can
    be put. Should they fail too, `drain` raises the first error again: that is the one to be told.

    A folder that was there is not made again: where somebody deletes a run that is under way, the run ends.

    Args:
        order: File names by priority; others come after them, in the order they were given.
    """

    def __init__(self, order: Sequence[str] = ORDER) -> None:
        self.order = tuple(order)
        self._waiting: dict[Path, bytes] = {}
        self._writing = False
        self._error: BaseException | None = None  # the first that nobody has been told yet
        self._told: BaseException | None = None  # the first since everything was on disk
        self._folders: set[Path] = set()  # that were there
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, path: Path, content: bytes) -> None:
        """Hand over a file's whole content.

        Raises:
            OSError: If an earlier file could not be written, and it was not told yet.
        """
        with self._changed:
            if self._told is None:
                self._raise_error()
            self._waiting[path] = content
            if self._thread is None:
                # A daemon: a second Ctrl-C leaves at once, and whole files come to no harm.
                self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def drain(self) -> None:
        """Wait until everything is on disk.

        Raises:
            OSError: If a file could not be written.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._writing)
            self._raise_error()
            self._told = None

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                # All that waits, so that on a slow disk newer checkpoints do not keep the record from being written.
                batch = sorted(self._waiting.items(), key=lambda item: self._priority(item[0]))
                self._waiting.clear()
                self._writing = True
            error: BaseException | None = None
            try:
                for path, content in batch:
                    self._write(path, content)
            except BaseException as caught:  # told where it can be acted on
                error = caught
            with self._changed:
                if error is not None:
                    self._error = self._error or error
                    self._waiting.clear()
                self._writing = False
                self._changed.notify_all()

    def _write(self, path: Path, content: bytes) -> None:
        folder = path.parent
        new_folders = 0 if folder in self._folders else 1 if folder.parent in self._folders else None
        keep = previous(path) if path.suffix == ".ckpt" else None
        write_bytes(path, content, keep=keep, new_folders=new_folders)
        self._folders.add(folder)

    def _priority(self, path: Path) -> int:
        return self.order.index(path.name) if path.name in self.order else len(self.order)

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            self._told = self._told or error
            raise self._told
