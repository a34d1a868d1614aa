"""The processes of a run, started and ended from here.

They are forked from one that has imported everything, so a start takes a second instead of six; they are killed with
SIGKILL, which nothing can catch.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

from lightning_lab.runs.directory import FINISHED, RunDirectory
from lightning_lab.runs.inherited import own_environment

_HEARTBEAT = "lightning_lab.rehearsal.heartbeat.Heartbeat"
#: How much of a failed run's output is told.
_OUTPUT_CHARACTERS = 2000


class RunFailedError(RuntimeError):
    """A run that should have come to its end did not.

    Args:
        code: Its exit code; 1 where it has none of its own.
        message: What it said last: its error alone for code 2, the end of its output otherwise.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Rehearsal:
    """Runs of one configuration in one folder.

    Args:
        arguments: What follows ``fit`` on the command line.
        folder: Where the runs go.
        processes: How many processes a run has. They are started here, and `arguments` must ask for as many devices.
        threads: Threads of each process; None leaves it open.
        patience_s: How long a run may take; None waits for ever.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        *,
        processes: int = 1,
        threads: int | None = 1,
        patience_s: float | None = 600.0,
    ) -> None:
        self.arguments = list(arguments)
        self.folder = folder
        self.processes = processes
        self.threads = threads
        self.patience_s = patience_s
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            ["lightning_lab.verbs", "sklearn.datasets", "lightning_lab.rehearsal.heartbeat"]
        )
        folder.mkdir(parents=True, exist_ok=True)

    def directory(self, name: str) -> RunDirectory:
        """Find a run by name."""
        return RunDirectory(self.folder / "rehearsal" / name)

    def heartbeat(self, name: str) -> Path:
        """Find a run's heartbeat."""
        return self.folder / f"{name}.step"

    @contextmanager
    def started(self, name: str) -> Iterator[list[ForkServerProcess]]:
        """Start the processes of a run; whatever happens, none outlives the block.

        Their output goes to NAME.RANK.log, one attempt behind the other.
        """
        place = [f"--run.logs={self.folder}", "--run.experiment=rehearsal", f"--run.name={name}"]
        beat = ["--trainer.callbacks+", _HEARTBEAT, "--trainer.callbacks.path", str(self.heartbeat(name))]
        command = ["fit", *self.arguments, *place, "--run.overwrite=false", *beat]
        port = _free_port() if self.processes > 1 else 0
        processes: list[ForkServerProcess] = []
        try:
            for rank in range(self.processes):
                arguments = (command, self._environment(rank, port), self._log(name, rank))
                processes.append(self._context.Process(target=_command, args=arguments))
                processes[-1].start()
            yield processes
        finally:
            kill(processes)

    def wait(self, processes: Sequence[ForkServerProcess], limit_s: float | None) -> list[str]:
        """Wait for the ends, however long one after the other takes, and name those that did not come."""
        deadline = None if limit_s is None else time.monotonic() + limit_s
        for process in processes:
            process.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        alive = [rank for rank, process in enumerate(processes) if process.is_alive()]
        return [f"process {rank} did not end within {limit_s:.0f} s" for rank in alive]

    def finish(self, name: str) -> None:
        """Run to the end.

        Raises:
            RunFailedError: If the run failed.
        """
        with self.started(name) as processes:
            late = self.wait(processes, self.patience_s)
            codes = [process.exitcode for process in processes]
        if late:
            raise RunFailedError(1, f"The run {name} takes too long: {late[0]}.")
        failed = {rank: code for rank, code in enumerate(codes) if code}
        if failed:
            code = next((known for known in (2, 4) if known in failed.values()), 1)
            raise RunFailedError(code, self._last_words(name, failed))
        status = self.directory(name).read_summary().get("status")
        if status not in FINISHED:
            raise RunFailedError(1, f"The run {name} left no result; its status is {status}.")

    def _log(self, name: str, rank: int) -> Path:
        return self.folder / f"{name}.{rank}.log"

    def _last_words(self, name: str, failed: Mapping[int, int]) -> str:
        logs = {rank: self._log(name, rank) for rank in failed}
        output = {rank: log.read_text(errors="replace") if log.exists() else "" for rank, log in logs.items()}
        for rank, code in failed.items():
            if code == 2:  # bad input: the command's last words are one message; other processes only lost this one
                return output[rank].rpartition("error: ")[2].strip()
        ends = [f"exit code {code}: ...{output[rank][-_OUTPUT_CHARACTERS:].rstrip()}" for rank, code in failed.items()]
        return "\n".join([f"The run {name} failed.", *ends])

    def _environment(self, rank: int, port: int) -> dict[str, str]:
        # Of this moment: the process that is forked from has that of its own start.
        inherited = own_environment(os.environ)
        own = {} if self.threads is None else {"OMP_NUM_THREADS": str(self.threads)}
        if self.processes > 1:
            own |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(self.processes),
                "LOCAL_WORLD_SIZE": str(self.processes),
                "GROUP_RANK": "0",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "TORCHELASTIC_RUN_ID": "none",
            }
        return inherited | own


def kill(processes: Sequence[ForkServerProcess]) -> None:
    """End processes with SIGKILL and wait for them; those that have ended stay as they are."""
    begun = [process for process in processes if process.pid is not None]
    for process in begun:
        process.kill()
    for process in begun:
        process.join()


def _command(command: list[str], environment: dict[str, str], log: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(environment)
    if "OMP_NUM_THREADS" in environment:
        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    sys.argv = ["lightning-lab", *command]  # the record of a run keeps its command line
    from lightning_lab.__main__ import main

    code = main(command)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # what the parent of this process had planned for its end is not this one's


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
