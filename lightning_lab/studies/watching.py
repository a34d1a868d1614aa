"""How far a study is, read from the disk while it runs. Free of torch.

The disk and not Dask is asked: what trains a cell, alone or together with others, here or elsewhere, does not matter.
A look costs one listing of the study's folder and a few bytes of each cell that runs; a file is read when it changed.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_lab.runs.errors import InputError
from lightning_lab.studies.cells import DONE, Cell, CellResult, read_result
from lightning_lab.studies.design import Study
from lightning_lab.studies.extent import Unit, extent, reached
from lightning_lab.studies.table import MEASURED, last_value

#: How often a cell that says it is running, and has written nothing since, is looked at: it may have been killed.
_AGAIN_S = 5.0


@dataclass(frozen=True)
class CellState:
    """How far a cell is.

    Args:
        arm: Its arm.
        seed: Its seed.
        status: As in `cells.CellResult`, or ``damaged``: its record cannot be read.
        value: The study's metric after the last epoch that it was measured in.
        reached: How many epochs, steps or seconds are done.
        total: How many there will be at the most.
        unit: What these count.
        wall_s: Seconds of training so far.
        over: Whether it will not go on: it is done, or what was to be tried was tried.
    """

    arm: str
    seed: int
    status: str
    value: float | None
    reached: float
    total: float
    unit: Unit
    wall_s: float
    over: bool

    @property
    def share(self) -> float:
        """The part of it that is done, from 0 to 1."""
        return 1.0 if self.over else min(1.0, self.reached / self.total)


@dataclass(frozen=True)
class StudyState:
    """How far a study is.

    Args:
        name: The study.
        metric: What the arms are compared by.
        reference: The arm that the others are compared with.
        cells: All cells, by arm and seed; arms and seeds in the study's order.
        elapsed_s: Seconds since the command began.
        left_s: Seconds that are left; None while nothing is known.
    """

    name: str
    metric: str
    reference: str
    cells: Mapping[tuple[str, int], CellState]
    elapsed_s: float
    left_s: float | None


class Watch:
    """Look at a study's cells again and again.

    Args:
        study: The study.
        results: Its cells as they were found.
        folder: The study's folder.
        clock: Tells the time in seconds.
    """

    def __init__(
        self, study: Study, results: Sequence[CellResult], folder: Path, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._study = study
        self._folder = folder
        self._clock = clock
        self._started = clock()
        self._cells = {(result.cell.arm, result.cell.seed): result.cell for result in results}
        self._before = {
            (result.cell.arm, result.cell.seed): _state(study, result) for result in _in_order(study, results)
        }
        self._now = dict(self._before)
        self._signatures = {key: _signature(cell) for key, cell in self._cells.items()}
        self._asked = dict.fromkeys(self._cells, self._started)
        self._trains_since: float | None = None  # before that, processes start and import

    def end(self, cell: Cell, *, failed: bool) -> None:
        """Take note that nothing will change in a cell any more.

        Args:
            cell: The cell.
            failed: Whether it has failed, which one that could not even begin does not leave on the disk.
        """
        key = cell.arm, cell.seed
        state = self._look(cell)
        bad = failed and state.status not in ("failed", *DONE)
        self._now[key] = replace(state, status="failed" if bad else state.status, over=True)

    def read(self, *, asks_all: bool = False) -> StudyState:
        """Look at what may have changed.

        Args:
            asks_all: Whether every cell that says it is running is asked for a sign of life now, not only now and then.
        """
        now = self._clock()
        there = {entry.name for entry in os.scandir(self._folder)} if self._folder.is_dir() else set()
        for key, cell in self._cells.items():
            state = self._now[key]
            if state.over or (state.status == "missing" and cell.directory.path.name not in there):
                continue
            signature = _signature(cell)
            is_time = asks_all or now >= self._asked[key] + _AGAIN_S
            if signature is None or (state.status == "running" and is_time) or signature != self._signatures[key]:
                self._signatures[key], self._asked[key] = signature, now
                self._now[key] = self._look(cell)
        if self._trains_since is None and any(state.status == "running" or state.over for state in self._changed()):
            self._trains_since = now
        trained_s = now - (self._trains_since or now)
        left_s = seconds_left(list(self._before.values()), list(self._now.values()), trained_s)
        study = self._study
        return StudyState(study.name, study.metric, study.reference, dict(self._now), now - self._started, left_s)

    def _changed(self) -> list[CellState]:
        return [state for key, state in self._now.items() if state != self._before[key]]

    def _look(self, cell: Cell) -> CellState:
        try:
            return _state(self._study, read_result(cell))
        except InputError:  # `study report` says which file; what runs beside it goes on
            return replace(self._now[cell.arm, cell.seed], status="damaged")


def seconds_left(before: Sequence[CellState], now: Sequence[CellState], trained_s: float) -> float | None:
    """Compute how long the rest of a study will take, at the speed so far.

    The cells are weighed by how long one of their arm takes: known from those that are done, else from those that run,
    else that of the other arms. How many run beside each other needs not be known: it is in the speed.

    Args:
        before: The cells as they were when the command began.
        now: The same cells, in the same order, now.
        trained_s: Seconds since the first of them was at work.

    Returns:
        Seconds; None while nothing is known.
    """
    times: dict[str, list[float]] = {}
    for finished in (True, False):
        known: dict[str, list[float]] = {}
        for cell in now:
            if cell.wall_s > 0 and (cell.status in MEASURED if finished else cell.status == "running" and cell.reached):
                known.setdefault(cell.arm, []).append(cell.wall_s / cell.share)
        times = known | times
    if not times:
        return None
    costs = {arm: statistics.fmean(of_arm) for arm, of_arm in times.items()}
    other = statistics.fmean(costs.values())
    done = left = 0.0
    for first, last in zip(before, now, strict=True):
        cost = costs.get(last.arm, other)
        done += cost * max(0.0, last.share - first.share)
        left += cost * (1.0 - last.share)
    return left * trained_s / done if done and trained_s else None


def _in_order(study: Study, results: Sequence[CellResult]) -> list[CellResult]:
    arms = {arm.name: place for place, arm in enumerate(study.arms)}
    return sorted(results, key=lambda result: arms[result.cell.arm])  # stable: seeds stay as they are


def _state(study: Study, result: CellResult) -> CellState:
    total, unit = extent(result.cell, study.budget)
    return CellState(
        arm=result.cell.arm,
        seed=result.cell.seed,
        status=result.status,
        value=last_value(result, study.metric),
        reached=reached(result.summary, unit),
        total=total,
        unit=unit,
        wall_s=float(result.summary.get("wall_s") or 0.0),
        over=result.done,
    )


def _signature(cell: Cell) -> tuple[int, int, int] | None:
    # The summary is written last, whole, by another file taking its name.
    try:
        found = cell.directory.summary.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
