"""The learning-rate schedule: any scheduler of torch, by epoch or by step, with a warm-up."""

from __future__ import annotations

import warnings
from typing import Any, Literal, final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LRSchedulerCallable
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor
from torch.nn import Parameter
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LinearLR, LRScheduler, ReduceLROnPlateau, SequentialLR, StepLR

from lightning_lab.runs.errors import InputError, check_choice, unknown
from lightning_lab.runs.metrics import better, is_known


class LinearDecay(LRScheduler):
    """Fall in a straight line from the optimiser's rate to the end of the training. With a warm-up: a triangle.

    Args:
        optimizer: The optimiser.
        total: Epochs or steps (as `interval` says) until the end is reached; null takes the run's, less the warm-up.
        final_frac: Share of the rate that is left at the end, in [0, 1].

    Raises:
        ValueError: If `total` is below 1 or `final_frac` out of range.
    """

    def __init__(self, optimizer: Optimizer, total: int | None = None, final_frac: float = 0.0) -> None:
        if total is not None and total < 1:
            raise ValueError(f"`total` must be at least 1, got {total}. Null takes the run's length.")
        if not 0 <= final_frac <= 1:
            raise ValueError(f"`final_frac` must be in [0, 1], got {final_frac}.")
        self.total = total
        self.final_frac = final_frac
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Compute the rate of each group."""
        done = min(1.0, self.last_epoch / self.total) if self.total else 0.0
        factor = 1 - (1 - self.final_frac) * done
        return [base * factor for base in self.base_lrs]


@final
class LRSchedule(Callback):
    """Change the learning rate while training.

    Args:
        scheduler: Any scheduler of torch with its arguments. Default: halve the rate every 5 epochs.
        interval: Whether the scheduler counts epochs or optimiser steps.
        warmup: Rise linearly from near zero to the optimiser's rate over so many epochs or steps (as `interval`
            says), then start the scheduler. 0 is off.
        monitor: The validation metric that ``ReduceLROnPlateau`` looks at after each validation; without effect on the
            others.

    Raises:
        ValueError: If `warmup` is negative, a warm-up or the interval ``step`` goes with ``ReduceLROnPlateau``, or that
            one's `mode` is not the way in which `monitor` improves.
        InputError: If the scheduler cannot be computed with its arguments.
    """

    def __init__(
        self,
        *,
        scheduler: LRSchedulerCallable = lambda optimizer: StepLR(optimizer, step_size=5, gamma=0.5),
        interval: Literal["epoch", "step"] = "epoch",
        warmup: int = 0,
        monitor: str = "val/loss",
    ) -> None:
        check_choice("interval", interval, ("epoch", "step"))
        if warmup < 0:
            raise ValueError(f"`warmup` must be 0 (off) or more, got {warmup}.")
        self.scheduler = scheduler
        self.interval = interval
        self.warmup = warmup
        self.monitor = monitor
        self._rates: set[float] = set()  # the first two that were used
        self._on_plateau: ReduceLROnPlateau | None = None
        self._on_plateau_state: dict[str, Any] | None = None  # of a checkpoint
        self._catch_up = False  # a fork has another schedule than the run that it goes on from

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Build the scheduler; a checkpoint's state is restored into it afterwards, as into any other."""
        if trainer.lr_scheduler_configs:
            raise ValueError(
                f"{type(pl_module).__name__} brings a schedule of its own and the slot `lr_schedule` is on too. "
                "Switch one off: --lr_schedule null."
            )
        self._build(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore what ``ReduceLROnPlateau`` had seen; the optimiser has its rate back by now."""
        if self._catch_up:
            self._start_where_it_would_be(trainer)
        if self._on_plateau is not None and self._on_plateau_state is not None:
            self._on_plateau.load_state_dict(self._on_plateau_state)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let ``ReduceLROnPlateau`` look at the metric."""
        if self._on_plateau is None or trainer.sanity_checking:
            return
        monitor = getattr(self._on_plateau, "monitor", self.monitor)  # Lightning's own plateau scheduler brings one
        if monitor not in trainer.callback_metrics:
            raise InputError(f"`lr_schedule.monitor`: {unknown('metric', monitor, trainer.callback_metrics)}")
        self._on_plateau.step(float(trainer.callback_metrics[monitor]))

    def _start_where_it_would_be(self, trainer: Trainer) -> None:
        self._catch_up = False
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"])
        self._build(trainer)
        done = trainer.current_epoch if self.interval == "epoch" else trainer.global_step
        with warnings.catch_warnings():  # torch misses the optimiser's steps, which another process has done
            warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step\(\)` before")
            for config in trainer.lr_scheduler_configs:
                for _ in range(done):
                    config.scheduler.step()  # type: ignore[call-arg]  # never one on a plateau

    def _build(self, trainer: Trainer) -> None:
        optimizer = trainer.optimizers[0]
        scheduler: LRScheduler = self._made(optimizer)
        if isinstance(scheduler, LinearDecay) and scheduler.total is None:
            scheduler.total = self._length(trainer) - self.warmup
            if scheduler.total < 1:
                raise ValueError(f"`warmup` {self.warmup} leaves nothing of the run for `LinearDecay`. Lower it.")
        if isinstance(scheduler, ReduceLROnPlateau):
            if self.interval == "step":
                raise ValueError("`interval` step does not go with ReduceLROnPlateau: its metric comes once an epoch.")
            if self.warmup:
                raise ValueError(f"`warmup` {self.warmup} does not go with ReduceLROnPlateau. Set `warmup` to 0.")
            monitor = getattr(scheduler, "monitor", self.monitor)
            if is_known(monitor) and scheduler.mode != better(monitor):
                raise ValueError(
                    f"`lr_schedule.scheduler.mode` {scheduler.mode} would lower the rate because {monitor} improves. "
                    f"Add --lr_schedule.scheduler.mode {better(monitor)}."
                )
            self._on_plateau = scheduler  # Lightning lets it act behind the checkpoint that should hold what it did
            return
        if self.warmup:
            self._compare_warmup(trainer)
            for group in optimizer.param_groups:  # the first scheduler above has touched them
                group["lr"] = group["initial_lr"]
            rise = LinearLR(optimizer, start_factor=1 / (self.warmup + 1), total_iters=self.warmup)
            scheduler = SequentialLR(optimizer, [rise, scheduler], milestones=[self.warmup])
        trainer.strategy.lr_scheduler_configs = [LRSchedulerConfig(scheduler, interval=self.interval)]

    def _made(self, optimizer: Optimizer) -> LRScheduler:
        # What divides by zero does so in its second step, an epoch later: one of another optimiser goes ahead.
        trial = SGD([{"params": [Parameter(torch.zeros(1))]} for _ in optimizer.param_groups], lr=1.0, momentum=0.9)
        try:
            with warnings.catch_warnings(action="ignore"):
                self.scheduler(trial).step()
        except ArithmeticError as error:
            raise InputError(
                f"`lr_schedule.scheduler` cannot be computed with its arguments ({error}). Is one of them 0?"
            ) from error
        except Exception:  # it may need the run's own optimiser, or a metric
            pass
        return self.scheduler(optimizer)

    def _compare_warmup(self, trainer: Trainer) -> None:
        length = self._known_length(trainer)
        if length is not None and self.warmup >= length:
            unit = "epochs" if self.interval == "epoch" else "steps"
            rank_zero_warn(
                f"`lr_schedule.warmup` {self.warmup} {unit} is not below the run's {length}: the learning rate of the "
                "optimiser is never reached. `interval` says what both are counted in."
            )

    def _length(self, trainer: Trainer) -> int:
        length = self._known_length(trainer)
        if length is None:
            raise ValueError("`LinearDecay` needs the end of the run: set --trainer.max_epochs, or its `total`.")
        return length

    def _known_length(self, trainer: Trainer) -> int | None:
        length = trainer.max_epochs if self.interval == "epoch" else trainer.estimated_stepping_batches
        return None if length is None or not 0 < length < float("inf") else int(length)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Remember the rate."""
        if len(self._rates) < 2:
            self._rates.add(optimizer.param_groups[0]["lr"])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so if the rate never changed."""
        if len(self._rates) == 1:
            rank_zero_warn(
                f"`lr_schedule` had no effect: the learning rate was {self._rates.pop():g} throughout. "
                "--lr_schedule null switches it off."
            )

    def state_dict(self) -> dict[str, Any]:
        """Keep the rates seen, and what ``ReduceLROnPlateau`` has seen, for a run that continues."""
        on_plateau = None if self._on_plateau is None else self._on_plateau.state_dict()
        return {"rates": sorted(self._rates), "on_plateau": on_plateau}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take both up again."""
        self._rates = set(state_dict["rates"])
        self._on_plateau_state = state_dict["on_plateau"]
        self._catch_up = state_dict.get("catch_up", False)
