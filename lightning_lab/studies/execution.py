"""Run the cells of a study on Dask: a local cluster by default, any cluster by its address.

Dask decides which worker runs which cell, and gives the cells of a worker that was lost to another one. What a cell
computes, and that nothing of it is lost, is the business of ``fit``: a cell is that command in a process of its own,
and its exit code says what becomes of it. All results are on disk; Dask hands exit codes about, nothing else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_lab.runs.errors import InputError
from lightning_lab.studies.attempts import close_warm_processes, run_orders
from lightning_lab.studies.connection import connected
from lightning_lab.studies.orders import Order, Outcome

#: What a cell needs at the least, so that not more are started than fit into the memory.
_CELL_BYTES = 1.5 * 2**30


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

    if address is not None:
        with connected(address, study=study) as client:
            yield client
        return
    # A cell that takes its worker down again and again is stopped by its own count of crashes, not by Dask's.
    dask.config.set({"distributed.scheduler.allowed-failures": 100})
    # Workers of this process: they wait for the cells, and processes of their own would only cost their imports.
    web = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}  # Dask serves a page all the same: to nobody else
    here = {"cls": Scheduler, "options": {"protocol": "inproc", **web}}
    threads = {f"gpu-{index}": per_gpu for index in range(gpus)} or {"processor": jobs}
    workers = {name: {"cls": Worker, "options": {"nthreads": count, **web}} for name, count in threads.items()}
    local = SpecCluster(scheduler=here, workers=workers, silence_logs="ERROR")  # type: ignore[no-untyped-call]
    try:
        with local, Client(local) as client:  # type: ignore[no-untyped-call]
            client.wait_for_workers(len(workers))
            yield client
    finally:
        close_warm_processes()


def submit(
    client: Any, groups: Sequence[Sequence[Order]], resources: Mapping[str, float] | None = None
) -> dict[Any, tuple[Order, ...]]:
    """Hand cells over, first come first served.

    Args:
        client: The Dask client.
        groups: In the order in which they are to begin; what is in one group is trained together.
        resources: What each group claims of a worker's resources.

    Returns:
        Dask's futures, with their cells.
    """
    stamp = time.time_ns()  # what an earlier client has asked for may have failed, and Dask would remember it
    futures = {}
    for number, group in enumerate(groups):
        key = f"{Path(group[0].directory).name}-{stamp}"
        future = client.submit(
            run_orders, tuple(group), key=key, pure=False, retries=100, priority=-number, resources=resources or None
        )
        futures[future] = tuple(group)
    return futures


def outcomes_of(future: Any) -> list[Outcome | None]:
    """Take what a worker says of its cells.

    Args:
        future: One of Dask's that is done.

    Raises:
        InputError: If the worker could not even begin.
    """
    from distributed import CancelledError, KilledWorker
    from distributed.comm.core import CommClosedError

    try:
        return list(future.result())
    except (CancelledError, KilledWorker, CommClosedError):
        raise  # the connection tells it
    except Exception as error:
        raise InputError(
            f"A worker could not run a cell: {type(error).__name__}: {error}. All machines need the same lightning_lab "
            "and see the study's folder under the same path; docs/clusters.md."
        ) from error


def most_jobs(most: int) -> int:
    """Tell how many cells this machine can run at once: one a core, as far as the memory goes.

    Args:
        most: How many there are.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else float("inf")
    return max(1, min(cores, int(min(memory / _CELL_BYTES, 1e6)), most))
