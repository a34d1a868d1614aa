"""A disk that fails at one system call of a save, or a process that is killed there. A script, free of torch.

It reads orders from its input, one JSON object a line, and forks for each: a start takes milliseconds that way. Each
order saves one more generation of ``checkpoints/last.ckpt`` with the fault, copies what is there then to
``FOLDER.after``, and saves another one without a fault: in the same process after an error, in a new one after a kill.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_lab.runs.lock import RunLock
from lightning_lab.runs.writer import BackgroundWriter

#: The system calls of one save, in the order in which they are made.
CALLS = (
    "mkdir", "open file", "write", "fsync file", "close file", "chmod", "link", "rename to previous", "rename to last",
    "open folder", "fsync folder", "close folder",
)  # fmt: skip
FAULTS = ("ENOSPC", "EIO", "kill before", "kill after", "short write")


class Disk:
    """Wraps the calls: notes each of them, and lets the one at `at` fail.

    Args:
        at: The name of the call in `CALLS`; None lets none fail.
        fault: How, one of `FAULTS`.
        links: Whether the file system has hard links.
    """

    def __init__(self, at: str | None, fault: str, *, links: bool) -> None:
        self.at = at
        self.fault = fault
        self.links = links
        self.seen: list[str] = []
        self.folders: set[int] = set()

    def call(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.seen.append(name)
        if name == "link" and not self.links:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        if name != self.at:
            return function(*args, **kwargs)
        if self.fault == "kill before":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault.startswith("E"):
            number = getattr(errno, self.fault)
            raise OSError(number, os.strerror(number))
        if self.fault == "short write":
            return function(args[0][: len(args[0]) // 3 + 1])
        try:
            return function(*args, **kwargs)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> Callable[[], None]:
        """Put the wrappers in; gives what takes them out again."""
        real = {
            name: getattr(os, name)
            for name in ("mkdir", "open", "fsync", "close", "chmod", "link", "replace", "fdopen")
        }
        disk = self

        class Raw(io.FileIO):
            def write(self, content: Any) -> int:
                return int(disk.call("write", super().write, bytes(content)))

            def close(self) -> None:
                if not self.closed:
                    disk.call("close file", super().close)

        def opened(path: Any, *args: Any, **kwargs: Any) -> int:
            folder = Path(path).is_dir()
            file = int(self.call(f"open {'folder' if folder else 'file'}", real["open"], path, *args, **kwargs))
            if folder:
                self.folders.add(file)
            return file

        def synced(file: int) -> None:
            self.call(f"fsync {'folder' if file in self.folders else 'file'}", real["fsync"], file)

        def renamed(source: Any, target: Any) -> None:
            self.call(f"rename to {Path(target).stem.removeprefix('last.')}", real["replace"], source, target)

        os.open, os.fsync, os.replace = opened, synced, renamed  # type: ignore[assignment]
        os.fdopen = lambda file, mode: io.BufferedWriter(Raw(file, mode))  # type: ignore[assignment, misc]
        os.close = lambda file: self.call("close folder", real["close"], file)
        for name in ("mkdir", "chmod", "link"):
            setattr(os, name, lambda *args, name=name, **kwargs: self.call(name, real[name], *args, **kwargs))

        def restore() -> None:
            for name, function in real.items():
                setattr(os, name, function)

        return restore


def save(run: Path, content: bytes) -> None:
    writer = BackgroundWriter()
    writer.put(run / "checkpoints" / "last.ckpt", content)
    writer.drain()


def with_fault(run: Path, order: dict[str, Any], contents: list[bytes]) -> None:
    disk = Disk(order["at"], order["fault"], links=order["links"])
    restore = disk.install()
    writer, error = BackgroundWriter(), None
    writer.put(run / "checkpoints" / "last.ckpt", contents[0])
    try:
        writer.drain()
    except OSError as caught:
        error = str(caught)
    restore()
    shutil.copytree(run, f"{run}.after")
    Path(f"{run}.json").write_text(json.dumps({"calls": disk.seen, "error": error}))
    writer.put(run / "checkpoints" / "last.ckpt", contents[1])
    writer.drain()


def start_again(run: Path, order: dict[str, Any], contents: list[bytes]) -> None:
    lock = RunLock(run)
    lock.acquire()
    save(run, contents[1])
    lock.release()


def forked(work: Callable[..., None], *args: Any) -> int:
    child = os.fork()
    if child == 0:
        try:
            work(*args)
        finally:
            os._exit(sys.exc_info()[0] is not None)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    contents = [Path(name).read_bytes() for name in sys.argv[1:]]
    for line in sys.stdin:
        order = json.loads(line)
        run = Path(order["run"])
        code = forked(with_fault, run, order, contents)
        answer = {"code": code}
        if code == -signal.SIGKILL:
            shutil.copytree(run, f"{run}.after")
            answer["next"] = forked(start_again, run, order, contents)
        else:
            answer |= json.loads(Path(f"{run}.json").read_text())
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
