"""What best.ckpt and last.ckpt hold, told by a weight that counts the steps."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_lab.callbacks.checkpoint import Checkpoint
from lightning_lab.data.loader import TensorLoader

Build = Callable[..., Trainer]
Steps = Callable[[int], TensorLoader]


def steps_in(path: Path) -> int:
    """Read how many steps the weight in a checkpoint has seen."""
    return int(torch.load(path, weights_only=True)["state_dict"]["weight"])


# --- best and last ---


@pytest.mark.parametrize(
    ("arguments", "metric", "values", "best"),
    [
        ({}, "val/loss", [3.0, 1.0, 2.0, 1.0], 2),  # the first of equals
        ({"monitor": "val/acc"}, "val/acc", [0.1, 0.2, 0.9, 0.3], 3),
        ({"monitor": "val/acc", "mode": "min"}, "val/acc", [0.5, 0.2, 0.9, 0.3], 2),
        ({"monitor": "val/mae", "mode": "max"}, "val/mae", [0.5, 0.2, 0.9, 0.3], 3),
    ],
)
def test_best_and_last_are_those_epochs(
    trainer: Build,
    scripted: Any,
    steps: Steps,
    watch: Any,
    tmp_path: Path,
    arguments: dict[str, Any],
    metric: str,
    values: list[float],
    best: int,
) -> None:
    folder = tmp_path / "checkpoints"
    built = trainer(watch, *Checkpoint(**arguments).callbacks(folder), max_epochs=4)
    built.fit(scripted(values, metric=metric), steps(3), steps(1))
    saved = {path.name: torch.load(path, weights_only=True) for path in folder.iterdir()}
    assert set(saved) == {"best.ckpt", "last.ckpt"}
    assert saved["best.ckpt"]["state_dict"] == watch.weights[best - 1] == {"weight": torch.tensor([3.0 * best])}
    assert saved["last.ckpt"]["state_dict"] == watch.weights[-1] == {"weight": torch.tensor([12.0])}
    assert (saved["best.ckpt"]["global_step"], saved["last.ckpt"]["global_step"]) == (3 * best, 12)


def test_without_last_only_the_best_is_saved(trainer: Build, scripted: Any, steps: Steps, tmp_path: Path) -> None:
    saves = Checkpoint(last=False).callbacks(tmp_path / "checkpoints")
    trainer(*saves, max_epochs=2).fit(scripted([1.0, 2.0]), steps(1), steps(1))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["best.ckpt"]


@pytest.mark.parametrize(("value", "best"), [(2.0, 2), (0.5, 6)])
def test_the_best_epoch_is_known_after_the_folder_was_moved(
    trainer: Build, scripted: Any, steps: Steps, tmp_path: Path, value: float, best: int
) -> None:
    values = [1.0, 3.0, value]
    old, new = tmp_path / "old", tmp_path / "new"
    trainer(*Checkpoint().callbacks(old), max_epochs=2).fit(scripted(values), steps(2), steps(1))
    shutil.copytree(old, new)
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    built = trainer(*Checkpoint().callbacks(new), max_epochs=3)
    built.fit(scripted(values), steps(2), steps(1), ckpt_path=new / "last.ckpt", weights_only=True)
    assert (steps_in(new / "best.ckpt"), steps_in(new / "last.ckpt")) == (best, 6)
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before
    assert built.checkpoint_callback.best_model_path == str(new / "best.ckpt")


# --- failures ---


def test_a_failure_keeps_the_last_epoch_as_it_was(
    trainer: Build, scripted: Any, steps: Steps, raise_at: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    with pytest.raises(ValueError, match=r"^wrong$"):
        trainer(raise_at(ValueError("wrong"), 7), *Checkpoint().callbacks(folder), max_epochs=3).fit(
            scripted([1.0, 2.0, 3.0]), steps(4), steps(1)
        )
    assert {path.name: steps_in(path) for path in folder.iterdir()} == {"best.ckpt": 4, "last.ckpt": 4}


# --- what it says ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every_n_steps": 0}, "`every_n_steps` must be above 0, got 0. Null saves at the end of each epoch only."),
        ({"every_n_minutes": -1.0}, "`every_n_minutes` must be above 0, got -1.0. Null saves at the end"),
        ({"every_n_minutes": 5, "last": False}, "`every_n_minutes` 5 saves the last state, but `last` is false."),
        ({"every_n_steps": 5, "last": False}, "`every_n_steps` 5 saves the last state, but `last` is false."),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Checkpoint(**arguments)
