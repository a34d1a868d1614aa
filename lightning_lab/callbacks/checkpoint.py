"""Two checkpoints that mean what their names say: ``best.ckpt`` and ``last.ckpt``.

One of Lightning's callbacks with ``monitor`` and ``save_last`` writes the best epoch under the name last, so there
are two callbacks here, made from one slot.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, final

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_lab.runs.metrics import better


@final
class Checkpoint:
    """What is saved, and when.

    Args:
        monitor: The metric that decides which epoch is the best.
        mode: Whether smaller (``min``) or larger (``max``) is better; ``auto`` knows it from the name.
        last: Save the last epoch too, and at an interruption where it stood; a run continues from there.
        every_n_steps: Save the last state also every so many optimiser steps, for long epochs; null does not. The
            training waits until it is on disk.
        every_n_minutes: Save it also every so many minutes; null does not.

    Raises:
        ValueError: If an interval is not above 0 or comes without `last`.
    """

    def __init__(
        self,
        *,
        monitor: str = "val/loss",
        mode: Literal["auto", "min", "max"] = "auto",
        last: bool = True,
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
    ) -> None:
        for name, every in (("every_n_steps", every_n_steps), ("every_n_minutes", every_n_minutes)):
            if every is not None and not every > 0:
                raise ValueError(f"`{name}` must be above 0, got {every}. Null saves at the end of each epoch only.")
            if every is not None and not last:
                raise ValueError(f"`{name}` {every} saves the last state, but `last` is false.")
        self.monitor = monitor
        self.mode: Literal["min", "max"] = better(monitor) if mode == "auto" else mode
        self.last = last
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes

    def callbacks(self, folder: Path) -> list[ModelCheckpoint]:
        """Build the callbacks that save into `folder` at the end of an epoch."""
        common: dict[str, Any] = {
            "dirpath": folder,
            "enable_version_counter": False,
            "auto_insert_metric_name": False,
            "save_on_train_epoch_end": True,
        }
        saves: list[ModelCheckpoint] = [_Best(monitor=self.monitor, mode=self.mode, filename="best", **common)]
        if self.last:
            saves.append(_Steady(filename="last", every_n_epochs=1, **common))
        return saves


class _Steady(ModelCheckpoint):
    """A checkpoint callback that still knows its best epoch after its folder was moved."""

    on_train_batch_end = Callback.on_train_batch_end  # nothing to do at a step, and steps are many

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        folder = str(self.dirpath)

        def here(path: str) -> str:
            return str(Path(folder) / Path(path).name) if path else path

        moved = {key: here(value) if key.endswith("_path") else value for key, value in state_dict.items()}
        moved["best_k_models"] = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**moved, "dirpath": folder})


class _Best(_Steady):
    """Leaves an epoch alone that was not validated, of which Lightning would warn."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.monitor in trainer.callback_metrics or trainer.fit_loop.epoch_loop.val_loop._has_run:
            super().on_train_epoch_end(trainer, pl_module)
