"""Run the cells of a study on Dask: a local cluster by default, any cluster by its address.

Dask decides which worker runs which cell, and gives the cells of a worker that was lost to another one. What a cell
computes, and that nothing of it is lost, is the business of ``fit``: a cell is that command in a process of its own,
and its exit code says what becomes of it. All results are on disk; Dask hands exit codes about, nothing else.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_lab.runs.files import write_json
from lightning_lab.runs.inherited import own_environment
from lightning_lab.runs.lock import is_locked
from lightning_lab.studies.connection import connected
from lightning_lab.studies.warm import WarmProcess
from lightning_lab.studies.worker import hand_back, is_leaving

#: Exit codes of `fit`: it was stopped and can go on; it is over; no repetition would help.
PRE_EMPTED, OVER, BAD_INPUT = (130, 143), (0, 4), 2
#: How often a cell that crashes is tried, and one that is stopped from outside.
CRASHES, STOPS = 2, 50
_LOCK_S = 0.2

_own = threading.local()  # each thread of a worker has a warm process
_all: list[WarmProcess] = []


@dataclass(frozen=True)
class Outcome:
    """How a cell ended.

    Args:
        code: The exit code of its last attempt; negative for a signal.
        attempts: How many there were.
        wall_s: Seconds over all attempts.
        worker: Where, for example ``host:1234``.
    """

    code: int
    attempts: int
    wall_s: float
    worker: str


@dataclass(frozen=True)
class Order:
    """What a worker has to know of a cell.

    Args:
        arguments: What follows ``fit``.
        directory: The run's folder.
        folder: The folder that relative paths are meant from.
        study: The study's folder.
        warm: Whether it can be forked from a process that has imported everything; a run on several devices cannot.
    """

    arguments: tuple[str, ...]
    directory: str
    folder: str
    study: str
    warm: bool = True

    @property
    def log(self) -> Path:
        """What the cell prints."""
        return Path(self.study) / "output" / f"{Path(self.directory).name}.log"

    @property
    def outcome(self) -> Path:
        """The file that its outcome is kept in."""
        return self.log.with_suffix(".json")

    @property
    def stop(self) -> Path:
        """The file that tells all cells of the study to save and leave."""
        return Path(self.study) / "stop"


def run_cell(order: Order) -> Outcome:
    """Run one cell until it is over, cannot be, or is told to stop. This is what Dask's workers call.

    Args:
        order: The cell.
    """
    started = time.monotonic()
    hand_back(order.study)
    order.log.parent.mkdir(parents=True, exist_ok=True)
    worker = f"{platform.node()}:{os.getpid()}"
    attempts = crashes = stops = 0
    while True:
        # The process of a worker that was lost may still be saving.
        while is_locked(Path(order.directory)) and not _is_to_stop(order):
            time.sleep(_LOCK_S)
        if order.stop.exists():
            return Outcome(PRE_EMPTED[1], attempts, time.monotonic() - started, worker)
        hand_back(order.study)
        attempts += 1
        code = _attempt(order)
        if code not in OVER:
            hand_back(order.study)
        stops += code in PRE_EMPTED
        crashes += code not in (*PRE_EMPTED, *OVER, BAD_INPUT)
        stopped = code in PRE_EMPTED and (order.stop.exists() or stops >= STOPS)
        if code in (*OVER, BAD_INPUT) or stopped or crashes >= CRASHES:
            outcome = Outcome(code, attempts, time.monotonic() - started, worker)
            write_json(order.outcome, asdict(outcome))
            return outcome


def _is_to_stop(order: Order) -> bool:
    return order.stop.exists() or is_leaving()


def _attempt(order: Order) -> int:
    command = ["fit", *order.arguments]
    variables = _variables()
    if not order.warm:
        with order.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "lightning_lab", *command],
                cwd=order.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**own_environment(os.environ), **variables},
            )  # fmt: skip
            while process.poll() is None:
                if _is_to_stop(order):
                    process.terminate()
                    return process.wait()
                time.sleep(_LOCK_S)
            return int(process.returncode)
    warm = getattr(_own, "process", None)
    if warm is None or not warm.lives:
        warm = _own.process = WarmProcess()
        _all.append(warm)
    try:
        warm.start(command, folder=Path(order.folder), log=order.log, variables=variables)
        return int(warm.wait(lambda: _is_to_stop(order)))
    except (BrokenPipeError, json.JSONDecodeError):
        _own.process = None  # out of memory, perhaps: the next attempt gets a new one
        return 1


def _variables() -> dict[str, str]:
    from distributed import get_worker

    try:
        name = str(get_worker().name)
    except ValueError:  # not called by Dask
        return {}
    # The local cluster names its workers after their GPU.
    return {"CUDA_VISIBLE_DEVICES": name.removeprefix("gpu-")} if name.startswith("gpu-") else {}


@contextmanager
def cluster(address: str | None, *, jobs: int, gpus: int, per_gpu: int, study: Path | None = None) -> Iterator[Any]:
    """Connect to a cluster, or make one on this machine.

    Args:
        address: Of a Dask scheduler, for example ``tcp://host:8786``; None makes a cluster here.
        jobs: How many cells run at once on a cluster made here without GPUs.
        gpus: How many GPUs a cluster made here has; each gets a worker.
        per_gpu: How many cells share a GPU.
        study: The study's folder, locked here, which the workers at an address must see.

    Yields:
        The Dask client.

    Raises:
        InputError: If nothing answers at the address, or its workers cannot take part.
        LostProcessError: If the scheduler at the address is lost.
    """
    import dask
    from distributed import Client, Scheduler, SpecCluster, Worker

    # A cell that takes its worker down again and again is stopped by its own count of crashes, not by Dask's.
    dask.config.set({"distributed.scheduler.allowed-failures": 100})
    if address is not None:
        with connected(address, study=study) as client:
            yield client
        return
    # Workers of this process: they wait for the cells, and processes of their own would only cost their imports.
    # Each has a server for HTTP all the same, by default on all interfaces.
    http = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    here = {"cls": Scheduler, "options": {**http, "protocol": "inproc"}}
    threads = {f"gpu-{index}": per_gpu for index in range(gpus)} or {"processor": jobs}
    workers = {name: {"cls": Worker, "options": {**http, "nthreads": count}} for name, count in threads.items()}
    local = SpecCluster(scheduler=here, workers=workers, silence_logs="ERROR")  # type: ignore[no-untyped-call]
    try:
        with local, Client(local) as client:  # type: ignore[no-untyped-call]
            client.wait_for_workers(len(workers))
            yield client
    finally:
        while _all:
            _all.pop().close()


def submit(client: Any, orders: Sequence[Order]) -> dict[Any, Order]:
    """Hand the cells over, first come first served.

    Args:
        client: The Dask client.
        orders: In the order in which they are to begin.

    Returns:
        Dask's futures, with their cells.
    """
    stamp = time.time_ns()  # what an earlier client has asked for may have failed, and Dask would remember it
    futures = {}
    for number, order in enumerate(orders):
        key = f"{Path(order.directory).name}-{stamp}"
        futures[client.submit(run_cell, order, key=key, pure=False, retries=100, priority=-number)] = order
    return futures
