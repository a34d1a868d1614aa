"""The warm process: it imports everything, then forks one child for each order that it reads.

A child that crashes costs nothing but itself. When the input ends, because whoever gives the orders is gone, the child
is told to save (SIGTERM) and to leave; when this process itself is gone, killed for its memory perhaps, it notices.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: What a child gets to save and leave, once nobody waits for it.
GRACE_S = 10.0
_POLL_S = 0.05
#: How often a child looks whether its parent lives.
_PARENT_S = 0.5


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
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    try:
        output = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(order["variables"])
        os.chdir(order["folder"])
        sys.path.insert(0, "")
        code = _carry_out(order)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        code = 1
    os._exit(code)


def _carry_out(order: Mapping[str, Any]) -> int:
    if "together" in order:
        from lightning_lab.studies.replicates.command import run

        return run([(one["arguments"], Path(one["log"])) for one in order["together"]])
    from lightning_lab.__main__ import main

    sys.argv = ["lightning-lab", *order["arguments"]]
    return main(order["arguments"])


def _leave_with(parent: int) -> None:
    # A signal that only Linux can ask for would come at once; half a second later is soon enough.
    while os.getppid() == parent:
        time.sleep(_PARENT_S)
    os.kill(os.getpid(), signal.SIGTERM)


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
