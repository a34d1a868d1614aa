"""What a study will take before any of it is done: the arithmetic, the words, and one real calibration."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from study_files import leave, study_of, write_study
from support import Lab

from lightning_lab.callbacks.calibration import Calibration
from lightning_lab.runs.lock import RunLock
from lightning_lab.studies.calibration import Cost, content_key, training_s
from lightning_lab.studies.cells import Cell, Unit
from lightning_lab.studies.design import Study, cells_of

#: 100 batches of 10 ms, a validation of 0.5 s, 0.1 s for the files: 1.6 s an epoch.
COST = Cost(
    start_s=2.0, step_s=0.01, steps_per_epoch=100, steps_per_update=1, validation_s=0.5, validations_per_epoch=1,
    epoch_end_s=0.1, bytes=3_000_000, older_bytes=1_000_000,
)  # fmt: skip


# --- the arithmetic ---


@pytest.mark.parametrize(
    ("changes", "amount", "unit", "expected"),
    [
        ({}, 10, "epochs", 16.0),
        ({}, 100, "steps", 1.6),
        ({}, 250, "steps", 4.3),  # 2.5 s of steps, three validations, three ends
        ({}, 40, "steps", 1.0),  # cut short, and validated
        ({}, 90, "seconds", 90.0),
        ({"steps_per_update": 4}, 100, "steps", 6.4),  # 400 batches
        ({"steps_per_update": 4}, 10, "epochs", 16.0),
        ({"validations_per_epoch": 0.5}, 10, "epochs", 13.5),  # five validations
        ({"validations_per_epoch": 0.5}, 1, "epochs", 1.1),  # none
        ({"validations_per_epoch": 0.5}, 100, "steps", 1.6),
        ({"validations_per_epoch": 4}, 10, "epochs", 31.0),
        ({"validations_per_epoch": 0, "validation_s": 0.0}, 3, "epochs", 3.3),
        ({"steps_per_epoch": 3, "validations_per_epoch": 1}, 10, "epochs", 6.3),
    ],
)
def test_the_time_of_a_run(changes: dict[str, float], amount: float, unit: Unit, expected: float) -> None:
    assert training_s(replace(COST, **changes), amount, unit) == pytest.approx(expected)


# --- what plan says ---


def note(study: Study, folder: Path, **costs: Cost) -> None:
    """Leave a calibration of some arms."""
    place = folder / "logs" / "studies" / study.name
    place.mkdir(parents=True, exist_ok=True)
    arms = {content_key(arm): asdict(costs[arm.name]) for arm in study.arms if arm.name in costs}
    known = {"machine": "node-01 (8 cores)", "time": "2026-01-31T10:15:00+00:00", "arms": arms}
    (place / "calibration.json").write_text(json.dumps(known))


def plan(lab: Lab, *args: str) -> dict[str, str]:
    answer = lab("study", "plan", "study.yaml", *args)
    assert answer.code == 0, answer.err
    words = ("time", "disk", "calibrated")
    lines = [line.strip() for line in answer.out.splitlines() if line.strip().startswith(words)]
    return {line.split()[0]: line.removeprefix("time").removeprefix("disk").strip() for line in lines}


def cells(folder: Path) -> list[Cell]:
    return cells_of(study_of(folder), folder / "logs")


SLOW = replace(COST, step_s=0.1, start_s=30.0, bytes=9_000_000)


def test_a_calibration_tells_hours_and_disk_before_any_cell_is_done(lab: Lab, tmp_path: Path) -> None:
    note(study_of(tmp_path), tmp_path, **{"dropout=0": COST, "dropout=0.2": COST, "dropout=0.5": SLOW})
    # 3 x 3.2 + 3 x 3.2 + 3 x 21.2 seconds; the shortest start is that without decoding.
    assert plan(lab) == {
        "time": "about 83 s of training for 9 cells, one after another (9.2 s a cell, calibrated), "
        "and 2 s to start each",
        "disk": "about 54 MB for 9 cells (calibrated)",
        "calibrated": "calibrated on node-01 (8 cores), 2026-01-31 10:15 UTC",
    }


def test_an_arm_that_was_not_calibrated_is_taken_for_the_mean_of_the_others(lab: Lab, tmp_path: Path) -> None:
    note(study_of(tmp_path), tmp_path, **{"dropout=0": COST, "dropout=0.5": SLOW})
    assert plan(lab)["time"].startswith("about 110 s of training for 9 cells")  # 3 x (3.2 + 21.2 + 12.2)


def test_cells_that_are_done_take_precedence(lab: Lab, tmp_path: Path) -> None:
    first = cells(tmp_path)
    note(study_of(tmp_path), tmp_path, **{"dropout=0": COST, "dropout=0.2": COST})
    leave(first[0], "completed", [0.9], wall_s=100.0)
    # Two more like the one of 100 s, three calibrated, three like the mean of those that are done.
    words = plan(lab)
    assert words["time"] == (
        "about 8.5 min of training for 8 cells, one after another (100 s a cell, measured on 1, 3 calibrated), and 2 s "
        "to start each"
    )
    assert words["disk"].endswith(" kB for 1 cells that are done, about 12 MB more (calibrated)")
    for cell in first:
        leave(cell, "completed", [0.9], wall_s=100.0)
    assert plan(lab)["time"] == "nothing is left to train"
    assert "calibrated" not in lab("study", "plan", "study.yaml").out


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"epochs": 10}, "about 2.4 min of training for 9 cells"),
        ({"steps": 250}, "about 39 s of training for 9 cells"),
        ({"samples": 6400}, "about 14 s of training for 9 cells"),
        ({"seconds": 60}, "about 9 min of training for 9 cells"),
    ],
)
def test_every_budget_by_one_calibration(budget: dict[str, Any], words: str, lab: Lab, tmp_path: Path) -> None:
    if "samples" in budget:  # 6400 in batches of 64 are 100 steps
        budget |= {"factors": {"data.batch_size": [64, 65, 66]}, "reference": {"data.batch_size": 64}}
    study = study_of(tmp_path, without=() if "epochs" in budget else ("epochs",), **budget)
    note(study, tmp_path, **{arm.name: COST for arm in study.arms})
    assert plan(lab)["time"].startswith(words)


def test_another_budget_seed_or_name_needs_no_other_calibration(lab: Lab, tmp_path: Path) -> None:
    note(study_of(tmp_path), tmp_path, **{"dropout=0": COST, "dropout=0.2": COST, "dropout=0.5": COST})
    settings = {"plain": {"model.net.dropout": 0.0}, "other": {"model.net.dropout": 0.3}}
    write_study(tmp_path, without=("factors",), arms=settings, reference="plain", seeds=[7], epochs=100)
    assert plan(lab)["time"].startswith("about 5.3 min of training for 2 cells")  # 2 x 160, the other arm like this one
    write_study(tmp_path, base="digits/mlp")
    assert plan(lab)["time"].startswith("not known yet")


@pytest.mark.parametrize("content", ["{", "[]", '{"arms": {"a": {}}, "machine": "m", "time": "t"}', '{"arms": {}}'])
def test_a_damaged_file_is_told(content: str, lab: Lab, tmp_path: Path) -> None:
    note(study_of(tmp_path), tmp_path)
    (tmp_path / "logs" / "studies" / "drop" / "calibration.json").write_text(content)
    answer = lab("study", "plan", "study.yaml")
    assert answer.code == 2
    assert answer.err.startswith("error: logs/studies/drop/calibration.json is damaged (")
    assert answer.err.endswith("). Delete it; `study plan --calibrate` measures anew.\n")


# --- a real calibration ---


def test_two_arms_are_tried_for_seconds_and_nothing_else_is_left(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    write_study(
        tmp_path, base="digits/mlp", epochs=500, seeds=1, factors={"model.net.dropout": [0.0, 0.2, 7.0]},
    )  # fmt: skip
    answer = lab("study", "plan", "study.yaml", "--calibrate")
    assert answer.code == 1  # one arm cannot be built
    assert answer.err.splitlines() == [
        "calibrating 1 of 3: dropout=0",
        "calibrating 2 of 3: dropout=0.2",
        "calibrating 3 of 3: dropout=7",
        "  not calibrated: error: `dropout` must be in [0, 1), got 7.0. It is the share of values set to zero, not the "
        "share kept.",
    ]
    assert ", calibrated), and " in answer.out
    assert "of training for 3 cells, one after another (" in answer.out
    assert " for 3 cells (calibrated)" in answer.out
    assert list(scratch.iterdir()) == []
    folder = tmp_path / "logs" / "studies" / "drop"
    assert [path.name for path in folder.iterdir()] == ["calibration.json"]
    known = json.loads((folder / "calibration.json").read_text())
    assert [cost["arm"] for cost in known["arms"].values()] == ["dropout=0", "dropout=0.2"]
    for cost in known["arms"].values():
        assert (cost["steps_per_epoch"], cost["steps_per_update"], cost["validations_per_epoch"]) == (36, 1, 1)
        assert 0 < cost["step_s"] < 1
        assert 0 < cost["validation_s"] < 10
        assert 0 < cost["epoch_end_s"] < 10
        assert 0 < cost["start_s"] < 100
        assert 200_000 < cost["older_bytes"] < cost["bytes"] < 10_000_000
    assert lab("study", "plan", "study.yaml").out == answer.out


# --- what is refused ---


def test_a_study_that_is_running_is_not_calibrated(lab: Lab, tmp_path: Path) -> None:
    write_study(tmp_path)
    lock = RunLock(tmp_path / "logs" / "studies" / "drop")
    lock.acquire()
    answer = lab("study", "plan", "study.yaml", "--calibrate")
    lock.release()
    assert answer.code == 2
    assert answer.err.startswith("error: The study drop is running: process ")
    assert answer.err.endswith(". Calibrate when it is not.\n")


def test_where_every_arm_has_a_result_nothing_is_tried(lab: Lab, tmp_path: Path) -> None:
    for cell in cells(tmp_path)[:3]:
        leave(cell, "completed", [0.9])
    answer = lab("study", "plan", "study.yaml", "--calibrate")
    assert (answer.code, answer.err) == (0, "Nothing to calibrate: each arm has a cell that is done.\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--threads", "2"], "`threads` 2 has no effect without --calibrate. Add that, or leave it out."),
        (["--calibrate", "--threads", "0"], "`threads` must be at least 1, got 0."),
    ],
)
def test_wrong_options(args: list[str], message: str, lab: Lab, tmp_path: Path) -> None:
    write_study(tmp_path)
    answer = lab("study", "plan", "study.yaml", *args)
    assert (answer.code, answer.err) == (2, f"error: {message}\n")


@pytest.mark.parametrize("name", ["steps_s", "validation_s"])
def test_times_are_above_0(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be above 0 seconds, got 0."):
        Calibration(file="found.json", **{name: 0.0})
