"""What a worker does with cells: attempts, in processes of their own, until they are over, cannot be, or have to stop.

A cell is the command ``fit``, and its exit code says what becomes of it. Cells of one arm can be one process; those
that it leaves undone, because it refused or was lost, are run one by one.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from lightning_lab.runs.directory import RunDirectory
from lightning_lab.runs.files import write_json
from lightning_lab.runs.inherited import own_environment
from lightning_lab.runs.lock import is_locked
from lightning_lab.studies.orders import BAD_INPUT, OVER, PRE_EMPTED, Order, Outcome
from lightning_lab.studies.warm import WarmProcess
from lightning_lab.studies.worker import hand_back, is_leaving

#: How often a cell that crashes is tried, and one that is stopped from outside.
CRASHES, STOPS = 2, 50
_LOCK_S = 0.2

_own = threading.local()  # each thread of a worker has a warm process
_all: list[WarmProcess] = []


def run_orders(orders: Sequence[Order]) -> list[Outcome | None]:
    """Run a cell, or several together. This is what Dask's workers call.

    Args:
        orders: The cells.

    Returns:
        How each ended; None for one that is to be run by itself.
    """
    hand_back(orders[0].study)
    return [run_cell(orders[0])] if len(orders) == 1 else run_together(orders)


def run_cell(order: Order) -> Outcome:
    """Run one cell until it is over, cannot be, or is told to stop.

    Args:
        order: The cell.
    """
    started = time.monotonic()
    order.log.parent.mkdir(parents=True, exist_ok=True)
    attempts = crashes = stops = 0
    while True:
        _wait_for_locks([order])
        if order.stop.exists():
            return Outcome(PRE_EMPTED[1], attempts, time.monotonic() - started, _worker())
        hand_back(order.study)
        order.outcome.unlink(missing_ok=True)  # of an earlier command: it would tell of this one
        attempts += 1
        code = _attempt(order)
        if code not in OVER:
            hand_back(order.study)
        stops += code in PRE_EMPTED
        crashes += code not in (*PRE_EMPTED, *OVER, BAD_INPUT)
        stopped = code in PRE_EMPTED and (order.stop.exists() or stops >= STOPS)
        if code in (*OVER, BAD_INPUT) or stopped or crashes >= CRASHES:
            return _keep(order, Outcome(code, attempts, time.monotonic() - started, _worker()))


def run_together(orders: Sequence[Order]) -> list[Outcome | None]:
    """Train cells of one arm in one process, once; those that have begun already are left out.

    Args:
        orders: The cells.

    Returns:
        How each ended; None for one that has no result: it is to be run by itself.
    """
    started = time.monotonic()
    orders[0].log.parent.mkdir(parents=True, exist_ok=True)
    _wait_for_locks(orders)
    hand_back(orders[0].study)  # it may have begun to leave meanwhile
    fresh = [order for order in orders if order.begins]
    attempts = int(len(fresh) > 1 and not orders[0].stop.exists())
    log = orders[0].together_log
    if attempts:
        for order in fresh:
            order.outcome.unlink(missing_ok=True)
        commands = [(["fit", *order.arguments], order.log) for order in fresh]
        code = _in_warm_process(
            lambda warm: warm.start_together(commands, folder=Path(orders[0].folder), log=log, variables=_variables()),
            orders[0],
        )
        if code not in OVER:
            hand_back(orders[0].study)
        if code != BAD_INPUT:  # which has said why; its last line says why cells are run one by one
            _append(log, f"Trained together: {Outcome(code, 1, 0, '').failure or 'ended'}.")
    else:
        _append(log, "They have begun already.")
    share = (time.monotonic() - started) / max(1, len(fresh))
    return [_outcome(order, attempts if order in fresh else 0, share) for order in orders]


def close_warm_processes() -> None:
    """Let what runs save, and end the warm processes of this process."""
    while _all:
        _all.pop().close()


def _outcome(order: Order, attempts: int, wall_s: float) -> Outcome | None:
    # The record says how each ended, also where the process was lost that trained them.
    if order.is_finished:
        diverged = RunDirectory(Path(order.directory)).read_summary()["status"] == "diverged"
        return _keep(order, Outcome(OVER[diverged], attempts, wall_s, _worker()))
    return Outcome(PRE_EMPTED[1], attempts, wall_s, _worker()) if order.stop.exists() else None


def _append(log: Path, line: str) -> None:
    with log.open("a") as file:
        file.write(f"{line}\n")


def _keep(order: Order, outcome: Outcome) -> Outcome:
    write_json(order.outcome, asdict(outcome))
    return outcome


def _wait_for_locks(orders: Sequence[Order]) -> None:
    # The process of a worker that was lost may still be saving.
    while any(is_locked(Path(order.directory)) for order in orders) and not _is_to_stop(orders[0]):
        time.sleep(_LOCK_S)


def _attempt(order: Order) -> int:
    command = ["fit", *order.arguments]
    if order.warm:
        return _in_warm_process(
            lambda warm: warm.start(command, folder=Path(order.folder), log=order.log, variables=_variables()),
            order,
        )
    with order.log.open("ab") as log:
        # Out of reach of Ctrl-C in a terminal, as the warm processes are: it is stopped by the stop file.
        process = subprocess.Popen(
            [sys.executable, "-m", "lightning_lab", *command], cwd=order.folder, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, env={**own_environment(os.environ), **_variables()}, start_new_session=True,
        )  # fmt: skip
        while process.poll() is None:
            if _is_to_stop(order):
                process.terminate()
                return process.wait()
            time.sleep(_LOCK_S)
        return int(process.returncode)


def _in_warm_process(start: Callable[[WarmProcess], object], order: Order) -> int:
    warm = getattr(_own, "process", None)
    if warm is None or not warm.lives:
        warm = _own.process = WarmProcess()
        _all.append(warm)
    try:
        start(warm)
        return int(warm.wait(lambda: _is_to_stop(order)))
    except (BrokenPipeError, json.JSONDecodeError):
        _own.process = None  # out of memory, perhaps: the next attempt gets a new one
        return 1


def _is_to_stop(order: Order) -> bool:
    return order.stop.exists() or is_leaving()


def _worker() -> str:
    return f"{platform.node()}:{os.getpid()}"


def _variables() -> dict[str, str]:
    from distributed import get_worker

    try:
        name = str(get_worker().name)
    except ValueError:  # not called by Dask
        return {}
    # The local cluster names its workers after their GPU.
    return {"CUDA_VISIBLE_DEVICES": name.removeprefix("gpu-")} if name.startswith("gpu-") else {}
