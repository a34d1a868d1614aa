"""A process that has imported everything and forks one child for each command: a start takes a tenth of a second.

It is told on its standard input, one line of JSON for each order, and answers on its standard output. A child that
crashes costs nothing but itself. When the input ends, because whoever gives the orders is gone, the children are told
to save (SIGTERM) and to leave.

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
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_lab.runs.inherited import own_environment

#: What a child gets to save and leave, once nobody waits for it.
GRACE_S = 10.0
_POLL_S = 0.05
#: How often it is asked whether to stop.
_ASK_S = 0.5


class WarmProcess:
    """The side that gives the orders. One command at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", __name__]
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
        order = {"arguments": list(arguments), "folder": str(folder), "log": str(log), "variables": dict(variables)}
        self._tell(order)
        return int(self._hear()["pid"])

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


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the imports print is no answer
    import lightning_lab.verbs  # noqa: F401 - the imports are what this process is for

    child = 0
    orders = b""
    while True:
        ready, _, _ = select.select([0], [], [], _POLL_S if child else None)
        if ready:
            received = os.read(0, 65536)
            if not received:
                break
            orders += received
            while b"\n" in orders:
                line, _, orders = orders.partition(b"\n")
                order = json.loads(line)
                if "signal" in order:
                    if child:
                        os.kill(child, order["signal"])
                else:
                    child = _fork(order)
                    _answer(answers, pid=child)
        if child:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                child = 0
                _answer(answers, code=os.waitstatus_to_exitcode(status))
    if child:
        _end(child)


def _fork(order: Mapping[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        output = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(order["variables"])
        os.chdir(order["folder"])
        sys.argv = ["lightning-lab", *order["arguments"]]
        sys.path.insert(0, "")
        from lightning_lab.__main__ import main

        code = main(order["arguments"])
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        code = 1
    os._exit(code)


def _end(child: int) -> None:
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(child, signal.SIGTERM)
        until = time.monotonic() + GRACE_S
        while time.monotonic() < until:
            if os.waitpid(child, os.WNOHANG)[0]:
                return
            time.sleep(_POLL_S)
        os.kill(child, signal.SIGKILL)


def _answer(answers: Any, **content: Any) -> None:
    with contextlib.suppress(BrokenPipeError):
        answers.write(json.dumps(content) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
