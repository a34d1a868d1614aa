"""End a run whose numbers are no longer finite, and say where it began."""

from __future__ import annotations

from typing import Any, final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_lab.runs.agreement import largest
from lightning_lab.runs.errors import DivergedError

#: Further on than any step.
_NEVER = 2**62


@final
class NanGuard(Callback):
    """Stop at the first training or validation loss that is NaN or infinite, and never save such weights.

    The losses are kept on the training device and looked at every `check_every_n_steps`, so that no step waits for
    it; the message names the step all the same. Of several processes each has losses of its own: what one of them
    sees ends all, and the message names the first step of any.

    Args:
        check_every_n_steps: How often they are looked at, at least 1. They are at the end of every epoch too.

    Raises:
        ValueError: If `check_every_n_steps` is below 1.
        DivergedError: While training, if a loss was not finite.
    """

    def __init__(self, *, check_every_n_steps: int = 50) -> None:
        if check_every_n_steps < 1:
            raise ValueError(f"`check_every_n_steps` must be at least 1, got {check_every_n_steps}.")
        self.check_every_n_steps = check_every_n_steps
        self._losses: list[tuple[Tensor, int]] = []  # since the last look: each with its step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the losses of an earlier fit."""
        self._losses = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss of the batch just trained on."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            self._losses.append((loss.detach(), trainer.global_step))
        if trainer.global_step % self.check_every_n_steps == 0:
            self._check(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the result before an epoch's end is measured and saved."""
        self._check(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the validation loss too: weights can be too large for it while the training loss still holds."""
        value = trainer.callback_metrics.get("val/loss")
        bad = value is not None and not value.isfinite() and not trainer.sanity_checking
        if largest(int(bad)):
            raise self._diverged(trainer, pl_module, f"the validation loss of epoch {trainer.current_epoch + 1}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the result once an epoch at the least."""
        self._check(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse to save weights that are not finite: the gradient of a finite loss can be NaN."""
        self._check(trainer, pl_module)
        if largest(int(_first_bad(pl_module) is not None)):
            raise self._diverged(trainer, pl_module, f"the state after step {trainer.global_step}")

    def _check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # All processes come here, whatever they have seen.
        first = -largest(-self._first_bad_step())
        self._losses = []
        if first != _NEVER:
            what = f"the loss of step {first} (epoch {trainer.current_epoch + 1})"
            raise self._diverged(trainer, pl_module, what)

    def _first_bad_step(self) -> int:
        if not self._losses:
            return _NEVER
        finite = torch.stack([loss for loss, _ in self._losses]).isfinite().tolist()
        return next((step for (_, step), fine in zip(self._losses, finite, strict=True) if not fine), _NEVER)

    def _diverged(self, trainer: Trainer, pl_module: LightningModule, what: str) -> DivergedError:
        bad = _first_bad(pl_module)
        where = f"the first tensor that is not finite is the parameter {bad!r}" if bad else "all parameters are finite"
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        return DivergedError(
            f"Training diverged: {what} is not finite; {where}. "
            f"Lower the learning rate (now {rate:g}), or bound the gradient with --gradient_clipping.max_norm 1."
        )


def _first_bad(module: LightningModule) -> str | None:
    return next((name for name, p in module.named_parameters() if not p.detach().isfinite().all()), None)
