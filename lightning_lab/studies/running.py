"""``study run``: do what is missing of a study, show how far it is, and stop so that nothing is lost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning_lab.runs.directory import RunDirectory
from lightning_lab.runs.errors import InputError, Stopped
from lightning_lab.runs.files import write_bytes
from lightning_lab.runs.lock import RunLock, owner_of
from lightning_lab.runs.start import check_writable
from lightning_lab.runs.vault import STUDY
from lightning_lab.studies.arguments import command_of, study_of, study_parser
from lightning_lab.studies.cells import Cell, CellResult, read_result
from lightning_lab.studies.design import Study
from lightning_lab.studies.dispatch import groups_of, orders_of
from lightning_lab.studies.execution import cluster, most_jobs, outcomes_of, submit
from lightning_lab.studies.forecast import duration
from lightning_lab.studies.live import Show
from lightning_lab.studies.orders import OVER, PRE_EMPTED, Order, Outcome, last_line, log_of
from lightning_lab.studies.resources import has_worker_with, read_resources

#: How long cells get to save and leave when the study is stopped.
_STOP_S = 20.0
_LOOK_S = 0.25
_MOST_NAMES = 3


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
        "my_study.yaml --scheduler tcp://head:8786 --resources GPU=0.5",
    )
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask scheduler (default: this machine)")
    parser.add_argument("--jobs", type=int, metavar="N", help="cells at once on this machine (default: one a core)")
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs of this machine to share (default: 0)")
    parser.add_argument("--per_gpu", type=int, default=1, metavar="N", help="cells at once on a GPU (default: 1)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of each cell (default: 1)")
    parser.add_argument(
        "--resources",
        metavar="NAME=AMOUNT",
        help="what each cell claims of a worker that --scheduler has and that announces it; several with commas",
    )
    parser.add_argument(
        "--replicates",
        choices=("auto", "never"),
        default="auto",
        help="train the seeds of an arm together in one process where its net can be stacked (default: auto)",
    )
    options = parser.parse_args(args)
    for name in ("jobs", "per_gpu", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"`{name}` must be at least 1, got {value}.")
    if options.gpus < 0:
        raise InputError(f"`gpus` must be at least 0, got {options.gpus}.")
    if options.resources is not None and options.scheduler is None:
        raise InputError("`resources` goes with --scheduler. On this machine, --gpus and --per_gpu divide the GPUs.")
    return run_study(
        *study_of(options),
        scheduler=options.scheduler,
        jobs=options.jobs,
        gpus=options.gpus,
        per_gpu=options.per_gpu,
        threads=options.threads,
        resources=read_resources(options.resources or ""),
        stacks=options.replicates == "auto",
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
    resources: Mapping[str, float] | None = None,
    stacks: bool = True,
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
        resources: What each cell claims of a worker's resources.
        stacks: Whether the seeds of an arm are trained together where that is possible, and no GPU is asked for.

    Returns:
        The exit code: 0 if every cell is done, 1 if some failed.

    Raises:
        KeyboardInterrupt: If it was stopped by SIGINT, when the cells have saved.
        Stopped: The same by SIGTERM.
        InputError: If another process runs it, the folder cannot be written, or no scheduler answers.
        LostProcessError: If the scheduler is lost.
    """
    left = [result for result in results if not result.done]
    todo = [result.cell for result in left]
    print(f"{study.name}: {len(results)} cells, {len(results) - len(todo)} done, {len(todo)} to do.", flush=True)
    if not todo:
        print(f"Nothing to do. The report: {command_of('report', study, folder)}")
        return 0
    check_writable(RunDirectory(folder))
    lock = RunLock(folder)
    try:
        lock.acquire()
    except InputError as error:
        raise InputError(
            f"The study {study.name} is under way: {owner_of(folder)}. Wait for it, or stop it with Ctrl-C there."
        ) from error
    try:
        write_bytes(folder / STUDY, study.file.read_bytes())
        orders = orders_of(study, todo, folder, threads=threads)
        groups = groups_of(study, left, orders) if stacks and not gpus else [(order,) for order in orders]
        _announce(groups, orders, todo)
        orders[0].stop.unlink(missing_ok=True)
        with cluster(scheduler, jobs=jobs or most_jobs(len(todo)), gpus=gpus, per_gpu=per_gpu, study=folder) as client:
            if scheduler is not None and resources and not has_worker_with(resources, client):
                print("No worker with what a cell claims is there yet: the cells wait for one.", flush=True)
            hand_over = partial(submit, client, resources=resources)
            futures = hand_over(groups)
            with Show(study, results, folder) as show:
                outcomes = _watch(futures, orders, todo, study, hand_over, show)
    finally:
        lock.release()
    code = _conclude(todo, outcomes)
    print(f"The report: {command_of('report', study, folder)}")
    return code


def _announce(groups: Sequence[tuple[Order, ...]], orders: Sequence[Order], todo: Sequence[Cell]) -> None:
    """Say which arms are trained together."""
    arms = {order.directory: cell.arm for order, cell in zip(orders, todo, strict=True)}
    names = list(dict.fromkeys(arms[group[0].directory] for group in groups if len(group) > 1))
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    if names:
        print(
            f"Trained together, all seeds of an arm in one process: {', '.join(names[:_MOST_NAMES])}{more}.\n"
            "Results equal separate runs to rounding; --replicates never: one by one.",
            flush=True,
        )


def _watch(
    futures: Mapping[Any, tuple[Order, ...]],
    orders: Sequence[Order],
    todo: Sequence[Cell],
    study: Study,
    hand_over: Callable[[Sequence[tuple[Order, ...]]], Mapping[Any, tuple[Order, ...]]],
    show: Show,
) -> dict[str, Outcome]:
    cells = {order.directory: cell for order, cell in zip(orders, todo, strict=True)}
    outcomes: dict[str, Outcome] = {}
    pending, started = dict(futures), time.monotonic()
    try:
        while pending:
            time.sleep(_LOOK_S)
            for future in [one for one in pending if one.done()]:
                group = pending.pop(future)
                ended = dict(zip(group, outcomes_of(future), strict=True))
                for order in [order for order, outcome in ended.items() if outcome is not None]:
                    outcome = outcomes[order.directory] = ended.pop(order)
                    left_s = (time.monotonic() - started) / len(outcomes) * (len(todo) - len(outcomes))
                    _tell(cells[order.directory], outcome, study, len(outcomes), len(todo), left_s, show)
                if ended:
                    arm = cells[group[0].directory].arm
                    show.note(f"{arm}: {len(ended)} cells one by one ({last_line(group[0].together_log)})")
                    pending |= hand_over([(order,) for order in ended])
            show.update()
    except (KeyboardInterrupt, Stopped):
        orders[0].stop.touch()
        show.note("Stopping: the cells that run are saved; the same command goes on with them.")
        until = time.monotonic() + _STOP_S
        while any(not future.done() for future in pending) and time.monotonic() < until:
            time.sleep(0.1)
            show.update()
        raise
    return outcomes


def _tell(cell: Cell, outcome: Outcome, study: Study, count: int, total: int, left_s: float, show: Show) -> None:
    result = read_result(cell)
    best = result.summary.get("last", {}).get(study.metric)
    value = f"  {study.metric} {best:.4g}" if isinstance(best, float) else ""
    how = f"failed: {outcome.failure}" if outcome.failure else result.status
    again = f", {outcome.attempts} attempts" if outcome.attempts > 1 else ""
    left = f"  left {duration(left_s)}" if count < total else ""
    line = f"[{count}/{total}] {cell.arm}  seed {cell.seed}  {how}{again}{value}  {outcome.wall_s:.1f} s{left}"
    show.end(cell, line, failed=outcome.code not in (*OVER, *PRE_EMPTED))


def _conclude(todo: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> int:
    results: list[CellResult] = [read_result(cell) for cell in todo]
    bad = [result for result in results if not result.done]
    seconds = [outcome.wall_s for outcome in outcomes.values()]
    print(f"Done: {len(results) - len(bad)} of {len(results)} cells, {duration(statistics.fmean(seconds))} each.")
    for result in bad:
        log = log_of(result.cell.directory)
        print(f"  {result.cell.arm}  seed {result.cell.seed}: {last_line(log)} ({log})")
    return 1 if bad else 0
