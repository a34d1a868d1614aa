"""A process that has imported everything and forks one child for each command: a start takes a tenth of a second.

It is told on its standard input, one line of JSON for each order, and answers on its standard output. This is the side
that gives the orders; `forking` is the other one.

Not multiprocessing's forkserver: Dask's workers are daemons, which may have no children of that kind.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_lab.runs.inherited import own_environment

#: How often it is asked whether to stop.
_ASK_S = 0.5


class WarmProcess:
    """Start it, and give it orders: one command at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "lightning_lab.studies.forking"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
            env=own_environment(os.environ),
        )  # fmt: skip

    @property
    def lives(self) -> bool:
        """Whether it can be given orders."""
        return self._process.poll() is None

    def start(self, arguments: Sequence[str], *, folder: Path, log: Path, variables: Mapping[str, str]) -> int:
        """Start a command.

        Args:
            arguments: The command line, without the program's name.
            folder: The folder to run in.
            log: Where its output goes.
            variables: Added to its environment.

        Returns:
            Its process id.
        """
        return self._order({"arguments": list(arguments)}, folder, log, variables)

    def start_together(
        self,
        commands: Sequence[tuple[Sequence[str], Path]],
        *,
        folder: Path,
        log: Path,
        variables: Mapping[str, str],
    ) -> int:
        """Start several ``fit`` that are trained together.

        Args:
            commands: Each one's command line, and where its own output goes.
            folder: The folder to run in.
            log: Where the output goes that is none of theirs.
            variables: Added to the environment.

        Returns:
            The id of the process that they are.
        """
        together = [{"arguments": list(arguments), "log": str(own)} for arguments, own in commands]
        return self._order({"together": together}, folder, log, variables)

    def wait(self, is_to_stop: Callable[[], bool] = lambda: False) -> int:
        """Wait for the command's end and give its exit code; that of a signal is negative.

        Args:
            is_to_stop: Asked now and then; once it says so, the command is told to save and leave (SIGTERM).
        """
        told = False
        assert self._process.stdout is not None
        while not select.select([self._process.stdout], [], [], _ASK_S)[0]:
            if not told and is_to_stop():
                self._tell({"signal": int(signal.SIGTERM)})
                told = True
        return int(self._hear()["code"])

    def close(self) -> None:
        """Let it save what runs, and end."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _order(self, what: Mapping[str, Any], folder: Path, log: Path, variables: Mapping[str, str]) -> int:
        self._tell({**what, "folder": str(folder), "log": str(log), "variables": dict(variables)})
        return int(self._hear()["pid"])

    def _tell(self, order: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BrokenPipeError(f"The warm process ended with code {self._process.wait()}.")
        return dict(json.loads(line))
