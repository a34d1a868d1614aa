"""A run that is stopped anywhere and continued ends as the uninterrupted one does, to the last bit.

In one process and through the real command; a signal stops it. The same with SIGKILL is in test_rehearsal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import Lab
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_lab.rehearsal.result import compare, result_of
from lightning_lab.runs.directory import RunDirectory

COMMON = (
    "--trainer.accelerator=cpu", "--trainer.max_epochs=3", "--trainer.limit_train_batches=7", "--run.experiment=exact",
    "--trainer.limit_val_batches=3", "--trainer.callbacks+=support.Stop", "--data.batch_size=16",
)  # fmt: skip
MLP = ("--config=digits/mlp",)
STEADY = (*MLP, "--lr_schedule=null")
#: What may hold state that a checkpoint has to keep.
SETTINGS: dict[str, tuple[str, ...]] = {
    "dropout": (*STEADY, "--model.net.dropout=0.3"),
    "drop-connect": (*STEADY, "--model.net.drop_connect=0.3"),
    "augmentation": ("--config=digits/lenet5", "--lr_schedule=null", "--data.augment.crop=2",
                     "--data.augment.rotate=10", "--data.augment.noise=0.1"),
    "schedule by the step": (*MLP, "--lr_schedule.interval=step", "--lr_schedule.warmup=5"),
    "schedule on a plateau": (*MLP, "--lr_schedule.scheduler=ReduceLROnPlateau", "--lr_schedule.scheduler.patience=0",
                              "--lr_schedule.scheduler.threshold=0.5"),
    "down to the end": (*MLP, "--lr_schedule.scheduler=lightning_lab.callbacks.lr_schedule.LinearDecay",
                        "--lr_schedule.interval=step"),
    "clipping": (*STEADY, "--gradient_clipping.max_norm=0.5"),
    "penalty": (*STEADY, "--penalty.kind=norm", "--penalty.weight=0.01", "--penalty.parameters=all"),
    "least squares": (*STEADY, "--least_squares_head.ridge=0.01", "--checkpoint.monitor=val/acc"),
    "early stopping": (*STEADY, "--early_stopping.patience=1", "--early_stopping.min_delta=0.5"),
    "Adam": (*STEADY, "--model.optimizer=Adam", "--model.optimizer.lr=0.01"),
    "batch norm in bf16": ("--config=digits/lenet5", "--lr_schedule=null", "--model.net.batch_norm=true",
                           "--trainer.precision=bf16-mixed"),
    "accumulated gradients": (*STEADY, "--trainer.accumulate_grad_batches=3", "--model.net.dropout=0.3"),
    "two validations an epoch": (*STEADY, "--trainer.val_check_interval=3"),
    "a validation every other epoch": (*STEADY, "--trainer.check_val_every_n_epoch=2"),
    "no validation": (*STEADY, "--trainer.limit_val_batches=0"),
    "an end within an epoch": (*STEADY, "--trainer.max_steps=17", "--trainer.max_epochs=-1"),
}  # fmt: skip
#: Where the signal comes: within an epoch, at its last step, in a validation, at an epoch's end, in a save.
PLACES = (
    "on_train_batch_end:4",
    "on_train_batch_end:10",
    "on_train_batch_end:14",
    "on_validation_batch_end:2",
    "on_validation_batch_end:6",
    "on_train_epoch_end:2",
    "on_save_checkpoint:2",
)
#: All places for the settings that differ in where a step ends; the others have state that is the same everywhere.
EVERYWHERE = ("accumulated gradients", "two validations an epoch")
CASES = [
    pytest.param(
        setting, place, marks=[] if setting in EVERYWHERE or place in (PLACES[1], PLACES[4]) else pytest.mark.slow
    )
    for setting in SETTINGS
    for place in PLACES
]
_truths: dict[str, dict[str, Any]] = {}


def run(lab: Lab, setting: str, logs: Path, name: str) -> tuple[int, RunDirectory]:
    config, *rest = SETTINGS[setting]
    answer = lab("fit", config, *COMMON, *rest, f"--run.logs={logs}", f"--run.name={name}")
    assert answer.code in (0, 143), answer.err
    return answer.code, RunDirectory(logs / "exact" / name)


@pytest.mark.parametrize(("setting", "place"), CASES)
def test_a_stopped_run_ends_as_if_it_had_not_been(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, place: str
) -> None:
    if setting not in _truths:
        _truths[setting] = result_of(run(lab, setting, tmp_path, "whole")[1])
    monkeypatch.setenv("STOP", place)
    code, stopped = run(lab, setting, tmp_path, "stopped")
    monkeypatch.delenv("STOP")
    if code == 143:
        assert stopped.read_summary()["status"] == "interrupted"
        code, stopped = run(lab, setting, tmp_path, "stopped")
    assert code == 0
    assert compare(_truths[setting], result_of(stopped)) == ()
    assert curve(stopped) == [(row["step"] - 1, row["train/loss"]) for row in stopped.read_metrics()]


def curve(run: RunDirectory) -> list[tuple[int, Any]]:
    """Read what TensorBoard shows."""
    events = EventAccumulator(str(run.path / "train")).Reload().Scalars("loss")
    return [(event.step, pytest.approx(event.value, rel=1e-6)) for event in events]
