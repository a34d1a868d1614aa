"""Where a training is, told in a way that outlives its process."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer

#: Of one beat; room for the longest.
_BYTES = 64


class Beat(NamedTuple):
    """What a heartbeat says at one moment.

    Args:
        time_s: Seconds since the process began to train.
        first_step: The step that the process began or went on at.
        step: The step that was done last.
        epoch: The epoch that it belongs to, from 1.
        phase: ``training``, ``validation``, ``epoch end``, ``saving`` (until the next step) or ``end``.
    """

    time_s: float
    first_step: int
    step: int
    epoch: int
    phase: str


class Heartbeat(Callback):
    """Write down where the training is, whenever that changes, at a place that outlives the process.

    Args:
        path: The file, which :func:`read_beats` reads.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = -1
        self._first_step = 0
        self._started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the step that the training begins or goes on at."""
        if trainer.is_global_zero:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            self._first_step = trainer.global_step
            self._started = time.monotonic()
        self._write(trainer, "training")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Write that what came between two steps is over."""
        self._write(trainer, "training")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the step."""
        self._write(trainer, "training")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write that a validation began."""
        self._write(trainer, "validation")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write that an epoch ends."""
        self._write(trainer, "epoch end")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write that a checkpoint is being written."""
        self._write(trainer, "saving")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write that the training is over."""
        self._write(trainer, "end")

    def _write(self, trainer: Trainer, phase: str) -> None:
        if self._file >= 0:  # in the first process, while it trains
            seconds = time.monotonic() - self._started
            beat = f"{seconds:.6f} {self._first_step} {trainer.global_step} {trainer.current_epoch + 1} {phase}"
            os.write(self._file, beat.ljust(_BYTES).encode())  # at once, so no reader sees half of it


def read_beats(path: Path) -> list[Beat]:
    """Read a heartbeat from its beginning; empty if there is none yet."""
    content = path.read_text() if path.exists() else ""
    beats = []
    for start in range(0, len(content) - _BYTES + 1, _BYTES):
        seconds, first_step, step, epoch, phase = content[start : start + _BYTES].split(maxsplit=4)
        beats.append(Beat(float(seconds), int(first_step), int(step), int(epoch), phase.strip()))
    return beats


def count_beats(path: Path) -> int:
    """Count the beats so far, without reading them."""
    return path.stat().st_size // _BYTES if path.exists() else 0
