"""Calibration: what the steps, the validation and the end of an epoch take, measured within seconds."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_lab.runs.environment import hardware
from lightning_lab.runs.errors import InputError
from lightning_lab.runs.files import write_json

#: The first steps take longer: memory is asked for, kernels are chosen.
_WARM_UP_STEPS = 2
_LEAST_STEPS = 2


@final
class Calibration(Callback):
    """Let a run train for a moment, validate for a moment, save, and end; write down what that took.

    Args:
        file: Where to write it, as JSON.
        steps_s: How long steps are measured in seconds, above 0; a short epoch is repeated until then.
        validation_s: How long a validation may take in seconds, about: a longer one is cut short.

    Raises:
        ValueError: If a time is not above 0.
    """

    def __init__(self, *, file: str, steps_s: float = 2.0, validation_s: float = 1.0) -> None:
        for name, value in (("steps_s", steps_s), ("validation_s", validation_s)):
            if not value > 0:
                raise ValueError(f"`{name}` must be above 0 seconds, got {value}.")
        self.file = Path(file).absolute()
        self.steps_s = steps_s
        self.validation_s = validation_s
        self._started = 0.0  # by the clock on the wall, which the process that waits for it has too
        self._per_epoch: dict[str, float] = {}
        self._steps = self._counted = self._validated = self._ends = 0
        self._warm_up_time = self._steps_time = self._validation_time = self._end_time = 0.0
        self._last = 0.0  # when the step before ended, or what came between ended
        self._validation_began = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what an epoch consists of."""
        if trainer.world_size > 1:
            raise InputError(f"One process can be calibrated, and this run has {trainer.world_size}.")
        self._started = time.time()
        steps, batches = float(trainer.num_training_batches), sum(trainer.num_val_batches)
        every, check = trainer.check_val_every_n_epoch, float(trainer.val_check_batch or math.inf)
        validations = steps / check if every is None else (steps // check) / every
        self._per_epoch = {"steps": steps, "validations": validations, "validation_batches": float(batches)}
        trainer.check_val_every_n_epoch = 1  # so that one is measured in any case
        trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The epoch before has ended here, its files are being written."""
        self._end_epoch()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a step, and end the run when enough were."""
        self._steps += 1
        if self._steps == _WARM_UP_STEPS:
            _wait_for(pl_module)
        now = time.perf_counter()
        self._warm_up_time += (now - self._last) * (self._steps <= _WARM_UP_STEPS)
        if self._steps > _WARM_UP_STEPS:
            self._counted += 1
            self._steps_time += now - self._last
        self._last = now
        if self._steps_time >= self.steps_s and self._counted >= _LEAST_STEPS:
            _wait_for(pl_module)
            self._last = time.perf_counter()
            self._steps_time += self._last - now
            self._shorten_validation(trainer)
            trainer.should_stop = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._validation_began = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop it."""
        self._last = time.perf_counter()
        self._validation_time += self._last - self._validation_began
        self._validated += int(sum(trainer.num_val_batches))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write down what was measured."""
        self._end_epoch()
        per_batch = self._validation_time / self._validated if self._validated else 0.0
        found = {
            "started": self._started,
            "device": _device(pl_module),
            # A run of one or two steps is over before it is warm.
            "step_s": self._steps_time / self._counted if self._counted else self._warm_up_time / self._steps,
            "steps_per_epoch": self._per_epoch["steps"],
            "steps_per_update": trainer.accumulate_grad_batches,
            "validation_s": per_batch * self._per_epoch["validation_batches"],
            "validations_per_epoch": self._per_epoch["validations"],
            "epoch_end_s": self._end_time / self._ends,
        }
        write_json(self.file, found)

    def _shorten_validation(self, trainer: Trainer) -> None:
        # Forward alone takes less than a step does, so that these batches take less than was asked for.
        most = max(1, int(self.validation_s / (self._steps_time / self._counted)))
        batches = trainer.num_val_batches  # the very list that the validation goes by
        batches[:] = [min(count, most) for count in batches]

    def _end_epoch(self) -> None:
        now = time.perf_counter()
        if self._last:
            self._ends += 1
            self._end_time += now - self._last
        self._last = now


def _wait_for(module: LightningModule) -> None:
    if module.device.type == "cuda":  # which works on while the clock is read
        torch.cuda.synchronize(module.device)


def _device(module: LightningModule) -> str:
    return torch.cuda.get_device_name(module.device) if module.device.type == "cuda" else str(hardware()["processor"])
