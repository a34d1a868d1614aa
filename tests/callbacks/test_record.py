"""metrics.jsonl and summary.json after runs that end in every way."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_lab.callbacks.checkpoint import Checkpoint
from lightning_lab.callbacks.early_stopping import EarlyStopping
from lightning_lab.callbacks.gradient_clipping import GradientClipping
from lightning_lab.callbacks.lr_schedule import LRSchedule
from lightning_lab.callbacks.record import RunRecord
from lightning_lab.data.loader import TensorLoader
from lightning_lab.runs.directory import RunDirectory
from lightning_lab.runs.errors import DivergedError, Stopped
from lightning_lab.tasks import Classification

Build = Callable[..., Trainer]
Steps = Callable[[int], TensorLoader]
Loaders = Callable[..., TensorLoader]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def record(run: RunDirectory, monitor: str = "val/loss", mode: str = "min", overwrite: bool = False) -> RunRecord:
    return RunRecord(run, config="seed_everything: 17\n", overwrite=overwrite, monitor=monitor, mode=mode, seed=17)


def classifier(net: torch.nn.Module) -> Classification:
    return Classification(net, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9))


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "time_s"}


# --- metrics.jsonl ---


def test_a_row_an_epoch_with_everything_that_was_logged(
    trainer: Build, classes: Loaders, small_net: Any, run: RunDirectory, watch: Any
) -> None:
    slots = [GradientClipping(max_norm=0.5), LRSchedule(scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.5))]
    trainer(watch, *slots, record(run), max_epochs=3).fit(classifier(small_net()), classes(), classes(9))
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 6), (2, 12), (3, 18)]
    logged = [{name: row[name] for name in row if name not in ("epoch", "step", "time_s")} for row in rows]
    assert logged == [metrics | {"lr": lr} for metrics, lr in zip(watch.metrics, (0.1, 0.05, 0.025), strict=True)]
    names = {"train/loss", "train/acc", "val/loss", "val/acc", "grad_norm", "grad_norm_clipped", "clipped_frac", "lr"}
    assert set(logged[0]) == names
    assert 0 < rows[0]["time_s"] < rows[1]["time_s"] < rows[2]["time_s"] < 60


def test_the_rate_is_that_of_the_last_step_of_the_epoch(
    trainer: Build, scripted: Any, steps: Steps, run: RunDirectory, watch: Any
) -> None:
    schedule = LRSchedule(scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9), interval="step")
    trainer(schedule, watch, record(run), max_epochs=2).fit(scripted([1.0, 1.0], lr=0.1), steps(3), steps(1))
    assert [row["lr"] for row in run.read_metrics()] == [watch.rates[2], watch.rates[5]]


class Reader(Callback):
    """Read the record at the start of every epoch, as somebody outside would."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.seen: list[tuple[str, int, int]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        summary = self.run.read_summary()
        self.seen.append((summary["status"], summary["epochs"], len(self.run.read_metrics())))


def test_the_record_is_up_to_date_while_it_trains(
    trainer: Build, scripted: Any, steps: Steps, run: RunDirectory
) -> None:
    reader = Reader(run)
    trainer(reader, record(run), max_epochs=3).fit(scripted([1.0] * 3), steps(2), steps(1))
    assert reader.seen == [("running", 0, 0), ("running", 1, 1), ("running", 2, 2)]


@pytest.mark.parametrize("stop", [7, 12, 13])  # an epoch has 6 steps
def test_a_run_that_continues_writes_the_rows_of_the_uninterrupted_one(
    trainer: Build, classes: Loaders, small_net: Any, tmp_path: Path, raise_at: Any, stop: int
) -> None:
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")

    def fit(run: RunDirectory, *callbacks: Any, **settings: Any) -> None:
        saves = Checkpoint().callbacks(run.checkpoints)
        built = trainer(LRSchedule(), GradientClipping(max_norm=0.5), *callbacks, record(run), *saves, max_epochs=6)
        built.fit(classifier(small_net()), classes(shuffle=True, seed=3), classes(9), **settings)

    fit(whole)
    # A failure saves nothing, so the run goes back to the end of an epoch and trains what came after it again.
    with pytest.raises(OSError, match=r"^disk$"):
        fit(broken, raise_at(OSError("disk"), stop))
    done = len(broken.read_metrics())
    fit(broken, ckpt_path=broken.last, weights_only=True)
    assert 0 < done < 6
    assert [timeless(row) for row in broken.read_metrics()] == [timeless(row) for row in whole.read_metrics()]
    times = [row["time_s"] for row in broken.read_metrics()]
    assert times == sorted(times)
    kept = ("status", "epochs", "steps", "best", "last")
    assert [broken.read_summary()[key] for key in kept] == [whole.read_summary()[key] for key in kept]


def test_rows_behind_the_checkpoint_are_dropped(trainer: Build, scripted: Any, steps: Steps, run: RunDirectory) -> None:
    values = [2.0, 1.0, 3.0, 4.0]
    saves = Checkpoint().callbacks(run.checkpoints)
    trainer(record(run), *saves, max_epochs=4).fit(scripted(values), steps(2), steps(1))
    again = trainer(record(run), *Checkpoint().callbacks(run.checkpoints), max_epochs=3)
    again.fit(scripted(values), steps(2), steps(1), ckpt_path=run.best, weights_only=True)
    assert [(row["epoch"], row["val/loss"]) for row in run.read_metrics()] == [(1, 2.0), (2, 1.0), (3, 3.0)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_null_and_never_the_best(
    trainer: Build, scripted: Any, steps: Steps, run: RunDirectory, value: float
) -> None:
    callbacks = [record(run), *Checkpoint().callbacks(run.checkpoints)]
    trainer(*callbacks, max_epochs=4).fit(scripted([value, 2.0, 1.0, value]), steps(1), steps(1))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    rows = [json.loads(line, parse_constant=refuse) for line in run.metrics.read_text().splitlines()]
    assert [row["val/loss"] for row in rows] == [None, 2.0, 1.0, None]
    summary = json.loads(run.summary.read_text(), parse_constant=refuse)
    assert summary["best"] == {"metric": "val/loss", "value": 1.0, "epoch": 3}
    assert summary["last"]["val/loss"] is None
    assert int(torch.load(run.best, weights_only=True)["state_dict"]["weight"]) == 3


def test_an_epoch_without_a_validation_has_no_validation_metrics(
    trainer: Build, scripted: Any, steps: Steps, run: RunDirectory
) -> None:
    module = scripted([9.0, 2.0, 9.0, 1.0])
    trainer(record(run), max_epochs=4, check_val_every_n_epoch=2).fit(module, steps(1), steps(1))
    assert [row.get("val/loss", "none") for row in run.read_metrics()] == ["none", 2.0, "none", 1.0]


# --- summary.json ---


@pytest.mark.parametrize(
    ("metric", "mode", "values", "best"),
    [
        ("val/loss", "min", [3.0, 1.0, 2.0], {"metric": "val/loss", "value": 1.0, "epoch": 2}),
        ("val/acc", "max", [0.25, 0.5, 0.5], {"metric": "val/acc", "value": 0.5, "epoch": 2}),
    ],
)
def test_a_completed_run(
    trainer: Build,
    scripted: Any,
    steps: Steps,
    run: RunDirectory,
    metric: str,
    mode: str,
    values: list[float],
    best: dict[str, Any],
) -> None:
    callback = record(run, metric, mode)
    trainer(callback, max_epochs=3).fit(scripted(values, metric=metric, lr=0.1), steps(2), steps(1))
    summary = run.read_summary()
    assert 0 < summary.pop("wall_s") < 60
    assert summary == {
        "status": "completed",
        "reason": None,
        "epochs": 3,
        "steps": 6,
        "best": best,
        "last": {metric: values[-1], "lr": 0.1},
        "seed": 17,
        "split": None,
    }
    assert callback.best_row["epoch"] == 2


def test_without_the_monitored_metric_there_is_no_best(
    trainer: Build, scripted: Any, steps: Steps, run: RunDirectory
) -> None:
    callback = record(run, "val/acc", "max")
    trainer(callback).fit(scripted([1.0]), steps(2), steps(1))
    assert (run.read_summary()["best"], callback.best, callback.best_row) == (None, None, {})


def test_a_run_that_stopped_early_says_why(trainer: Build, scripted: Any, steps: Steps, run: RunDirectory) -> None:
    callbacks = [EarlyStopping(patience=2), record(run)]
    trainer(*callbacks, max_epochs=9).fit(scripted([3.0, 1.0, 2.0, 2.0, 0.0]), steps(2), steps(1))
    summary = run.read_summary()
    assert (summary["status"], summary["epochs"], summary["steps"]) == ("stopped_early", 4, 8)
    assert summary["reason"].startswith("Monitored metric val/loss did not improve in the last 2 records.")
    assert summary["best"] == {"metric": "val/loss", "value": 1.0, "epoch": 2}


@pytest.mark.parametrize(
    ("error", "raised", "status", "reason"),
    [
        (KeyboardInterrupt(), SystemExit, "interrupted", "SIGINT in epoch 2"),
        (Stopped(signal.SIGINT), Stopped, "interrupted", "SIGINT in epoch 2"),
        (Stopped(signal.SIGTERM), Stopped, "interrupted", "SIGTERM in epoch 2"),
        (DivergedError("not finite"), DivergedError, "diverged", "not finite"),
        (ValueError("wrong"), ValueError, "failed", "ValueError: wrong"),
        (MemoryError(), MemoryError, "failed", "MemoryError: "),
    ],
)
def test_a_run_that_was_ended_says_by_what(
    trainer: Build,
    scripted: Any,
    steps: Steps,
    run: RunDirectory,
    raise_at: Any,
    error: BaseException,
    raised: type[BaseException],
    status: str,
    reason: str,
) -> None:
    with pytest.raises(raised):
        trainer(raise_at(error, 3), record(run), max_epochs=3).fit(scripted([2.0, 1.0, 3.0]), steps(2), steps(1))
    summary = run.read_summary()
    assert (summary["status"], summary["reason"], summary["epochs"], summary["steps"]) == (status, reason, 1, 3)
    assert summary["last"] == {"val/loss": 2.0, "lr": 1.0}


# --- the folder ---


def test_the_configuration_and_the_environment_are_written(
    trainer: Build, scripted: Any, steps: Steps, run: RunDirectory
) -> None:
    trainer(record(run)).fit(scripted([1.0]), steps(2), steps(1))
    assert run.config.read_text() == "seed_everything: 17\n"
    assert isinstance(json.loads(run.environment.read_text()), dict)


@pytest.mark.parametrize("begins", [True, False])
def test_what_an_earlier_run_left_is_deleted_by_one_that_begins(
    trainer: Build, scripted: Any, steps: Steps, run: RunDirectory, begins: bool
) -> None:
    trainer(record(run)).fit(scripted([1.0]), steps(2), steps(1))
    (run.path / "predictions.csv").touch()
    second = record(run)
    second.begins = begins
    trainer(second).fit(scripted([2.0]), steps(2), steps(1))
    assert (run.path / "predictions.csv").exists() is not begins
    assert [row["val/loss"] for row in run.read_metrics()] == [2.0]


def test_a_mistake_before_the_training_leaves_no_run_behind(
    trainer: Build, scripted: Any, steps: Steps, run: RunDirectory
) -> None:
    with pytest.raises(ValueError, match="brings a schedule of its own"):
        trainer(LRSchedule(), record(run)).fit(scripted([1.0], scheduled=True), steps(2), steps(1))
    assert not run.path.exists()


# --- the test ---


class Fails(Callback):
    """Fail in the first batch of the test."""

    def on_test_batch_start(self, *args: Any) -> None:
        raise ValueError("wrong")


def test_the_test_adds_its_metrics_and_loses_nothing(
    trainer: Build, classes: Loaders, small_net: Any, run: RunDirectory
) -> None:
    module = classifier(small_net())
    trainer(record(run), max_epochs=2).fit(module, classes(), classes(9))
    before, metrics = run.read_summary(), run.metrics.read_bytes()
    tested = trainer(record(run))
    (results,) = tested.test(module, classes(15), verbose=False)
    assert set(results) == {"test/loss", "test/acc"}
    assert run.read_summary() == before | {"test": results}
    assert run.metrics.read_bytes() == metrics


def test_a_test_by_the_trainer_of_the_fit_adds_the_test_metrics_alone(
    trainer: Build, classes: Loaders, small_net: Any, run: RunDirectory
) -> None:
    module, built = classifier(small_net()), trainer(record(run))
    built.fit(module, classes(), classes(9))
    before = run.read_summary()
    (results,) = built.test(module, classes(15), verbose=False)
    assert run.read_summary() == before | {"test": results}


def test_a_test_that_fails_says_nothing_about_the_training(
    trainer: Build, classes: Loaders, small_net: Any, run: RunDirectory
) -> None:
    module = classifier(small_net())
    trainer(record(run)).fit(module, classes(), classes(9))
    before = run.summary.read_bytes()
    with pytest.raises(ValueError, match=r"^wrong$"):
        trainer(Fails(), record(run)).test(module, classes(15), verbose=False)
    assert run.summary.read_bytes() == before
