"""Runs that are killed at random end where the uninterrupted one does; and a rehearsal notices when they do not."""

from __future__ import annotations

import os
import random
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from support import Lab
from torch import nn

from lightning_lab.rehearsal.heartbeat import count_beats, read_beats
from lightning_lab.rehearsal.parity import differences, kinds_of, reasons
from lightning_lab.rehearsal.processes import Rehearsal, RunFailedError
from lightning_lab.rehearsal.result import compare, result_of
from lightning_lab.rehearsal.resume import Trial, rehearse_resume
from lightning_lab.rehearsal.short import shorten
from lightning_lab.runs.checkpoint_io import read_checkpoint

SAVE_EVERY = 10
#: 100 steps with everything that a kill could lose.
RUN = (
    "--config=digits/mlp", "--model.net.dropout=0.2", "--data.batch_size=8", "--data.augment.crop=2",
    "--lr_schedule.scheduler=StepLR", "--lr_schedule.scheduler.step_size=30", "--lr_schedule.interval=step",
    "--gradient_clipping.max_norm=1.0", "--early_stopping.patience=1", f"--checkpoint.every_n_steps={SAVE_EVERY}",
    "--trainer.max_epochs=2", "--trainer.limit_train_batches=50", "--trainer.accelerator=cpu",
)  # fmt: skip
SHORT = ("--config=digits/mlp", "--trainer.accelerator=cpu", "--trainer.limit_train_batches=10")
CONTENT = {"weight": torch.tensor([1.0, 2.0]), "epoch 1: val/loss": 0.25, "status": "completed"}


class Drift(Callback):
    """Add random numbers to a weight, from a generator that no checkpoint holds."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        with torch.no_grad():
            next(pl_module.parameters()).add_(torch.rand((), generator=self.generator), alpha=1e-3)


class Restless(Callback):
    """Begin with another weight in each run."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with torch.no_grad():
            next(pl_module.parameters()).add_(random.SystemRandom().random())


# --- real runs ---


def broken(trials: list[Trial]) -> list[Trial]:
    return [one for one in trials if one.differences or one.unreadable or not 0 <= one.repeated_steps <= SAVE_EVERY]


def test_ten_of_ten_killed_runs_end_where_the_uninterrupted_one_does(tmp_path: Path) -> None:
    trials = rehearse_resume(Rehearsal(RUN, tmp_path), kills=10, seed=0)
    assert broken(trials) == []
    assert len(trials) == 10
    assert len({trial.killed for trial in trials}) > 5


class Die(Callback):
    """Kill the process when the last checkpoint is on disk and the record does not say yet that the run is over."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        last = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        while not last.exists() or read_checkpoint(last)["global_step"] < trainer.global_step:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_that_is_killed_behind_its_last_checkpoint_is_completed(tmp_path: Path) -> None:
    rehearsal = Rehearsal((*SHORT, "--trainer.max_epochs=1", "--trainer.callbacks+=test_rehearsal.Die"), tmp_path)
    with rehearsal.started("one") as processes:
        rehearsal.wait(processes, 60)
        assert [process.exitcode for process in processes] == [-signal.SIGKILL]
    rehearsal.finish("one")
    found = result_of(rehearsal.directory("one"))
    assert (found["status"], found["epochs"], "epoch 1: val/loss" in found) == ("completed", 1, True)


@pytest.mark.slow
def test_three_of_three_do_with_two_processes(tmp_path: Path) -> None:
    two = ("--trainer.devices=2", "--trainer.strategy=ddp")
    trials = rehearse_resume(Rehearsal((*RUN, *two), tmp_path, processes=2), kills=3, seed=0)
    assert broken(trials) == []
    assert len(trials) == 3


def test_a_bad_argument_is_told_in_the_words_of_fit(tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match=r"^Unknown key 'data\.batchsize'\. Did you mean") as caught:
        Rehearsal(("--data.batchsize=3",), tmp_path).finish("one")
    assert caught.value.code == 2


def test_a_run_that_leaves_no_result_is_a_failed_one(tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match="The run one left no result; its status is None"):
        Rehearsal((*SHORT, "--print_config"), tmp_path).finish("one")


def test_a_run_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match=r"The run one takes too long: process 0 did not end within 0 s\."):
        Rehearsal(SHORT, tmp_path, patience_s=0.1).finish("one")


def test_no_process_outlives_what_went_wrong(tmp_path: Path) -> None:
    rehearsal = Rehearsal(SHORT, tmp_path)
    with pytest.raises(KeyboardInterrupt), rehearsal.started("one") as processes:
        raise KeyboardInterrupt
    assert [process.exitcode for process in processes] == [-9]


def test_a_run_does_not_inherit_another_ones_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_LAB_RUN", str(tmp_path / "another"))
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("OF_THE_USER", "1")
    environment = Rehearsal(SHORT, tmp_path)._environment(0, 0)
    assert environment["OF_THE_USER"] == "1"
    assert not {"LIGHTNING_LAB_RUN", "LOCAL_RANK"} & set(environment)


# --- the command ---


def test_doctor_resume_finds_the_default_identical(lab: Lab, temporary: Path) -> None:
    answer = lab("doctor", "--resume", "--kills=1", "--trainer.accelerator=cpu")
    assert answer.code == 0, answer
    told = answer.out.splitlines()
    assert told[0] == "A short version of the run, saved every 7 steps, is killed once and continued."
    assert told[1].startswith("  kill 1: after step ")
    assert " of 40 (" in told[1]
    assert told[1].endswith(": identical")
    assert told[2].startswith("Identical, 1 of 1: weights, optimiser, schedule and metrics")
    assert not list(temporary.iterdir())
    assert not Path("logs").exists()


def test_doctor_resume_notices_a_run_that_a_kill_harms(lab: Lab, temporary: Path) -> None:
    drift = "--trainer.callbacks+=test_rehearsal.Drift"
    answer = lab("doctor", "--resume", "--kills=2", *SHORT, drift, "--checkpoint.every_n_steps=1")
    assert answer.code == 1, answer
    assert ": differs in best: state_dict." in answer.out
    assert " of 2. Two uninterrupted runs are identical, so a kill loses something: " in answer.out
    (kept,) = temporary.iterdir()
    assert answer.out.endswith(f"The runs and what they printed are kept in {kept}.\n")


def test_doctor_resume_tells_a_run_that_differs_without_a_kill(lab: Lab, temporary: Path) -> None:
    restless = "--trainer.callbacks+=test_rehearsal.Restless"
    answer = lab("doctor", "--resume", "--kills=1", *SHORT, restless, "--trainer.max_epochs=6")
    assert answer.code == 1, answer
    assert "Two uninterrupted runs differ as well (best: state_dict." in answer.out


def test_doctor_parity_finds_the_default_the_same(lab: Lab, temporary: Path) -> None:
    answer = lab("doctor", "--parity", "--trainer.accelerator=cpu")
    assert answer.code == 0, answer
    told = answer.out.splitlines()
    assert told[1].split() == ["epoch", "2", "one", "process", "two", "processes", "difference"]
    assert {"grad_norm", "train/loss", "val/loss", "val/acc"} < {line.split()[0] for line in told[2:-2]}
    assert "val/loss/rank0" not in answer.out
    assert told[-1] == "The same up to rounding: the number of processes does not show."
    assert not list(temporary.iterdir())


def test_doctor_parity_says_why_two_processes_differ(lab: Lab, temporary: Path) -> None:
    answer = lab("doctor", "--parity", *SHORT, "--model.net.dropout=0.5", "--trainer.max_epochs=1")
    assert answer.code == 1, answer
    assert "Differs: rounding alone would stay below 1e-05." in answer.out
    assert "The net has dropout, which draws a mask in each process" in answer.out
    assert "The net has kinks" in answer.out
    assert "batch norm" not in answer.out


def test_doctor_parity_refuses_a_batch_that_two_processes_cannot_share(lab: Lab, temporary: Path) -> None:
    answer = lab("doctor", "--parity", *SHORT, "--data.batch_size=33")
    assert answer.code == 2
    assert answer.err == (
        "error: `batch_size` 33 is the global batch and does not divide into 2 processes. Choose a multiple of 2.\n"
    )
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--resume", "--parity"), "argument --parity: not allowed with argument --resume. See lightning-lab doctor"),
        (("--resume", "--kills=0"), "argument --kills: must be at least 1, got 0. See lightning-lab doctor --help."),
        (("--brief", "--config=digits/mlp"), "unrecognized arguments: --config=digits/mlp. See lightning-lab doctor"),
        (("--resume", "--checkpoint=null"), "The run saves no last state to continue from: leave `checkpoint`"),
        (("--resume", "--checkpoint.last=false"), "The run saves no last state to continue from: leave `checkpoint`"),
        (("--parity", "--trainer.fast_dev_run=true"), "`trainer.fast_dev_run` keeps no record that could be compared."),
        (("--parity", "--data.batchsize=3"), "Unknown key 'data.batchsize'. Did you mean 'data.batch_size'?"),
        (("--resume", "--trainer.accelerator=abc"), "You selected an invalid accelerator name: `accelerator='abc'`."),
    ],
)
def test_doctor_refuses(arguments: tuple[str, ...], message: str, lab: Lab, temporary: Path) -> None:
    answer = lab("doctor", *arguments)
    assert answer.code == 2
    assert answer.err.startswith(f"error: {message}")
    assert not list(temporary.iterdir())


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


# --- the short version ---


def test_the_users_own_length_is_left_alone() -> None:
    config = shorten(["--config=digits/mlp", "--trainer.max_epochs=5"]).config
    assert (config["trainer"]["max_epochs"], config["trainer"]["limit_train_batches"]) == (5, 20)


@pytest.mark.parametrize(("interval", "warmup", "expected"), [("step", 39, 39), ("step", 40, 20), ("epoch", 2, 1)])
def test_a_warm_up_fits_into_the_short_run(interval: str, warmup: int, expected: int) -> None:
    short = shorten([f"--lr_schedule.interval={interval}", f"--lr_schedule.warmup={warmup}"])
    assert shorten(short.arguments).config["lr_schedule"]["warmup"] == expected


def test_a_test_part_stays_closed() -> None:
    assert "--then=null" in shorten(["--then=test"]).arguments[-1:]


# --- what is compared ---


def flip_last_bit(value: float) -> float:
    (bits,) = struct.unpack("i", struct.pack("f", value))
    return float(struct.unpack("f", struct.pack("i", bits ^ 1))[0])


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("weight", lambda value: torch.tensor([1.0, flip_last_bit(2.0)])),
        ("weight", lambda value: value.double()),
        ("weight", lambda value: value[None]),
        ("weight", lambda value: value.tolist()),
        ("epoch 1: val/loss", lambda value: flip_last_bit(value)),
        ("status", lambda value: "stopped_early"),
    ],
    ids=["one bit", "type", "shape", "no tensor", "metric", "ending"],
)
def test_a_change_is_named(key: str, change: Callable[[Any], Any]) -> None:
    assert compare(CONTENT, {**CONTENT, key: change(CONTENT[key])}) == (key,)


@pytest.mark.parametrize("key", CONTENT)
def test_a_missing_value_is_named_on_either_side(key: str) -> None:
    less = {name: value for name, value in CONTENT.items() if name != key}
    assert compare(CONTENT, less) == compare(less, CONTENT) == (key,)


def test_zeros_of_two_signs_differ_and_equal_nans_do_not() -> None:
    nan = {"weight": torch.tensor([float("nan")])}
    assert compare(nan, {"weight": nan["weight"].clone()}) == ()
    assert compare({"weight": torch.tensor(0.0)}, {"weight": torch.tensor(-0.0)}) == ("weight",)


def test_a_result_has_weights_optimiser_schedule_metrics_and_ending(lab: Lab, tmp_path: Path) -> None:
    rehearsal = Rehearsal(SHORT, tmp_path)
    place = ("--run.logs=.", "--run.experiment=rehearsal", "--run.name=one")
    assert lab("fit", *SHORT, *place, "--trainer.max_epochs=1", "--lr_schedule.interval=step").code == 0
    found = result_of(rehearsal.directory("one"))
    assert found["last: global_step"] == 10
    assert found["last: optimizer_states.0.state.0.momentum_buffer"].shape == (128, 256)
    assert found["last: lr_schedulers.0.last_epoch"] == 10
    assert "best: state_dict.net.layers.0.weight" in found
    assert {"epoch 1: val/loss", "epoch 1: grad_norm", "epoch 1: step"} < set(found)
    assert (found["status"], found["epochs"], found["steps"]) == ("completed", 1, 10)
    assert not [key for key in found if "time_s" in key or "callbacks" in key]


# --- parity ---


def test_differences_are_relative_and_name_their_epoch() -> None:
    one = [{"epoch": 1, "step": 5, "time_s": 1.0, "val/loss": 2.0, "val/acc": 0.0}]
    two = [{"epoch": 1, "step": 5, "time_s": 2.0, "val/loss": 1.5, "val/acc": 0.0, "val/loss/rank0": 7.0}]
    assert [(d.metric, d.epoch, d.relative) for d in differences(one, two)] == [
        ("val/loss", 1, 0.25),
        ("val/acc", 1, 0.0),
    ]


@pytest.mark.parametrize(("one", "two"), [([{"epoch": 1, "a": 1.0}], []), ([{"epoch": 1, "a": 1.0}], [{"epoch": 1}])])
def test_a_value_that_one_run_lacks_is_no_rounding(one: list[dict[str, Any]], two: list[dict[str, Any]]) -> None:
    assert [difference.relative for difference in differences(one, two)] == [float("inf")]
    assert [difference.relative for difference in differences(two, one)] == [float("inf")]


@pytest.mark.parametrize(
    ("part", "kinds"),
    [
        (nn.Dropout2d(0.1), {"dropout"}),
        (nn.Dropout(0.0), set()),
        (nn.BatchNorm1d(2), {"batch norm"}),
        (nn.SyncBatchNorm(2), set()),
        (nn.LayerNorm(2), set()),
        (nn.ReLU(), {"kinks"}),
        (nn.MaxPool2d(2), {"kinks"}),
        (nn.GELU(), set()),
        (nn.AvgPool2d(2), set()),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_the_parts_that_tell_processes_apart_are_found(part: nn.Module, kinds: set[str]) -> None:
    assert kinds_of(nn.Sequential(nn.Linear(2, 2), part)) == kinds


def test_reasons_are_those_that_apply() -> None:
    assert [reason.split(",")[0] for reason in reasons({"batch norm"}, "bf16-mixed")] == [
        "The net has batch norm",
        "`trainer.precision` bf16-mixed rounds every gradient coarsely",
    ]
    assert reasons(set(), "32-true") == []


# --- the heartbeat ---


def test_a_heartbeat_tells_what_a_run_does(tmp_path: Path) -> None:
    rehearsal = Rehearsal((*SHORT, "--trainer.max_epochs=1"), tmp_path)
    assert read_beats(rehearsal.heartbeat("one")) == []
    rehearsal.finish("one")
    beats = read_beats(rehearsal.heartbeat("one"))
    assert len(beats) == count_beats(rehearsal.heartbeat("one"))
    assert [beat.time_s for beat in beats] == sorted(beat.time_s for beat in beats)
    assert beats[0][1:] == (0, 0, 1, "training")
    assert list(dict.fromkeys(beat.step for beat in beats)) == list(range(11))
    phases = ["training", "validation", "epoch end", "saving", "end"]
    assert list(dict.fromkeys(beat.phase for beat in beats)) == phases


def test_an_unfinished_beat_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "beat").write_text("0.5 0 1")
    assert read_beats(tmp_path / "beat") == []
    assert count_beats(tmp_path / "beat") == 0
