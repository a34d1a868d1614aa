"""``study plan`` and the verb ``study``, read from standard output."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from study_files import leave, study_of, write_study
from support import Lab

from lightning_lab import shipped
from lightning_lab.runs.lock import RunLock
from lightning_lab.studies.arguments import command_of
from lightning_lab.studies.cells import Cell, read_result
from lightning_lab.studies.design import cells_of, read_study
from lightning_lab.studies.orders import log_of

FREE_OF = ("torch", "lightning", "dask", "distributed", "jsonargparse")


def cells(folder: Path) -> list[Cell]:
    return cells_of(study_of(folder), folder / "logs")


def test_nothing_is_done(lab: Lab, tmp_path: Path) -> None:
    write_study(tmp_path)
    answer = lab("study", "plan", "study.yaml")
    assert answer.code == 0, answer.err
    assert (
        answer.out
        == """drop: 3 arms x 3 seeds = 9 cells of 2 epochs, compared by val/acc (max)

seed         0 1 2
dropout=0 *  . . .  0 of 3 done
dropout=0.2  . . .  0 of 3 done
dropout=0.5  . . .  0 of 3 done

. missing  * the reference

cells   9 missing
time    not known yet: no cell is done; --calibrate tries each arm for seconds
disk    not known yet: no cell is done; --calibrate tries each arm for seconds
shows   not known yet: it needs two seeds of the reference and of another arm

next: lightning-lab study run study.yaml
"""
    )
    assert not (tmp_path / "logs").exists()


def test_half_is_done(lab: Lab, tmp_path: Path) -> None:
    first = cells(tmp_path)
    for cell, status, values in (
        (first[0], "completed", [0.5, 0.90]),
        (first[1], "completed", [0.5, 0.92]),
        (first[2], "diverged", [None]),
        (first[3], "stopped_early", [0.5, 0.91]),
        (first[4], "completed", [0.5, 0.94]),
        (first[5], "failed", []),
        (first[6], "interrupted", [0.5]),
    ):
        leave(cell, status, values, wall_s=30.0 if cell.arm == "dropout=0.2" else 10.0)
    lock = RunLock(first[7].directory.path)
    lock.acquire()
    out = lab("study", "plan", "study.yaml").out
    lock.release()
    lines = out.splitlines()
    assert lines[2:6] == [
        "seed         0 1 2",
        "dropout=0 *  + + ~  2 of 3 done",
        "dropout=0.2  + + >  2 of 3 done",
        "dropout=0.5  x ! .  1 of 3 done",
    ]
    assert lines[7] == "+ done  x diverged  ! failed  ~ interrupted  > running  . missing  * the reference"
    assert lines[9] == "! dropout=0.5  seed 1  no output"
    assert lines[11] == "cells   4 done, 1 diverged, 1 failed, 1 interrupted, 1 running, 1 missing"
    # 10 s of the reference, 30 s of the second arm, twice the mean of all for the third
    assert lines[12] == "time    about 80 s of training for 4 cells, one after another (20 s a cell, measured on 4)"
    assert lines[13].startswith("disk    ")
    assert " kB for 4 cells that are done, about " in lines[13]
    assert lines[-1] == "next: lightning-lab study run study.yaml"


def test_the_time_of_a_cell_is_that_of_its_arm(lab: Lab, tmp_path: Path) -> None:
    first = cells(tmp_path)
    for cell, wall_s in ((first[0], 10.0), (first[3], 10.0), (first[6], 10.0), (first[1], 40.0)):
        leave(cell, "completed", [0.9], wall_s=wall_s)
    # Two cells like the one of 40 s, and three of an arm that is not known: the mean of all, 17.5 s.
    assert "time    about 2.2 min of training for 5 cells" in lab("study", "plan", "study.yaml").out


def test_time_spent_by_an_interrupted_cell_with_a_checkpoint_is_not_spent_again(lab: Lab, tmp_path: Path) -> None:
    first = cells(tmp_path)
    for cell in first:
        leave(cell, "completed", [0.9], wall_s=100.0)
    leave(first[0], "interrupted", [0.9], wall_s=70.0)
    first[0].directory.checkpoints.mkdir()
    first[0].directory.last.touch()
    assert "time    about 30 s of training for 1 cells" in lab("study", "plan", "study.yaml").out


def test_cells_that_were_trained_together_share_their_time(lab: Lab, tmp_path: Path) -> None:
    first = cells(tmp_path)
    for cell in first[:2]:
        leave(cell, "completed", [0.9], wall_s=60.0)
    note = {"replicates": {"count": 3, "index": 0, "seeds": [0, 1, 2]}}
    first[0].directory.environment.write_text(json.dumps(note))
    # The reference takes 20 s a cell, the second arm 60 s, the third one the mean of both.
    out = lab("study", "plan", "study.yaml").out
    assert (
        "time    about 4.7 min of training for 7 cells, one after another (40 s a cell, measured on 2; 1 of them "
        in out
    )
    assert "1 of them trained with others of their arm, and share its time)\n" in out
    first[1].directory.environment.write_text(json.dumps(note))
    assert "(20 s a cell, measured on 2; all of them trained with others" in lab("study", "plan", "study.yaml").out


FAILURES = {
    "before its record": (
        2,
        "error: `dropout` must be in [0, 1), got 7.\n\n",
        "bad input: error: `dropout` must be in ",
    ),
    "by a signal": (-11, "MLP on Digits\n", "signal 11: MLP on Digits (logs/studies/drop/output/dropout-0.2_seed0_"),
    "without a word": (1, "", "exit code 1: it printed nothing (logs/studies/drop/output/dropout-0.2_seed0_"),
}


@pytest.mark.parametrize(("code", "log", "words"), FAILURES.values(), ids=list(FAILURES))
def test_a_cell_that_failed_says_so_and_why(code: int, log: str, words: str, lab: Lab, tmp_path: Path) -> None:
    cell = cells(tmp_path)[1]
    written = log_of(cell.directory)
    written.parent.mkdir(parents=True)
    written.write_text(log)
    written.with_suffix(".json").write_text(
        json.dumps({"code": code, "attempts": 2, "wall_s": 1.0, "worker": "host:1"})
    )
    if code == -11:  # its record says that it runs, and nobody has its lock
        leave(cell, "running", [0.5])
    out = lab("study", "plan", "study.yaml").out
    assert "dropout=0.2  ! . .  0 of 3 done\n" in out
    assert f"\n! dropout=0.2  seed 0  {words}" in out
    assert "cells   8 missing, 1 failed\n" in out.replace("1 failed, 8 missing", "8 missing, 1 failed")


def test_several_failures_of_an_arm_are_one_line(lab: Lab, tmp_path: Path) -> None:
    for cell in cells(tmp_path)[1::3]:
        leave(cell, "failed")
        cell.directory.summary.write_text(json.dumps({"status": "failed", "reason": "OSError: no data"}))
    assert "\n! dropout=0.2  seed 0 and 2 more  OSError: no data\n" in lab("study", "plan", "study.yaml").out


@pytest.mark.parametrize("code", [0, 4, 130, 143])
def test_an_outcome_that_is_no_failure_changes_nothing(code: int, tmp_path: Path) -> None:
    cell = cells(tmp_path)[0]
    log_of(cell.directory).parent.mkdir(parents=True)
    outcome = {"code": code, "attempts": 1, "wall_s": 1.0, "worker": "host:1"}
    log_of(cell.directory).with_suffix(".json").write_text(json.dumps(outcome))
    assert read_result(cell).status == "missing"
    log_of(cell.directory).with_suffix(".json").write_text("cut")
    assert read_result(cell).status == "missing"


def test_the_smallest_difference_comes_from_the_spread_of_the_pairs(lab: Lab, tmp_path: Path) -> None:
    # Differences 0.01, 0.02, 0.03 and 0.02, 0.02, 0.02: pooled sd = sqrt((2 x 1e-4 + 0) / 4).
    from lightning_lab.studies.power import smallest_difference

    for cell in cells(tmp_path):
        leave(cell, "completed", [0.9 + {"dropout=0": 0, "dropout=0.2": 0.01 * (cell.seed + 1)}.get(cell.arm, 0.02)])
    out = lab("study", "plan", "study.yaml").out
    expected = smallest_difference((2e-4 / 4) ** 0.5, 3, alpha=0.025)
    assert f"shows   with 3 seeds a difference of about {expected:.2g} in val/acc (found 80% of the time, " in out
    assert "2 comparisons at 5% together; spread known from 3 seeds so far)" in out
    assert "time    nothing is left to train" in out
    assert out.endswith("next: lightning-lab study report study.yaml\n")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": 1}, "no difference: one seed has no spread. Give at least 3 seeds"),
        ({"factors": {"model.net.dropout": [0.0]}}, "nothing to compare: there is one arm"),
    ],
)
def test_what_cannot_be_shown_is_said(changes: dict[str, object], words: str, lab: Lab, tmp_path: Path) -> None:
    write_study(tmp_path, **changes)
    assert f"shows   {words}" in lab("study", "plan", "study.yaml").out


def test_long_seeds_keep_their_columns(lab: Lab, tmp_path: Path) -> None:
    write_study(tmp_path, seeds=[7, 100])
    lines = lab("study", "plan", "study.yaml").out.splitlines()
    assert lines[2:4] == ["seed         7 100", "dropout=0 *  .   .  0 of 2 done"]


def test_other_logs_and_shipped_studies(lab: Lab, tmp_path: Path) -> None:
    answer = lab("study", "plan", "digits_dropout", "--run.logs", "elsewhere")
    assert answer.out.startswith("digits_dropout: 3 arms x 5 seeds = 15 cells of 10 epochs")
    assert answer.out.endswith("next: lightning-lab study run digits_dropout --run.logs elsewhere\n")


def test_faults_end_with_code_2(lab: Lab, tmp_path: Path) -> None:
    write_study(tmp_path, goal="up", seeds=0)
    answer = lab("study", "plan", "study.yaml")
    assert answer.code == 2
    assert answer.err.startswith("error: study.yaml has 2 faults:\n  seeds: ")


def test_check_builds_every_arm(lab: Lab, tmp_path: Path) -> None:
    write_study(tmp_path, factors={"model.net.dropout": [0.0, 1.5], "model.net.chanels": [[4, 4]]}, metric="val/f1")
    answer = lab("study", "plan", "study.yaml", "--check")
    assert answer.code == 2
    lines = answer.err.splitlines()
    assert lines[0] == "error: study.yaml has 3 faults:"
    assert lines[1].startswith("  metric: Unknown metric 'val/f1'. Did you mean 'val/acc'?")
    assert lines[2].startswith("  arm dropout=1.5: `dropout` must be in [0, 1), got 1.5.")
    assert lines[3].startswith(
        "  arm chanels=[4,4]: Unknown key 'model.net.chanels'. Did you mean 'model.net.channels'?"
    )


def test_check_finds_arms_that_differ_in_nothing_but_what_they_leave_to_the_default(lab: Lab, tmp_path: Path) -> None:
    write_study(tmp_path, reference={}, factors={"model.net.dropout": [0.0, 0.5]}, without=("claims",))
    err = lab("study", "plan", "study.yaml", "--check").err
    assert "1 fault:\n  arm dropout=0: is the same run as reference once the defaults are filled in. Leave one." in err


def test_check_looks_at_what_the_slots_watch(lab: Lab, tmp_path: Path) -> None:
    write_study(tmp_path, overrides={0.5: {"checkpoint.monitor": "val/los"}})
    err = lab("study", "plan", "study.yaml", "--check").err
    assert "  arm dropout=0.5: `checkpoint.monitor`: Unknown metric 'val/los'. Did you mean 'val/loss'?" in err


def test_check_leaves_a_sound_study_alone(lab: Lab, tmp_path: Path) -> None:
    write_study(tmp_path)
    assert lab("study", "plan", "study.yaml", "--check").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["paln", "x"], "Unknown action of study 'paln'. Did you mean 'plan'?"),
        (["plan"], "the following arguments are required: FILE. See lightning-lab study plan --help."),
        (["plan", "none.yaml"], "There is no study file none.yaml. `lightning-lab configs` lists the shipped ones."),
        (["plan", "digits_dropuot"], "Unknown study 'digits_dropuot'. Did you mean 'digits_dropout'?"),
    ],
)
def test_a_wrong_command_is_told(args: list[str], message: str, lab: Lab) -> None:
    answer = lab("study", *args)
    assert answer.code == 2
    assert answer.err.startswith(f"error: {message}")


def test_help_has_the_actions_and_examples(lab: Lab) -> None:
    out = lab("study", "--help").out
    assert [word for word in ("plan", "run", "report", "select", "test", "factors", "claims") if word not in out] == []
    assert lab("study").out == out
    assert "  study " in lab("--help").out


@pytest.mark.parametrize("args", [["--help"], ["plan", "--help"], ["plan", "study.yaml"]], ids=" ".join)
def test_answers_without_torch_in_well_under_a_second(args: list[str], tmp_path: Path) -> None:
    for cell in cells(tmp_path):
        leave(cell, "completed", [0.9 + 0.01 * cell.seed * (cell.arm == "dropout=0.2")])
    code = (
        "import sys, json; from lightning_lab.__main__ import main\n"
        f"try: code = main(['study', *{args}])\nexcept SystemExit as stop: code = stop.code\n"
        f"print(json.dumps([m for m in {FREE_OF} if m in sys.modules]), file=sys.stderr); sys.exit(code)"
    )
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Of the processor: it is not its fault if others are at work too.
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stderr) == []
    assert min(times) < 0.7


def test_the_next_command_names_shipped_studies_and_the_short_budget(tmp_path: Path) -> None:
    study = read_study(shipped.find_study("lab_c/vgg13"), short=True)
    assert command_of("run", study, Path("logs/studies/x")) == "lightning-lab study run lab_c/vgg13 --short"
    study = study_of(tmp_path)
    path = tmp_path / "study.yaml"
    assert command_of("report", study, tmp_path / "studies" / "drop") == (
        f"lightning-lab study report {path} --run.logs {tmp_path}"
    )


def test_check_knows_what_the_slots_log(lab: Lab, tmp_path: Path) -> None:
    claim = {"text": "a", "arm": 0.5, "expect": "worse"}
    metrics = ("grad_norm", "time_s", "train/penalty", "val/acc - val/acc_before_head", "val/acy")
    write_study(tmp_path, claims=[{**claim, "id": f"C{i}", "metric": metric} for i, metric in enumerate(metrics)])
    err = lab("study", "plan", "study.yaml", "--check").err
    assert "study.yaml has 1 fault:\n  claims[4].metric: Unknown metric 'val/acy'" in err
