"""``study run``: do what is missing of a study, show how far it is, and stop so that nothing is lost."""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_lab.runs.errors import InputError, Stopped
from lightning_lab.runs.files import write_bytes
from lightning_lab.runs.lock import RunLock
from lightning_lab.runs.vault import STUDY
from lightning_lab.studies.arguments import study_of, study_parser
from lightning_lab.studies.cells import Cell, CellResult, read_result
from lightning_lab.studies.design import Study
from lightning_lab.studies.execution import BAD_INPUT, Order, Outcome, cluster, submit

#: How long cells get to save and leave when the study is stopped.
_STOP_S = 20.0
_REFRESH_S = 1.0
#: What a cell needs at the least, so that not more are started than fit into the memory.
_CELL_BYTES = 1.5 * 2**30


def main(args: list[str]) -> int:
    """Run what is missing of a study.

    Args:
        args: What follows ``study run`` on the command line.

    Returns:
        The exit code: 0 if every cell is done, 1 if some failed.

    Raises:
        InputError: If the study file is wrong, or the study is under way.
    """
    parser = study_parser(
        "run",
        "Train the cells of a study that are missing or failed. Each is what `fit` would make; what is done is never "
        "trained again. Ctrl-C lets the cells save and stops; the same command goes on.",
        "digits_dropout",
        "my_study.yaml --jobs 4",
        "my_study.yaml --scheduler tcp://head:8786    a Dask cluster; docs/clusters.md",
    )
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask scheduler (default: this machine)")
    parser.add_argument("--jobs", type=int, metavar="N", help="cells at once on this machine (default: one a core)")
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs of this machine to share (default: 0)")
    parser.add_argument("--per_gpu", type=int, default=1, metavar="N", help="cells at once on a GPU (default: 1)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of each cell (default: 1)")
    options = parser.parse_args(args)
    for name in ("jobs", "per_gpu", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"`{name}` must be at least 1, got {value}.")
    return run_study(
        *study_of(options),
        scheduler=options.scheduler,
        jobs=options.jobs,
        gpus=options.gpus,
        per_gpu=options.per_gpu,
        threads=options.threads,
    )


def run_study(
    study: Study,
    results: Sequence[CellResult],
    folder: Path,
    *,
    scheduler: str | None = None,
    jobs: int | None = None,
    gpus: int = 0,
    per_gpu: int = 1,
    threads: int = 1,
) -> int:
    """Run the cells that are not done.

    Args:
        study: The study.
        results: Its cells, done or not.
        folder: Its folder.
        scheduler: A Dask scheduler's address; None runs on this machine.
        jobs: How many cells run at once on this machine; None takes one a core, as far as the memory goes.
        gpus: How many GPUs of this machine are used; 0 leaves the device to each cell's configuration.
        per_gpu: How many cells share a GPU.
        threads: Threads of each cell.

    Returns:
        The exit code: 0 if every cell is done, 1 if some failed.

    Raises:
        KeyboardInterrupt: If it was stopped by SIGINT, when the cells have saved.
        Stopped: The same by SIGTERM.
    """
    todo = [result.cell for result in results if not result.done]
    print(f"{study.name}: {len(results)} cells, {len(results) - len(todo)} done, {len(todo)} to do.", flush=True)
    if not todo:
        print(f"Nothing to do. The report: lightning-lab study report {study.file}")
        return 0
    lock = RunLock(folder)
    lock.acquire()
    try:
        write_bytes(folder / STUDY, study.file.read_bytes())
        orders = [_order(study, cell, folder, threads) for cell in todo]
        orders[0].stop.unlink(missing_ok=True)
        jobs = jobs or _jobs(len(todo))
        with cluster(scheduler, jobs=jobs, gpus=gpus, per_gpu=per_gpu, study=folder) as client:
            outcomes = _watch(submit(client, orders), orders, todo, study)
    finally:
        lock.release()
    return _conclude(study, todo, outcomes)


def _watch(
    futures: Mapping[Any, Order], orders: Sequence[Order], todo: Sequence[Cell], study: Study
) -> dict[str, Outcome]:
    cells = {order.directory: cell for order, cell in zip(orders, todo, strict=True)}
    outcomes: dict[str, Outcome] = {}
    pending, started = dict(futures), time.monotonic()
    try:
        while pending:
            time.sleep(_REFRESH_S / 4)
            for future in [one for one in pending if one.done()]:
                order = pending.pop(future)
                outcomes[order.directory] = future.result()
                left_s = (time.monotonic() - started) / len(outcomes) * len(pending)
                _tell(cells[order.directory], outcomes[order.directory], study, len(outcomes), len(futures), left_s)
    except (KeyboardInterrupt, Stopped):
        orders[0].stop.touch()
        print("\nStopping: the cells that run are saved; the same command goes on with them.", file=sys.stderr)
        until = time.monotonic() + _STOP_S
        while any(not future.done() for future in pending) and time.monotonic() < until:
            time.sleep(0.1)
        raise
    return outcomes


def _tell(cell: Cell, outcome: Outcome, study: Study, count: int, total: int, left_s: float) -> None:
    result = read_result(cell)
    best = result.summary.get("last", {}).get(study.metric)
    value = f"  {study.metric} {best:.4g}" if isinstance(best, float) else ""
    how = result.status if outcome.code in (0, 4) else _failure(outcome)
    again = f", {outcome.attempts} attempts" if outcome.attempts > 1 else ""
    left = f"  left {_duration(left_s)}" if count < total else ""
    print(
        f"[{count}/{total}] {cell.arm}  seed {cell.seed}  {how}{again}{value}  {outcome.wall_s:.1f} s{left}", flush=True
    )


def _failure(outcome: Outcome) -> str:
    if outcome.code == BAD_INPUT:
        return "failed: bad input"
    if outcome.code == -signal.SIGKILL:
        return "failed: killed (signal 9), as by a system out of memory"
    return f"failed: signal {-outcome.code}" if outcome.code < 0 else f"failed: exit code {outcome.code}"


def _conclude(study: Study, todo: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> int:
    results: list[CellResult] = [read_result(cell) for cell in todo]
    bad = [result for result in results if not result.done]
    seconds = [outcome.wall_s for outcome in outcomes.values()]
    print(f"Done: {len(results) - len(bad)} of {len(results)} cells, {_duration(statistics.fmean(seconds))} each.")
    for result in bad:
        log = result.cell.directory.path.parent / "output" / f"{result.cell.directory.path.name}.log"
        print(f"  {result.cell.arm}  seed {result.cell.seed}: {_last_line(log)} ({log})")
    print(f"The report: lightning-lab study report {study.file}")
    return 1 if bad else 0


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return next((line for line in reversed(lines) if line.strip()), "it printed nothing")


def _order(study: Study, cell: Cell, folder: Path, threads: int) -> Order:
    return Order(
        # The best checkpoint is the one that the study may test: best by the study's metric.
        arguments=(
            *cell.arguments,
            f"--checkpoint.monitor={study.metric}",
            f"--checkpoint.mode={study.goal}",
            f"--run.threads={threads}",
            "--progress.style=lines",
        ),
        directory=str(cell.directory.path.absolute()),
        folder=str(Path.cwd()),
        study=str(folder.absolute()),
    )


def _jobs(most: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else float("inf")
    return max(1, min(cores, int(min(memory / _CELL_BYTES, 1e6)), most))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
