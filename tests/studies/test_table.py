"""The results of a study by arm and seed: the last epoch, the best one, and what has no number."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_files import leave, study_of

from lightning_lab.studies.cells import CellResult, read_result
from lightning_lab.studies.design import cells_of
from lightning_lab.studies.table import last_value, left_out, selected_value, values_by_arm


@pytest.fixture
def results(tmp_path: Path) -> list[CellResult]:
    """Three arms with two seeds: two with numbers; one diverged, one failed; one never validated, one is missing."""
    cells = cells_of(study_of(tmp_path, seeds=[3, 8]), tmp_path)
    leave(cells[0], "completed", [0.5, 0.9, 0.7])
    leave(cells[3], "stopped_early", [0.6, 0.8])
    leave(cells[1], "diverged", [0.5, None])
    leave(cells[4], "failed", [0.5])
    leave(cells[2], "completed", [])
    return [read_result(cell) for cell in cells]


def of(cell: CellResult, rows: list[dict[str, float | None]]) -> CellResult:
    return CellResult(cell.cell, "completed", rows, {})


def test_values_by_arm_and_seed(results: list[CellResult]) -> None:
    none: dict[int, float] = {}
    assert values_by_arm(results, "val/acc", "last") == {
        "dropout=0": {3: 0.7, 8: 0.8}, "dropout=0.2": none, "dropout=0.5": none
    }  # fmt: skip
    assert values_by_arm(results, "val/acc", "selected")["dropout=0"] == {3: 0.9, 8: 0.8}
    assert values_by_arm(results, "val/acc", "selected", goal="min")["dropout=0"] == {3: 0.5, 8: 0.6}


def test_what_has_no_value_is_counted(results: list[CellResult]) -> None:
    assert left_out(results, "val/acc") == {
        "dropout=0": {},
        "dropout=0.2": {"diverged": 1, "failed": 1},
        "dropout=0.5": {"without value": 1, "missing": 1},
    }


def test_the_last_epoch_is_the_last_that_was_validated(results: list[CellResult]) -> None:
    rows: list[dict[str, float | None]] = [{"val/acc": 0.5}, {"val/acc": 0.6}, {"train/acc": 0.9}]
    assert last_value(of(results[0], rows), "val/acc") == 0.6


def test_a_value_that_was_not_finite_is_none(results: list[CellResult]) -> None:
    rows: list[dict[str, float | None]] = [{"val/acc": 0.5}, {"val/acc": None}]
    assert last_value(of(results[0], rows), "val/acc") is None
    assert selected_value(of(results[0], rows), "val/acc", "max") == 0.5
    assert selected_value(of(results[0], rows), "val/loss", "min") is None
