"""The step, rate and parameter that a divergence is reported with, made at a known step."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lightning_lab.callbacks.checkpoint import Checkpoint
from lightning_lab.callbacks.gradient_clipping import GradientClipping
from lightning_lab.callbacks.nan_guard import NanGuard
from lightning_lab.callbacks.penalty import Penalty
from lightning_lab.callbacks.safe_point import SafePoint
from lightning_lab.data.loader import TensorLoader
from lightning_lab.runs.errors import DivergedError

Build = Callable[..., Trainer]
Steps = Callable[[int], TensorLoader]


class Breaks(LightningModule):
    """A loss that is finite but for one step; its gradient then breaks the parameter `second` alone, or none."""

    def __init__(self, step: int | None, value: float, *, gradient_too: bool = True) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.ones(2))
        self.second = nn.Parameter(torch.ones(2))
        self.third = nn.Parameter(torch.ones(2))
        self.step = step
        self.value = value
        self.gradient_too = gradient_too

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.first.sum() + self.second.sum() + self.third.sum()
        if self.global_step + 1 != self.step:
            return loss
        return loss + (self.second.sum() + self.third.sum()) * self.value if self.gradient_too else loss + self.value

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", self.first.sum(), batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.125)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("check_every", "bad", "epoch", "ends_at"),
    [(1, 3, 1, 3), (50, 3, 1, 5), (2, 3, 1, 4), (50, 7, 2, 10), (1, 5, 1, 5)],
)
def test_the_message_names_step_epoch_parameter_and_rate(
    trainer: Build, steps: Steps, value: float, check_every: int, bad: int, epoch: int, ends_at: int
) -> None:
    # A later step's gradient is finite again here; the weight is not.
    tensor = "gradient of" if ends_at == bad else "parameter"
    message = (
        f"Training diverged: the loss of step {bad} (epoch {epoch}) is not finite; the first tensor that is not "
        f"finite is the {tensor} 'second'. Lower the learning rate (--model.optimizer.lr, now 0.125), or bound the "
        "gradient with --gradient_clipping.max_norm 1."
    )
    built = trainer(NanGuard(check_every_n_steps=check_every), max_epochs=3)
    with pytest.raises(DivergedError, match=f"^{re.escape(message)}$"):
        built.fit(Breaks(bad, value), steps(5))
    assert built.global_step == ends_at


def test_finite_parameters_are_said_to_be_finite(trainer: Build, steps: Steps) -> None:
    message = r"the loss of step 2 \(epoch 1\) is not finite; all gradients and parameters are finite. Lower"
    with pytest.raises(DivergedError, match=message):
        trainer(NanGuard(check_every_n_steps=1)).fit(Breaks(2, float("nan"), gradient_too=False), steps(5))


def test_the_first_of_several_bad_steps_is_named(trainer: Build, steps: Steps) -> None:
    # From step 1 on the weights are NaN, and every later loss too.
    with pytest.raises(DivergedError, match=r"the loss of step 1 \(epoch 1\)"):
        trainer(NanGuard(check_every_n_steps=4)).fit(Breaks(1, float("nan")), steps(9))


@pytest.mark.parametrize("check_every", [1, 50])
def test_a_finite_run_is_left_alone(trainer: Build, steps: Steps, check_every: int) -> None:
    module = Breaks(None, 0.0)
    trainer(NanGuard(check_every_n_steps=check_every), max_epochs=2).fit(module, steps(4), steps(1))
    expected = torch.full((2,), 1 - 8 * 0.125)
    assert all(torch.equal(parameter, expected) for parameter in module.parameters())


@pytest.mark.parametrize("check_every", [1, 50])
@pytest.mark.parametrize(("bad", "kept"), [(2, {}), (5, {}), (7, {"best.ckpt": 5, "last.ckpt": 5})])
@pytest.mark.parametrize("first", ["guard", "checkpoint"])  # Lightning moves those that save to the end
def test_nothing_is_saved_after_the_divergence(
    trainer: Build, steps: Steps, tmp_path: Path, check_every: int, bad: int, kept: dict[str, int], first: str
) -> None:
    folder = tmp_path / "checkpoints"
    guard, saves = NanGuard(check_every_n_steps=check_every), Checkpoint().callbacks(folder)
    callbacks = [guard, *saves] if first == "guard" else [*saves, guard]
    with pytest.raises(DivergedError, match=f"step {bad} "):
        trainer(*callbacks, max_epochs=3).fit(Breaks(bad, float("nan")), steps(5), steps(1))
    saved = {path.name: torch.load(path, weights_only=True) for path in folder.glob("*")}
    assert {name: one["global_step"] for name, one in saved.items()} == kept


def test_a_check_less_than_every_step_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`check_every_n_steps` must be at least 1, got 0\."):
        NanGuard(check_every_n_steps=0)


@pytest.mark.parametrize("bad", [2, 5])
def test_nothing_is_validated_after_the_divergence(trainer: Build, steps: Steps, bad: int) -> None:
    built = trainer(NanGuard())
    with pytest.raises(DivergedError, match=f"step {bad} "):
        built.fit(Breaks(bad, float("nan")), steps(5), steps(1))
    assert "val/loss" not in built.callback_metrics


# --- what the training loss does not show ---


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_validation_loss_that_is_not_finite_ends_the_run(
    trainer: Build, scripted: Any, steps: Steps, tmp_path: Path, value: float
) -> None:
    message = (
        "Training diverged: the validation loss of epoch 2 is not finite; all parameters are finite. Lower the "
        "learning rate (--model.optimizer.lr, now 0.125), or bound the gradient with --gradient_clipping.max_norm 1."
    )
    folder = tmp_path / "checkpoints"
    built = trainer(NanGuard(), *Checkpoint().callbacks(folder), max_epochs=3)
    with pytest.raises(DivergedError, match=f"^{re.escape(message)}$"):
        built.fit(scripted([1.0, value, 1.0], lr=0.125), steps(4), steps(1))
    saved = {path.name: torch.load(path, weights_only=True)["global_step"] for path in folder.iterdir()}
    assert saved == {"best.ckpt": 4, "last.ckpt": 4}


def test_the_check_before_the_training_may_give_nan(trainer: Build, scripted: Any, steps: Steps) -> None:
    module = scripted([float("nan"), 1.0])
    built = trainer(NanGuard(), max_epochs=1, num_sanity_val_steps=1)
    with pytest.raises(DivergedError, match="the validation loss of epoch 1 is not finite"):
        built.fit(module, steps(2), steps(1))
    assert built.global_step == 2


class NanGradient(LightningModule):
    """A loss that is always finite; its gradient is NaN in one step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.step = step

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.global_step + 1 != self.step:
            return self.weight.sum() * 1e-3
        return (self.weight * 0).abs().sqrt().sum()  # 0, with the gradient 0 / 0

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", 1.0, batch_size=1)  # sees nothing of the weights

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.125)


@pytest.mark.parametrize(("bad", "kept"), [(5, {}), (10, {"best.ckpt": 5, "last.ckpt": 5})])
def test_weights_that_a_nan_gradient_broke_in_an_epochs_last_step_are_not_saved(
    trainer: Build, steps: Steps, tmp_path: Path, bad: int, kept: dict[str, int]
) -> None:
    folder = tmp_path / "checkpoints"
    message = f"the state after step {bad} is not finite; the first tensor that is not finite is the parameter 'weight'"
    with pytest.raises(DivergedError, match=message):
        trainer(NanGuard(), *Checkpoint().callbacks(folder), max_epochs=3).fit(NanGradient(bad), steps(5), steps(1))
    saved = {path.name: torch.load(path, weights_only=True) for path in folder.glob("*")}
    assert {name: one["global_step"] for name, one in saved.items()} == kept
    assert [bool(one["state_dict"]["weight"].isfinite().all()) for one in saved.values()] == [True] * len(kept)


@pytest.mark.parametrize("module", [Breaks(7, float("nan")), NanGradient(7)])
def test_saving_within_the_epoch_saves_no_nan(
    trainer: Build, steps: Steps, tmp_path: Path, module: LightningModule
) -> None:
    folder = tmp_path / "checkpoints"
    with pytest.raises(DivergedError, match="Training diverged"):
        trainer(NanGuard(), SafePoint(folder / "last.ckpt", every_n_steps=2)).fit(module, steps(20), steps(1))
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 6
    assert all(value.isfinite().all() for value in saved["state_dict"].values())


# --- what another process sees ---


def test_a_divergence_of_another_process_ends_this_one(
    trainer: Build, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The others report step 3; the largest is taken of what is negative, so the first step of any process wins.
    monkeypatch.setattr("lightning_lab.callbacks.nan_guard.largest", lambda own: max(own, -3))
    with pytest.raises(DivergedError, match=r"the loss of step 3 \(epoch 1\) is not finite; all gradients and"):
        trainer(NanGuard(check_every_n_steps=4)).fit(Breaks(None, 0.0), steps(9))


@pytest.mark.parametrize(("others", "first"), [(-3, 3), (-7, 5)])
def test_the_first_step_of_any_process_is_named(
    trainer: Build, steps: Steps, monkeypatch: pytest.MonkeyPatch, others: int, first: int
) -> None:
    monkeypatch.setattr("lightning_lab.callbacks.nan_guard.largest", lambda own: max(own, others))
    with pytest.raises(DivergedError, match=f"the loss of step {first} "):
        trainer(NanGuard(check_every_n_steps=8)).fit(Breaks(5, float("nan")), steps(9))


class SkipsSome(Breaks):
    """Gives no loss in some steps, as a process may that has nothing to learn from its part."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx % 2 else super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_all_processes_look_at_the_same_steps_whatever_their_losses(
    trainer: Build, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[list[int]] = []
    for module in (Breaks(None, 0.0), SkipsSome(None, 0.0)):
        seen: list[int] = []
        built = trainer(NanGuard(check_every_n_steps=2))

        def look(own: int, seen: list[int] = seen, built: Trainer = built) -> int:
            seen.append(built.fit_loop.epoch_loop.batch_progress.current.ready)
            return own

        monkeypatch.setattr("lightning_lab.callbacks.nan_guard.largest", look)
        built.fit(module, steps(4))
        looks.append(seen)
    assert looks[0] == looks[1] != []


# --- what it says ---


class TooLong(Breaks):
    """A step that is finite, and so long that it leaves one weight infinite."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.second.sum() * 1e38

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=16.0)


def test_a_weight_is_named_where_all_gradients_are_finite(trainer: Build, steps: Steps) -> None:
    with pytest.raises(DivergedError, match="the first tensor that is not finite is the parameter 'second'"):
        trainer(NanGuard(check_every_n_steps=2)).fit(TooLong(None, 0.0), steps(5))


@pytest.mark.parametrize(
    ("slots", "remedy"),
    [
        ([], "or bound the gradient with --gradient_clipping.max_norm 1."),
        ([GradientClipping()], "or bound the gradient with --gradient_clipping.max_norm 1."),
        ([GradientClipping(max_norm=2.5)], "or lower --gradient_clipping.max_norm (now 2.5)."),
        ([GradientClipping(max_value=0.5)], "or lower --gradient_clipping.max_value (now 0.5)."),
        (
            [Penalty(weight=0.25, parameters="all")],
            "lower --penalty.weight (now 0.25), or bound the gradient with --gradient_clipping.max_norm 1.",
        ),
    ],
    ids=["nothing", "measured", "norm", "value", "penalty"],
)
def test_the_remedy_fits_the_slots_that_are_on(
    trainer: Build, steps: Steps, slots: list[Callback], remedy: str
) -> None:
    message = f"Lower the learning rate (--model.optimizer.lr, now 0.125), {remedy}"
    with pytest.raises(DivergedError, match=f"{re.escape(message)}$"):
        trainer(*slots, NanGuard()).fit(Breaks(2, float("nan")), steps(3))
