"""The epoch of the stop, against a reference written from the definitions, on given curves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import Trainer

from lightning_lab.callbacks.checkpoint import Checkpoint
from lightning_lab.callbacks.early_stopping import EarlyStopping
from lightning_lab.callbacks.record import RunRecord
from lightning_lab.data.loader import TensorLoader
from lightning_lab.runs.directory import RunDirectory

Build = Callable[..., Trainer]
Steps = Callable[[int], TensorLoader]


def epochs_until_stop(
    values: list[float], *, patience: int, min_delta: float = 0.0, rise: float | None = None, larger: bool = False
) -> int:
    """Count the epochs that are trained: the definitions, in plain Python."""
    best: float | None = None
    waited = 0
    for epoch, value in enumerate(values, start=1):
        if best is not None and rise is not None and (value - best) / best > rise:
            return epoch
        gain = None if best is None else (value - best if larger else best - value)
        if gain is None or gain > min_delta:
            best, waited = value, 0
        else:
            waited += 1
            if waited == patience:
                return epoch
    return len(values)


def curve(seed: int) -> list[float]:
    """Draw a curve that falls and rises again, of values that 32 bits hold exactly."""
    generator = np.random.default_rng(seed)
    x = np.arange(24)
    noise = generator.integers(-6, 7, 24)
    return [float(v) / 64 for v in np.maximum(1, 64 - 6 * x + x**2 // 4 + noise)]


def fit(trainer: Build, module: Any, steps: Steps, callback: EarlyStopping, epochs: int) -> int:
    built = trainer(callback, max_epochs=epochs)
    built.fit(module, steps(1), steps(1))
    return int(built.current_epoch)


# --- patience and min_delta ---


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("patience", [1, 2, 5])
@pytest.mark.parametrize("min_delta", [0.0, 0.125])
def test_patience_and_min_delta(
    trainer: Build, scripted: Any, steps: Steps, seed: int, patience: int, min_delta: float
) -> None:
    values = curve(seed)
    callback = EarlyStopping(patience=patience, min_delta=min_delta)
    expected = epochs_until_stop(values, patience=patience, min_delta=min_delta)
    assert expected < len(values)
    assert fit(trainer, scripted(values), steps, callback, len(values)) == expected
    assert callback.has_stopped


@pytest.mark.parametrize(
    ("values", "patience", "min_delta", "epochs"),
    [
        ([4.0, 3.0, 3.0, 2.0, 2.0, 2.0, 1.0], 2, 0.0, 6),  # an equal value is no improvement
        ([4.0, 3.5, 3.0, 2.5, 2.0], 2, 0.5, 5),  # exactly min_delta is none, but two of them are one
        ([4.0, 3.5, 3.5, 1.0], 2, 0.5, 3),
    ],
)
def test_curves_by_hand(
    trainer: Build,
    scripted: Any,
    steps: Steps,
    values: list[float],
    patience: int,
    min_delta: float,
    epochs: int,
) -> None:
    callback = EarlyStopping(patience=patience, min_delta=min_delta)
    assert epochs_until_stop(values, patience=patience, min_delta=min_delta) == epochs
    assert fit(trainer, scripted(values), steps, callback, len(values)) == epochs


# --- the labs' criterion ---


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rise", [0.25, 0.75])
@pytest.mark.parametrize("patience", [3, 100])
def test_relative_rise_alone_and_with_patience(
    trainer: Build, scripted: Any, steps: Steps, seed: int, rise: float, patience: int
) -> None:
    values = curve(seed)
    callback = EarlyStopping(patience=patience, relative_rise=rise)
    expected = epochs_until_stop(values, patience=patience, rise=rise)
    assert expected < len(values)
    assert fit(trainer, scripted(values), steps, callback, len(values)) == expected
    assert callback.has_stopped


@pytest.mark.parametrize(
    ("values", "epochs"),
    [
        ([4.0, 2.0, 3.0, 3.0, 3.125, 1.0], 5),  # a rise of exactly 0.5 does not exceed 0.5
        ([4.0, 5.0, 4.0, 7.0, 1.0], 4),
        ([1.0, 1.5, 0.5, 0.875, 1.0, 0.25], 4),  # the threshold falls with the best value
    ],
)
def test_relative_rise_stops_in_the_first_epoch_above_the_threshold(
    trainer: Build, scripted: Any, steps: Steps, values: list[float], epochs: int
) -> None:
    callback = EarlyStopping(patience=100, relative_rise=0.5)
    assert fit(trainer, scripted(values), steps, callback, len(values)) == epochs


def test_the_reason_names_the_metric_and_its_value(trainer: Build, scripted: Any, steps: Steps) -> None:
    callback = EarlyStopping(patience=100, relative_rise=0.5)
    fit(trainer, scripted([2.0, 4.0, 1.0]), steps, callback, 3)
    assert "val/loss = 4.0" in str(callback.stopping_reason_message)


# --- the direction ---


@pytest.mark.parametrize(
    ("metric", "mode", "larger"),
    [
        ("val/acc", "auto", True),
        ("val/r2", "auto", True),
        ("val/loss", "auto", False),
        ("val/mae", "auto", False),
        ("val/mae", "max", True),
        ("val/acc", "min", False),
    ],
)
def test_the_direction_is_known_from_the_name_unless_given(
    trainer: Build, scripted: Any, steps: Steps, metric: str, mode: Any, larger: bool
) -> None:
    values = [0.5, 0.75, 0.875, 0.75, 0.375, 0.25, 0.25, 0.375, 0.5, 0.5]
    callback = EarlyStopping(monitor=metric, mode=mode, patience=3)
    expected = epochs_until_stop(values, patience=3, larger=larger)
    assert expected == (6 if larger else 4)
    assert fit(trainer, scripted(values, metric=metric), steps, callback, len(values)) == expected


# --- continuing ---


@pytest.mark.parametrize("patience", [1, 5])  # a larger one than before does not undo the stop
def test_a_run_that_had_stopped_stops_at_once_and_says_so(
    trainer: Build, scripted: Any, steps: Steps, tmp_path: Path, patience: int
) -> None:
    run = RunDirectory(tmp_path / "run")

    def fit(patience: int, **settings: Any) -> int:
        record = RunRecord(run, config="a: 1\n", overwrite=False, monitor="val/loss", mode="min", seed=1)
        callbacks = [EarlyStopping(patience=patience), record, *Checkpoint().callbacks(run.checkpoints)]
        built = trainer(*callbacks, max_epochs=9)
        built.fit(scripted([1.0, 2.0, *[0.5] * 7]), steps(2), steps(1), **settings)
        return int(built.global_step)

    kept = ("status", "reason", "epochs", "steps", "best", "last")
    assert fit(1) == 4
    before = run.read_summary()
    assert fit(patience, ckpt_path=run.last, weights_only=True) == 4
    assert [run.read_summary()[key] for key in kept] == [before[key] for key in kept]
    assert (before["status"], before["epochs"]) == ("stopped_early", 2)


# --- no stop ---


def test_a_run_that_improves_to_its_end_has_not_stopped(trainer: Build, scripted: Any, steps: Steps) -> None:
    callback = EarlyStopping(patience=2, relative_rise=0.1)
    assert fit(trainer, scripted([4.0, 3.0, 2.0, 1.0]), steps, callback, 4) == 4
    assert not callback.has_stopped


def test_a_value_that_is_not_finite_does_not_stop_at_once(trainer: Build, scripted: Any, steps: Steps) -> None:
    callback = EarlyStopping(patience=2)
    assert fit(trainer, scripted([4.0, float("nan"), 2.0, 1.0]), steps, callback, 4) == 4


# --- what it says ---


@pytest.mark.parametrize(("patience", "epochs"), [(3, 3), (10, 2)])
def test_a_patience_that_cannot_run_out_is_a_warning(
    trainer: Build, scripted: Any, steps: Steps, patience: int, epochs: int
) -> None:
    message = (
        f"`early_stopping` has no effect: its patience of {patience} validations is not below the {epochs} of this run."
    )
    with pytest.warns(UserWarning, match=message):
        fit(trainer, scripted([1.0] * epochs), steps, EarlyStopping(patience=patience), epochs)


@pytest.mark.parametrize(
    ("patience", "interval", "warns"),
    [
        (5, {"val_check_interval": 0.25}, False),  # four an epoch, eight in all
        (8, {"val_check_interval": 0.25}, True),
        (1, {"check_val_every_n_epoch": 2}, True),
    ],
)
def test_validations_are_counted_and_not_epochs(
    trainer: Build, scripted: Any, steps: Steps, patience: int, interval: dict[str, Any], warns: bool
) -> None:
    run = trainer(EarlyStopping(patience=patience), max_epochs=2, **interval)
    with pytest.warns(UserWarning, match="no effect") if warns else contextlib.nullcontext():
        run.fit(scripted([1.0, 1.0]), steps(4), steps(1))
    assert (run.global_step == 8) is warns  # the first one is the best of equals: five others use the patience up


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patience": 0}, "`patience` must be at least 1 validation, got 0."),
        ({"min_delta": float("nan")}, "`min_delta` must be at least 0, got nan."),
        ({"relative_rise": float("nan")}, "`relative_rise` must be above 0, got nan."),
        ({"min_delta": -0.5}, "`min_delta` must be at least 0, got -0.5."),
        ({"relative_rise": 0.0}, "`relative_rise` must be above 0, got 0.0."),
        (
            {"relative_rise": 0.1, "monitor": "val/acc"},
            "`relative_rise` needs a metric that is better when small, got `monitor` val/acc.",
        ),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EarlyStopping(**arguments)
