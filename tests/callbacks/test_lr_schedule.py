"""The rates used in each step, against closed forms and against torch's schedulers stepped by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import ReduceLROnPlateau
from torch.optim import lr_scheduler

from lightning_lab.callbacks.checkpoint import Checkpoint
from lightning_lab.callbacks.epoch_so_far import EpochSoFar
from lightning_lab.callbacks.lr_schedule import LinearDecay, LRSchedule
from lightning_lab.data.loader import TensorLoader
from lightning_lab.runs.errors import InputError, Stopped

Build = Callable[..., Trainer]
Steps = Callable[[int], TensorLoader]
Rates = list[float]
Scheduler = Callable[[torch.optim.Optimizer], Any]


def halve_every_50(t: int) -> float:
    return 0.1 * 0.5 ** (t // 50)


def halve_at_milestones(t: int) -> float:
    return 0.1 * 0.5 ** sum(t >= milestone for milestone in (50, 125, 160))


def decay(t: int) -> float:
    return 0.1 * 0.95**t


def cosine(t: int) -> float:
    return 0.05 * (1 + math.cos(math.pi * t / 20))


def restart(t: int) -> float:
    return 0.05 * (1 + math.cos(math.pi * (t % 4) / 4))


def by_lambda(t: int) -> float:
    return 0.1 / (1 + t)


LAB_D: list[tuple[Scheduler, Callable[[int], float]]] = [
    (lambda optimizer: lr_scheduler.StepLR(optimizer, 50, 0.5), halve_every_50),
    (lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [50, 125, 160], 0.5), halve_at_milestones),
    (lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.95), decay),
]
OTHERS: list[tuple[Scheduler, Callable[[int], float]]] = [
    (lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 20), cosine),
    (lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 4), restart),
    (lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + t)), by_lambda),
]


@pytest.mark.parametrize(("scheduler", "rate"), LAB_D)
def test_schedules_of_lab_d_over_200_epochs(
    trainer: Build, scripted: Any, steps: Steps, watch: Any, scheduler: Scheduler, rate: Callable[[int], float]
) -> None:
    trainer(LRSchedule(scheduler=scheduler), watch, max_epochs=200).fit(scripted(lr=0.1), steps(1))
    assert watch.rates == pytest.approx([rate(epoch) for epoch in range(200)], rel=1e-9)


@pytest.mark.parametrize(("scheduler", "rate"), LAB_D + OTHERS)
def test_by_step_the_rate_changes_within_the_epoch(
    trainer: Build, scripted: Any, steps: Steps, watch: Any, scheduler: Scheduler, rate: Callable[[int], float]
) -> None:
    callback = LRSchedule(scheduler=scheduler, interval="step")
    trainer(callback, watch, max_epochs=2).fit(scripted(lr=0.1), steps(90))
    assert watch.rates == pytest.approx([rate(step) for step in range(180)], rel=1e-9, abs=1e-12)


def test_by_epoch_the_rate_is_constant_within_the_epoch(
    trainer: Build, scripted: Any, steps: Steps, watch: Any
) -> None:
    trainer(LRSchedule(scheduler=LAB_D[2][0]), watch, max_epochs=4).fit(scripted(lr=0.1), steps(3))
    assert watch.rates == pytest.approx([decay(step // 3) for step in range(12)], rel=1e-9)


def test_default_halves_every_5_epochs(trainer: Build, scripted: Any, steps: Steps, watch: Any) -> None:
    trainer(LRSchedule(), watch, max_epochs=12).fit(scripted(lr=0.1), steps(1))
    assert watch.rates == pytest.approx([0.1] * 5 + [0.05] * 5 + [0.025] * 2, rel=1e-9)


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("warmup", [1, 4])
@pytest.mark.parametrize(("scheduler", "rate"), LAB_D[2:] + OTHERS)
def test_warm_up_rises_linearly_and_then_the_schedule_starts_at_its_beginning(
    trainer: Build,
    scripted: Any,
    steps: Steps,
    watch: Any,
    scheduler: Scheduler,
    rate: Callable[[int], float],
    warmup: int,
    interval: Any,
) -> None:
    callback = LRSchedule(scheduler=scheduler, warmup=warmup, interval=interval)
    sizes = {"epoch": (12, 1), "step": (3, 4)}  # 12 steps either way
    epochs, batches = sizes[interval]
    trainer(callback, watch, max_epochs=epochs).fit(scripted(lr=0.1), steps(batches))
    rise = [0.1 * (t + 1) / (warmup + 1) for t in range(warmup)]
    assert watch.rates == pytest.approx(rise + [rate(t) for t in range(12 - warmup)], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("monitor", ["val/loss", "val/other"])
def test_reduce_on_plateau_follows_the_monitored_metric(
    trainer: Build, scripted: Any, steps: Steps, watch: Any, monitor: str
) -> None:
    values = [1.0, 0.5, 0.6, 0.7, 0.4, 0.4, 0.4, 0.4]
    by_hand = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    reference = lr_scheduler.ReduceLROnPlateau(by_hand, factor=0.5, patience=1)
    expected = []
    for value in values:
        expected.append(by_hand.param_groups[0]["lr"])
        reference.step(value)
    callback = LRSchedule(
        scheduler=lambda optimizer: ReduceLROnPlateau(optimizer, monitor, factor=0.5, patience=1), monitor=monitor
    )
    module = scripted(values, metric=monitor, lr=0.1)
    trainer(callback, watch, max_epochs=len(values)).fit(module, steps(1), steps(1))
    assert len(set(expected)) == 3
    assert watch.rates == pytest.approx(expected, rel=1e-9)


def plateau(optimizer: torch.optim.Optimizer) -> ReduceLROnPlateau:
    return ReduceLROnPlateau(optimizer, "val/loss", factor=0.5, patience=0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"scheduler": LAB_D[2][0]},
        {"scheduler": LAB_D[2][0], "interval": "step"},
        {"scheduler": LAB_D[2][0], "interval": "step", "warmup": 9},
        {"scheduler": LAB_D[2][0], "warmup": 3},
        {"scheduler": plateau},
    ],
)
@pytest.mark.parametrize("stop", [4, 6, 7])  # steps; an epoch has 3
def test_a_run_that_continues_uses_the_rates_of_the_uninterrupted_one(
    trainer: Build,
    scripted: Any,
    steps: Steps,
    new_watch: Any,
    stop_at: Any,
    tmp_path: Path,
    arguments: dict[str, Any],
    stop: int,
) -> None:
    values = [3.0, 4.0, 5.0, 6.0, 7.0]
    whole, start, rest = new_watch(), new_watch(), new_watch()

    def fit(*callbacks: Any, **settings: Any) -> None:
        saves = Checkpoint().callbacks(tmp_path / "checkpoints")
        built = trainer(LRSchedule(**arguments), EpochSoFar(), *callbacks, *saves, max_epochs=5)
        built.fit(scripted(values, lr=0.1), steps(3), steps(1), **settings)

    fit(whole)
    with pytest.raises(Stopped):
        fit(start, stop_at(tmp_path / "checkpoints" / "last.ckpt", stop))
    fit(rest, ckpt_path=tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert len(set(whole.rates)) >= 4
    assert start.rates + rest.rates == whole.rates


@pytest.mark.parametrize("monitor", ["val/loss", "val/other"])
def test_the_plateau_scheduler_of_torch_follows_the_slots_monitor(
    trainer: Build, scripted: Any, steps: Steps, watch: Any, monitor: str
) -> None:
    scheduler: Scheduler = lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=0)  # noqa: E731
    callback = LRSchedule(scheduler=scheduler, monitor=monitor)
    trainer(callback, watch, max_epochs=4).fit(scripted([1.0, 2.0, 0.5, 3.0], metric=monitor), steps(1), steps(1))
    assert watch.rates == [1.0, 1.0, 0.5, 0.5]


def test_the_plateau_scheduler_of_lightning_brings_its_own_monitor(
    trainer: Build, scripted: Any, steps: Steps, watch: Any
) -> None:
    scheduler: Scheduler = lambda o: ReduceLROnPlateau(o, "val/other", factor=0.5, patience=0)  # noqa: E731
    module = scripted([1.0, 2.0, 0.5, 3.0], metric="val/other")
    trainer(LRSchedule(scheduler=scheduler), watch, max_epochs=4).fit(module, steps(1), steps(1))
    assert watch.rates == [1.0, 1.0, 0.5, 0.5]


def test_a_plateau_scheduler_without_its_metric_is_refused(trainer: Build, scripted: Any, steps: Steps) -> None:
    callback = LRSchedule(scheduler=plateau)
    with pytest.raises(InputError, match=r"^`lr_schedule.monitor`: Unknown metric 'val/loss'\. .*Known: val/other\.$"):
        trainer(callback).fit(scripted([1.0], metric="val/other"), steps(1), steps(1))


# --- what it says ---


def test_a_run_that_continues_after_the_last_change_is_no_warning(
    trainer: Build, scripted: Any, steps: Steps, new_watch: Any, raise_at: Any, tmp_path: Path
) -> None:
    rest = new_watch()

    def fit(*callbacks: Any, **settings: Any) -> None:
        saves = Checkpoint().callbacks(tmp_path / "checkpoints")
        built = trainer(LRSchedule(), *callbacks, *saves, max_epochs=9)
        built.fit(scripted([1.0] * 9, lr=0.1), steps(2), steps(1), **settings)

    with pytest.raises(OSError, match=r"^disk$"):
        fit(raise_at(OSError("disk"), 13))  # in epoch 7; the rate changes after epoch 5
    fit(rest, ckpt_path=tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert rest.rates == [0.05] * 6


def test_a_schedule_that_never_changed_the_rate_is_a_warning(trainer: Build, scripted: Any, steps: Steps) -> None:
    message = "`lr_schedule` had no effect: the learning rate was 0.1 throughout. --lr_schedule null switches it off."
    with pytest.warns(UserWarning, match=message):
        trainer(LRSchedule(), max_epochs=5).fit(scripted(lr=0.1), steps(2))


def test_a_module_with_a_schedule_of_its_own_is_refused(trainer: Build, scripted: Any, steps: Steps) -> None:
    message = "Scripted brings a schedule of its own and the slot `lr_schedule` is on too. Switch one off: --lr_sched"
    with pytest.raises(ValueError, match=message):
        trainer(LRSchedule()).fit(scripted(scheduled=True), steps(1))


def test_warm_up_with_reduce_on_plateau_is_refused(trainer: Build, scripted: Any, steps: Steps) -> None:
    message = "`warmup` 3 does not go with ReduceLROnPlateau. Set `warmup` to 0."
    with pytest.raises(ValueError, match=message):
        trainer(LRSchedule(scheduler=plateau, warmup=3)).fit(scripted([1.0]), steps(1), steps(1))


def test_a_negative_warm_up_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`warmup` must be 0 \(off\) or more, got -1."):
        LRSchedule(warmup=-1)


# --- straight down to the end ---


class Diary(Callback):
    """The rate of every step."""

    def __init__(self) -> None:
        self.rates: Rates = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("final_frac", [0.0, 0.25])
@pytest.mark.parametrize("total", [None, 6])
def test_linear_decay_by_step_is_a_triangle_over_the_run(
    trainer: Build, scripted: Any, steps: Steps, warmup: int, final_frac: float, total: int | None
) -> None:
    diary = Diary()
    slot = LRSchedule(
        scheduler=lambda optimizer: LinearDecay(optimizer, total, final_frac), interval="step", warmup=warmup
    )
    trainer(slot, diary, max_epochs=3).fit(scripted([1.0] * 3, lr=0.5), steps(4), steps(1))
    length = total or 12 - warmup
    expected = []
    for step in range(12):
        fallen = min(1.0, (step - warmup) / length)
        up, down = (step + 1) / (warmup + 1), 1 - (1 - final_frac) * fallen
        expected.append(0.5 * (up if step < warmup else down))
    assert diary.rates == pytest.approx(expected)


def test_linear_decay_by_epoch_takes_the_number_of_epochs(trainer: Build, scripted: Any, steps: Steps) -> None:
    diary = Diary()
    trainer(LRSchedule(scheduler=LinearDecay), diary, max_epochs=4).fit(scripted([1.0] * 4), steps(1), steps(1))
    assert diary.rates == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_a_run_that_continues_falls_along_the_same_line(
    trainer: Build, scripted: Any, steps: Steps, stop_at: Any, tmp_path: Path
) -> None:
    def slot() -> LRSchedule:
        return LRSchedule(scheduler=LinearDecay, interval="step", warmup=2)

    whole, first, second = Diary(), Diary(), Diary()
    trainer(slot(), whole, max_epochs=4).fit(scripted([1.0] * 4), steps(3), steps(1))
    stopped = trainer(slot(), first, stop_at(tmp_path / "here.ckpt", 5), max_epochs=4)
    with pytest.raises(Stopped):
        stopped.fit(scripted([1.0] * 4), steps(3), steps(1))
    trainer(slot(), second, max_epochs=4).fit(
        scripted([1.0] * 4), steps(3), steps(1), ckpt_path=tmp_path / "here.ckpt", weights_only=True
    )
    assert first.rates + second.rates == pytest.approx(whole.rates)


@pytest.mark.parametrize("epochs", [-1, 2])
def test_linear_decay_without_an_end_is_refused(trainer: Build, scripted: Any, steps: Steps, epochs: int) -> None:
    warmup = 2 if epochs == 2 else 0
    message = "leaves nothing of the run" if epochs == 2 else "needs the end of the run"
    slot = LRSchedule(scheduler=LinearDecay, warmup=warmup)
    with pytest.raises(ValueError, match=message):
        trainer(slot, max_epochs=epochs, max_time={"seconds": 5}).fit(scripted([1.0] * 9), steps(1), steps(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"total": 0}, r"`total` must be at least 1, got 0\."),
        ({"final_frac": -0.1}, r"`final_frac` must be in \[0, 1\], got -0.1\."),
        ({"final_frac": 1.1}, r"`final_frac` must be in \[0, 1\], got 1.1\."),
    ],
)
def test_wrong_arguments_of_linear_decay_are_refused(arguments: dict[str, Any], message: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match=f"^{message}"):
        LinearDecay(optimizer, **arguments)


# --- what it refuses ---


def test_a_plateau_that_takes_a_gain_for_a_loss_is_refused(trainer: Build, scripted: Any, steps: Steps) -> None:
    callback = LRSchedule(scheduler=lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0), monitor="val/acc")
    message = "`lr_schedule.scheduler.mode` min would lower the rate because val/acc improves. Add .*mode max"
    with pytest.raises(ValueError, match=message):
        trainer(callback).fit(scripted([0.1], metric="val/acc"), steps(1), steps(1))


@pytest.mark.parametrize(("monitor", "mode"), [("val/acc", "max"), ("val/loss", "min"), ("val/kappa", "max")])
def test_a_plateau_that_knows_its_metric_is_not(
    trainer: Build, scripted: Any, steps: Steps, monitor: str, mode: Any
) -> None:
    callback = LRSchedule(scheduler=lambda o: lr_scheduler.ReduceLROnPlateau(o, mode=mode, patience=0), monitor=monitor)
    values = [0.1, 0.2, 0.1] if mode == "max" else [0.2, 0.1, 0.2]
    trainer(callback, max_epochs=4).fit(scripted([*values, 0.0], metric=monitor), steps(1), steps(1))


@pytest.mark.parametrize(
    "scheduler",
    [
        lambda o: lr_scheduler.StepLR(o, step_size=0),
        lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=0),
    ],
)
def test_arguments_that_divide_by_zero_are_refused_before_the_training(
    trainer: Build, scripted: Any, steps: Steps, scheduler: Scheduler
) -> None:
    with pytest.raises(InputError, match=r"`lr_schedule\.scheduler` cannot be computed with its arguments"):
        trainer(LRSchedule(scheduler=scheduler)).fit(scripted(), steps(1))


def test_a_scheduler_that_needs_the_runs_own_optimiser_gets_it(trainer: Build, scripted: Any, steps: Steps) -> None:
    def picky(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        return lr_scheduler.LambdaLR(optimizer, {1.0: lambda epoch: 0.5**epoch}[optimizer.defaults["momentum"] + 1])

    trainer(LRSchedule(scheduler=picky), max_epochs=2).fit(scripted(), steps(1))


def test_a_warm_up_that_never_ends_is_a_warning(trainer: Build, scripted: Any, steps: Steps) -> None:
    with pytest.warns(UserWarning, match="`lr_schedule.warmup` 3 epochs is not below the run's 3"):
        trainer(LRSchedule(warmup=3), max_epochs=3).fit(scripted(), steps(1))


def test_another_interval_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`interval`: Unknown word 'steps'\. Did you mean 'step'\?"):
        LRSchedule(interval="steps")  # type: ignore[arg-type]
