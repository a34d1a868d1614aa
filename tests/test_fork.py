"""A run that goes on from where another one is: what it takes over, what a changed setting does, what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from support import QUICK, Lab

from lightning_lab.rehearsal.result import compare, result_of
from lightning_lab.runs.checkpoint_io import read_checkpoint
from lightning_lab.runs.directory import RunDirectory

FIT = ("fit", "--config=digits/mlp", *QUICK, "--trainer.max_epochs=4", "--run.experiment=e", "--model.net.dropout=0.2")
BY_EPOCH = (
    "--lr_schedule.scheduler=StepLR",
    "--lr_schedule.scheduler.step_size=2",
    "--lr_schedule.scheduler.gamma=0.5",
)
SLOWER = ("--lr_schedule.scheduler.gamma=0.1", "--model.optimizer.lr=0.2", "--lr_schedule.warmup=1")
LINEAR = ("--lr_schedule.scheduler=lightning_lab.callbacks.lr_schedule.LinearDecay",)
NONE = ("--lr_schedule=null",)
ADAM = ("--model.optimizer=Adam", "--model.optimizer.lr=0.3")
BY_STEP = ("--lr_schedule.interval=step", "--lr_schedule.scheduler.step_size=5")


def run(name: str) -> RunDirectory:
    return RunDirectory(Path("logs/e") / name)


def rates(name: str) -> list[float]:
    return [row["lr"] for row in run(name).read_metrics()]


@pytest.fixture
def source(lab: Lab) -> RunDirectory:
    assert lab(*FIT, *BY_EPOCH, "--run.name=a").code == 0
    return run("a")


def fork(lab: Lab, *changes: str, name: str = "b") -> str:
    """Fork, and train to the end."""
    answer = lab("runs", "fork", "a", f"--run.name={name}", *changes)
    assert (answer.code, answer.err) == (0, "")
    told = answer.out.splitlines()[-1]
    assert told == f"Continue it with: lightning-lab fit --config {run(name).config}"
    assert run(name).read_summary()["status"] == "interrupted"
    again = lab("fit", f"--config={run(name).config}")
    assert again.code == 0, again.err
    return answer.out


def test_a_longer_run_is_the_one_that_was_longer_from_the_beginning(lab: Lab, source: RunDirectory) -> None:
    before = {path: path.read_bytes() for path in source.path.rglob("*") if path.is_file()}
    assert lab(*FIT, *BY_EPOCH, "--run.name=whole", "--trainer.max_epochs=7").code == 0
    out = fork(lab, "--trainer.max_epochs=7")
    assert out.startswith(f"{run('b').path} goes on from {source.path} in epoch 4, step 16. Changed (there -> now):\n")
    assert "\n  trainer.max_epochs  4 -> 7\n" in out
    assert compare(result_of(run("whole")), result_of(run("b"))) == ()
    assert epoch_of_best("b") == run("b").read_summary()["best"]["epoch"]
    assert {path: path.read_bytes() for path in source.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "changes", [SLOWER, BY_STEP, (*SLOWER, *BY_STEP), ("--model.optimizer=Adam", "--model.optimizer.lr=0.3")]
)
def test_another_schedule_stands_where_it_would_from_the_beginning(
    lab: Lab, source: RunDirectory, changes: tuple[str, ...]
) -> None:
    longer = ("--trainer.max_epochs=7", *changes)
    assert lab(*FIT, *BY_EPOCH, "--run.name=whole", *longer).code == 0
    assert "stands where it would had it been this one" in fork(lab, *longer)
    assert rates("b")[:4] == rates("a")
    assert rates("b")[4:] == pytest.approx(rates("whole")[4:], rel=1e-12)
    assert rates("b")[4:] != rates("a")[-1:] * 3


PLATEAU = (
    "--lr_schedule.scheduler=ReduceLROnPlateau", "--lr_schedule.scheduler.patience=0",
    "--lr_schedule.scheduler.threshold=100",
)  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after"), [(PLATEAU, BY_EPOCH), (PLATEAU, NONE), (BY_EPOCH, NONE), (LINEAR, ()), (LINEAR, BY_EPOCH)]
)
def test_a_schedule_of_another_kind_stands_there_too(lab: Lab, before: tuple[str, ...], after: tuple[str, ...]) -> None:
    assert lab(*FIT, *before, "--run.name=a").code == 0
    longer = ("--trainer.max_epochs=7", *after)
    assert lab(*FIT, *(before if not after else ()), "--run.name=whole", *longer).code == 0
    fork(lab, *longer)
    assert rates("b")[4:] == pytest.approx(rates("whole")[4:], rel=1e-12)


def epoch_of_best(name: str) -> int:
    return int(read_checkpoint(run(name).best)["epoch"]) + 1


def test_with_another_measure_the_best_is_looked_for_from_the_fork_on(lab: Lab, source: RunDirectory) -> None:
    changes = ("--checkpoint.monitor=val/acc", "--model.optimizer.lr=2.0", "--trainer.max_epochs=7")
    assert "The best epoch is looked for from the fork on." in fork(lab, *changes)
    best = run("b").read_summary()["best"]
    assert best["metric"] == "val/acc"
    assert best["epoch"] == epoch_of_best("b") > 4


def test_a_best_checkpoint_that_the_state_does_not_know_is_not_taken_over(lab: Lab, source: RunDirectory) -> None:
    whole = source.last.read_bytes()
    source.last.write_bytes(whole[:-100])  # the fork begins at the generation before
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it uses that one
        assert lab("runs", "fork", "a", "--run.name=b", "--trainer.max_epochs=5").code == 0
    rows = read_checkpoint(run("b").last)["callbacks"]["RunRecord"]["rows"]
    assert len(rows) < 4
    if run("b").best.exists():
        assert epoch_of_best("b") == min(rows, key=lambda row: row["val/loss"])["epoch"]


def momentum(checkpoint: dict[str, Any]) -> list[Any]:
    return [state["momentum_buffer"].tolist() for state in checkpoint["optimizer_states"][0]["state"].values()]


def test_other_numbers_for_the_optimiser_keep_its_momentum_and_act(lab: Lab, source: RunDirectory) -> None:
    assert lab("runs", "fork", "a", "--run.name=b", "--model.optimizer.momentum=0.5").code == 0
    there, here = (read_checkpoint(run(name).last) for name in ("a", "b"))
    assert momentum(here) == momentum(there)
    assert [c["optimizer_states"][0]["param_groups"][0]["momentum"] for c in (there, here)] == [0.9, 0.5]


def test_another_optimiser_starts_without_momentum(lab: Lab, source: RunDirectory) -> None:
    assert "The optimiser is another one" in fork(lab, "--model.optimizer=Adam", "--trainer.max_epochs=6")
    state = read_checkpoint(run("b").last)["optimizer_states"][0]["state"][0]
    assert float(state["step"]) == 8  # of 24: those since the fork


def test_names_are_counted(lab: Lab, source: RunDirectory) -> None:
    for number in (1, 2):
        assert lab("runs", "fork", "e/a", "--trainer.max_epochs=9").out.startswith(f"logs/e/a-fork-{number} goes on")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "error: Unknown run 'nothing'. Known: e/a."),
        (("a", "--trainer.max_epochs=2"), "error: `trainer.max_epochs` 2 is behind the run logs/e/a, which has done 4"),
        (("a", "--run.name=a"), "error: There is a run logs/e/a already. Choose another --run.name."),
        (("a", "--data.batch_siz=4"), "error: Unknown key 'data.batch_siz'. Did you mean 'data.batch_size'?"),
        (
            ("a", "--model.net.hidden=[3]"),
            "error: The checkpoint logs/e/a/checkpoints/last.ckpt is of an",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    lab: Lab, source: RunDirectory, arguments: tuple[str, ...], message: str
) -> None:
    answer = lab("runs", "fork", *arguments)
    assert answer.code == 2
    assert answer.err.startswith(message)
    assert [path.name for path in Path("logs/e").iterdir()] == ["a"]


def test_a_run_without_a_checkpoint_cannot_be_forked(lab: Lab, source: RunDirectory) -> None:
    for checkpoint in source.checkpoints.glob("last*"):
        checkpoint.unlink()
    assert lab("runs", "fork", "a").err == "error: The run logs/e/a has no last checkpoint to go on from.\n"


def test_another_split_is_refused_when_it_is_known(lab: Lab, source: RunDirectory) -> None:
    # Images that are validated on now would have been trained on before.
    assert lab("runs", "fork", "a", "--run.name=b", "--data.val_frac=0.3", "--trainer.max_epochs=6").code == 0
    answer = lab("fit", f"--config={run('b').config}")
    assert answer.code == 2
    assert "was trained on the split" in answer.err


def test_other_data_within_an_epoch_are_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOP", "on_train_batch_end:6")
    assert lab(*FIT, "--lr_schedule=null", "--trainer.callbacks+=support.Stop", "--run.name=a").code == 143
    answer = lab("runs", "fork", "a", "--data.batch_size=8")
    assert answer.code == 2
    assert answer.err == (
        "error: The run logs/e/a stands within an epoch, and data.batch_size decides what that epoch consists of. "
        "Continue it to the epoch's end first.\n"
    )


def test_a_penalty_of_another_weight_starts_anew_and_the_last_layer_is_set_again(lab: Lab) -> None:
    slots = ("--penalty.weight=0.1", "--least_squares_head.ridge=0.01", "--lr_schedule=null")
    assert lab(*FIT, *slots, "--run.name=a").code == 0
    out = fork(lab, "--penalty.weight=0.2", "--trainer.max_epochs=6")
    assert "\n`penalty` starts anew.\n" in out
    rows = run("b").read_metrics()
    assert [row["epoch"] for row in rows if "val/acc_before_head" in row] == [4, 6]
