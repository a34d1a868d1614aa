"""Early stopping with Lightning's patience and the labs' relative criterion."""

from __future__ import annotations

from typing import Literal, final

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.utilities import rank_zero_warn

from lightning_lab.runs.metrics import better


@final
class EarlyStopping(lightning_callbacks.EarlyStopping):
    """Stop when the validation metric no longer improves.

    Args:
        monitor: The metric to watch, for example ``val/loss`` or ``val/acc``.
        mode: Whether smaller (``min``) or larger (``max``) is better; ``auto`` knows it from the name.
        patience: Validations without improvement before the stop, at least 1. There is one an epoch, unless
            `trainer.val_check_interval` or `trainer.check_val_every_n_epoch` says otherwise.
        min_delta: The least change that counts as an improvement, at least 0; a smaller one leaves the best value.
        relative_rise: Stop also as soon as ``(value - best) / best`` exceeds this, the criterion of lab A; above 0.
            For metrics that are positive and better when small. Null leaves it out.

    Raises:
        ValueError: If a number is out of its range, or `relative_rise` goes with a metric that should grow.

    Reference:
        L. Prechelt, Early Stopping - But When?, 1998; `relative_rise` is its generalisation loss GL / 100.
    """

    def __init__(
        self,
        *,
        monitor: str = "val/loss",
        mode: Literal["auto", "min", "max"] = "auto",
        patience: int = 10,
        min_delta: float = 0.0,
        relative_rise: float | None = None,
    ) -> None:
        direction = better(monitor) if mode == "auto" else mode
        if patience < 1:
            raise ValueError(f"`patience` must be at least 1 validation, got {patience}.")
        if not min_delta >= 0:  # NaN is refused too, here and below
            raise ValueError(f"`min_delta` must be at least 0, got {min_delta}.")
        if relative_rise is not None and not relative_rise > 0:
            raise ValueError(f"`relative_rise` must be above 0, got {relative_rise}.")
        if relative_rise is not None and direction == "max":
            raise ValueError(f"`relative_rise` needs a metric that is better when small, got `monitor` {monitor}.")
        # A value that is not finite is the business of the slot nan_guard.
        super().__init__(monitor, mode=direction, patience=patience, min_delta=min_delta, check_finite=False)
        self.relative_rise = relative_rise

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so if the patience is longer than the training; end a run that had stopped when it was interrupted."""
        trainer.should_stop = trainer.should_stop or self.has_stopped
        validations = _count_validations(trainer)
        if self.relative_rise is None and validations is not None and validations <= self.patience:
            rank_zero_warn(
                f"`early_stopping` has no effect: its patience of {self.patience} validations is not below the "
                f"{validations} of this run."
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check after training epochs."""
        self._set_rise_threshold()
        super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check after validations that come more or less often than epochs."""
        self._set_rise_threshold()
        super().on_validation_end(trainer, pl_module)

    def _set_rise_threshold(self) -> None:
        # value > best (1 + rise) is Lightning's divergence threshold, moved along with the best value.
        if self.relative_rise is not None and self.best_score.isfinite():
            self.divergence_threshold = float(self.best_score) * (1 + self.relative_rise)

    @property
    def has_stopped(self) -> bool:
        """Whether this callback ended the training."""
        return self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED


def _count_validations(trainer: Trainer) -> int | None:
    """Count those of the whole run; None if its length is not known in epochs, or they are counted in steps alone."""
    epochs, every = trainer.max_epochs, trainer.check_val_every_n_epoch
    if epochs is None or epochs < 1 or every is None or not trainer.val_check_batch:
        return None
    in_an_epoch = max(1, int(trainer.num_training_batches // trainer.val_check_batch))
    return epochs // every * in_an_epoch
