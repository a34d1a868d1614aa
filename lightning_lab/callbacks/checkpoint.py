"""Two checkpoints that mean what their names say: ``best.ckpt`` and ``last.ckpt``.

One of Lightning's callbacks with ``monitor`` and ``save_last`` writes the best epoch under the name last, so there
are two callbacks here, made from one slot.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, final

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_lab.runs.metrics import better


@final
class Checkpoint:
    """What is saved, and when.

    Args:
        monitor: The metric that decides which epoch is the best.
        mode: Whether smaller (``min``) or larger (``max``) is better; ``auto`` knows it from the name.
        last: Save the last epoch too, and at an interruption where it stood; a run continues from there.
        every_n_steps: Save the last state also every so many optimiser steps, for long epochs; null does not.

    Raises:
        ValueError: If `every_n_steps` is below 1 or comes without `last`.
    """

    def __init__(
        self,
        *,
        monitor: str = "val/loss",
        mode: Literal["auto", "min", "max"] = "auto",
        last: bool = True,
        every_n_steps: int | None = None,
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"`every_n_steps` must be at least 1, got {every_n_steps}.")
        if every_n_steps is not None and not last:
            raise ValueError(f"`every_n_steps` {every_n_steps} saves the last state, but `last` is false.")
        self.monitor = monitor
        self.mode: Literal["min", "max"] = better(monitor) if mode == "auto" else mode
        self.last = last
        self.every_n_steps = every_n_steps

    def callbacks(self, folder: Path) -> list[ModelCheckpoint]:
        """Build the callbacks that save into `folder`."""
        common: dict[str, Any] = {
            "dirpath": folder,
            "enable_version_counter": False,
            "auto_insert_metric_name": False,
        }
        saves: list[ModelCheckpoint] = [
            _Steady(monitor=self.monitor, mode=self.mode, filename="best", save_on_train_epoch_end=True, **common)
        ]
        if self.last:
            saves.append(_Last(filename="last", every_n_epochs=1, save_on_train_epoch_end=True, **common))
        if self.every_n_steps is not None:
            saves.append(_LastStep(filename="last", every_n_train_steps=self.every_n_steps, **common))
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


class _Last(_Steady):
    """Saves the state at an interruption too, but never after a failure: that state may be what failed."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt | SIGTERMException) and trainer.global_step > 0:
            trainer.save_checkpoint(Path(str(self.dirpath)) / "last.ckpt", weights_only=False)


class _LastStep(_Last):
    """Saves within an epoch."""

    on_train_batch_end = ModelCheckpoint.on_train_batch_end
