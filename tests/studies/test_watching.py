"""How far a study is, read from the disk: only what changed is read, and what is left is computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from study_files import leave, study_of

from lightning_lab.runs.lock import RunLock
from lightning_lab.studies import watching
from lightning_lab.studies.cells import Cell, read_result
from lightning_lab.studies.design import cells_of
from lightning_lab.studies.watching import CellState, Watch, seconds_left

BATCHES = {"factors": {"data.batch_size": [64, 32]}, "reference": {"data.batch_size": 64}}


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def watched(folder: Path, **changes: object) -> tuple[Watch, list[Cell], Clock]:
    study = study_of(folder, **changes)
    cells = cells_of(study, folder / "logs")
    clock = Clock()
    place = folder / "logs" / "studies" / study.name
    return Watch(study, [read_result(cell) for cell in cells], place, clock=clock), cells, clock


def progress(cell: Cell, status: str, epochs: int, wall_s: float, value: float = 0.5) -> None:
    leave(cell, status, [value] * epochs)
    cell.directory.summary.write_text(json.dumps({"status": status, "epochs": epochs, "wall_s": wall_s}))


def test_a_study_from_its_first_epoch_to_its_last(tmp_path: Path) -> None:
    watch, cells, clock = watched(tmp_path, epochs=10)
    first = watch.read()
    assert [cell.status for cell in first.cells.values()] == ["missing"] * 9
    assert list(first.cells)[:4] == [("dropout=0", 0), ("dropout=0", 1), ("dropout=0", 2), ("dropout=0.2", 0)]
    assert (first.elapsed_s, first.left_s) == (0.0, None)
    clock.now = 110.0  # ten seconds of imports, which tell nothing of the speed
    lock = RunLock(cells[0].directory.path)
    lock.acquire()
    assert watch.read().cells["dropout=0", 0].status == "running"
    clock.now = 112.0
    progress(cells[0], "running", 4, 2.0, 0.7)
    state = watch.read()
    assert state.cells["dropout=0", 0] == CellState(
        "dropout=0", 0, "running", 0.7, 4.0, 10.0, "epochs", 2.0, over=False
    )  # fmt: skip
    # 0.4 of a cell in 2 s, and 8.6 cells are left.
    assert (state.elapsed_s, state.left_s) == (12.0, pytest.approx(43.0))
    progress(cells[0], "completed", 10, 5.0, 0.9)
    lock.release()
    clock.now = 115.0
    state = watch.read()
    assert (state.cells["dropout=0", 0].value, state.left_s) == (0.9, pytest.approx(40.0))


def test_only_what_changed_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch, cells, clock = watched(tmp_path)
    read: list[Cell] = []
    monkeypatch.setattr(watching, "read_result", lambda cell: read.append(cell) or read_result(cell))
    progress(cells[0], "completed", 2, 1.0)
    lock = RunLock(cells[1].directory.path)
    lock.acquire()
    progress(cells[1], "running", 1, 1.0)
    for _ in range(3):
        watch.read()
    assert read == cells[:2]
    clock.now += 6.0  # a cell that runs and writes nothing may have been killed
    watch.read()
    assert read == [*cells[:2], cells[1]]
    lock.release()
    assert watch.read().cells["dropout=0.2", 0].status == "running"
    assert watch.read(asks_all=True).cells["dropout=0.2", 0].status == "killed"


def test_a_cell_whose_folder_went_again_is_missing(tmp_path: Path) -> None:
    watch, cells, _ = watched(tmp_path)
    lock = RunLock(cells[0].directory.path)
    lock.acquire()
    assert watch.read().cells["dropout=0", 0].status == "running"
    lock.release()  # stopped before it wrote anything: the lock takes its folder with it
    assert not cells[0].directory.path.exists()
    assert watch.read().cells["dropout=0", 0].status == "missing"


def test_a_failure_that_left_nothing_is_told(tmp_path: Path) -> None:
    watch, cells, _ = watched(tmp_path)
    watch.end(cells[0], failed=True)
    leave(cells[1], "diverged", [None])
    watch.end(cells[1], failed=False)
    state = watch.read()
    assert (state.cells["dropout=0", 0].status, state.cells["dropout=0", 0].over) == ("failed", True)
    assert state.cells["dropout=0.2", 0].status == "diverged"


def test_a_damaged_record_stops_nothing(tmp_path: Path) -> None:
    watch, cells, _ = watched(tmp_path)
    progress(cells[0], "running", 1, 1.0)
    cells[0].directory.summary.write_text("{")
    progress(cells[1], "completed", 2, 1.0)
    state = watch.read()
    assert state.cells["dropout=0", 0].status == "damaged"
    assert state.cells["dropout=0.2", 0].status == "completed"


@pytest.mark.parametrize(
    ("budget", "reached", "total", "unit"),
    [
        ({"epochs": 20}, 3.0, 20.0, "epochs"),
        ({"steps": 500}, 120.0, 500.0, "steps"),
        ({"samples": 1001} | BATCHES, 120.0, 16.0, "steps"),  # in batches of 64
        ({"seconds": 60}, 7.5, 60.0, "seconds"),
    ],
)
def test_every_budget(tmp_path: Path, budget: dict[str, object], reached: float, total: float, unit: str) -> None:
    study = study_of(tmp_path, without=() if "epochs" in budget else ("epochs",), **budget)
    cell = cells_of(study, tmp_path / "logs")[0]
    leave(cell, "interrupted", [0.5])
    cell.directory.summary.write_text('{"status": "interrupted", "epochs": 3, "steps": 120, "wall_s": 7.5}')
    watch = Watch(study, [read_result(cell)], tmp_path)
    (state,) = watch.read().cells.values()
    assert (state.reached, state.total, state.unit) == (reached, total, unit)


def of(arm: str, status: str, share: float, wall_s: float) -> CellState:
    over = status in ("completed", "failed")
    return CellState(arm, 0, status, None, 10 * share, 10.0, "epochs", wall_s, over)


def test_the_time_left_weighs_arms_by_what_they_cost() -> None:
    before = [of("slow", "missing", 0, 0), of("slow", "missing", 0, 0), of("fast", "missing", 0, 0)]
    now = [of("slow", "completed", 1, 90.0), of("slow", "missing", 0, 0), of("fast", "running", 0.5, 5.0)]
    # 90 + 5 seconds of training took 50 s; 90 + 5 are left.
    assert seconds_left(before, now, 50.0) == pytest.approx(50.0)
    now[2] = of("fast", "missing", 0, 0)  # not known: as the other arm
    assert seconds_left(before, now, 50.0) == pytest.approx(100.0)


def test_what_was_done_before_tells_nothing_of_the_speed() -> None:
    before = [of("a", "completed", 1, 10.0), of("a", "interrupted", 0.5, 5.0), of("a", "missing", 0, 0)]
    assert seconds_left(before, before, 7.0) is None
    now = [before[0], of("a", "running", 0.75, 7.5), before[2]]
    assert seconds_left(before, now, 2.5) == pytest.approx(12.5)


def test_a_cell_that_failed_takes_no_more_time() -> None:
    before = [of("a", "missing", 0, 0), of("a", "missing", 0, 0)]
    now = [of("a", "completed", 1, 10.0), of("a", "failed", 0.1, 1.0)]
    assert seconds_left(before, now, 10.0) == 0.0
