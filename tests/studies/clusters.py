"""Dask's scheduler and workers as processes of their own, for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from distributed import Client

import lightning_lab

#: Where they find the package and what tests let them run.
PYTHONPATH = f"{Path(lightning_lab.__file__).parents[1]}:{Path(__file__).parent}"
QUIET = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0", "--host", "127.0.0.1")


class DaskProcesses:
    """A scheduler on loopback, with as many workers as are added.

    Args:
        folder: For the files of Dask's processes.
        variables: Added to the scheduler's environment.
    """

    def __init__(self, folder: Path, variables: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._file = folder / "scheduler.json"
        where = ("--scheduler-file", str(self._file), "--port", "0")
        self.scheduler = self._start("scheduler", *where, variables=variables)
        self.workers: list[subprocess.Popen[str]] = []
        wait_for(self._file)
        self.address: str = json.loads(self._file.read_text())["address"]

    def add_worker(self, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a worker of one thread; `variables` are added to its environment."""
        arguments = ("--no-nanny", "--nthreads", "1", "--local-directory", str(self._folder))
        self.workers.append(self._start("worker", self.address, *arguments, variables=variables))
        return self.workers[-1]

    def count_workers(self) -> int:
        """Ask the scheduler how many workers it has."""
        with Client(self.address) as client:  # type: ignore[no-untyped-call]
            return len(client.nthreads())

    def end_workers(self) -> None:
        """Kill the workers, and wait until the scheduler knows."""
        for process in self.workers:
            process.kill()
            process.wait()
        self.workers.clear()
        until = time.monotonic() + 30
        while self.count_workers():
            assert time.monotonic() < until, "the scheduler keeps a dead worker"
            time.sleep(0.05)

    def close(self) -> None:
        """Kill them all."""
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()

    def _start(self, what: str, *arguments: str, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *QUIET, *arguments]
        environment = {**os.environ, "PYTHONPATH": PYTHONPATH, **(variables or {})}
        with (self._folder / f"{what}.log").open("a") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, text=True, env=environment, cwd=self._folder)


@contextmanager
def dask_processes(folder: Path, variables: Mapping[str, str] | None = None) -> Iterator[DaskProcesses]:
    """Start a scheduler, and end everything with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    processes = DaskProcesses(folder, variables)
    try:
        yield processes
    finally:
        processes.close()


def wait_for(path: Path, seconds: float = 60) -> None:
    """Wait until a file is there."""
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.05)
