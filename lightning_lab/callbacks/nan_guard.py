"""End a run whose numbers are no longer finite, and say where it began."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_lab.callbacks.gradient_clipping import GradientClipping
from lightning_lab.callbacks.penalty import Penalty
from lightning_lab.runs.agreement import largest
from lightning_lab.runs.errors import DivergedError

#: Further on than any step.
_NEVER = 2**62
_BOUNDS = ("max_norm", "max_value")


@final
class NanGuard(Callback):
    """Stop at the first training or validation loss that is NaN or infinite, and never save such weights.

    The losses are kept on the training device and looked at every `check_every_n_steps`, so that no step waits for
    it; the message names the step all the same, the first gradient, else the first weight, that is not finite by then,
    in the order of the net, and what to do. Of several processes each has losses of its own: what one of them sees ends
    all, and the message names the first step of any.

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
        if largest(int(_first_bad(pl_module.named_parameters()) is not None)):
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
        return DivergedError(f"Training diverged: {what} is not finite; {_where(pl_module)}. {_remedy(trainer)}")


def _where(module: LightningModule) -> str:
    # In the order of a step: loss, gradients, weights.
    gradients = [(name, p.grad) for name, p in module.named_parameters() if p.grad is not None]  # none in a validation
    for kind, tensors in (("gradient of", gradients), ("parameter", module.named_parameters())):
        bad = _first_bad(tensors)
        if bad is not None:
            return f"the first tensor that is not finite is the {kind} {bad!r}"
    return f"all {'gradients and ' if gradients else ''}parameters are finite"


def _remedy(trainer: Trainer) -> str:
    slots: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    remedies = [f"Lower the learning rate (--model.optimizer.lr, now {rate:g})"]
    remedies += [f"lower --penalty.weight (now {one.weight:g})" for one in slots if isinstance(one, Penalty)]
    bounds = [(name, getattr(one, name)) for one in slots if isinstance(one, GradientClipping) for name in _BOUNDS]
    bounded = [f"lower --gradient_clipping.{name} (now {bound:g})" for name, bound in bounds if bound is not None]
    return f"{', '.join(remedies)}, or {(bounded or ['bound the gradient with --gradient_clipping.max_norm 1'])[0]}."


def _first_bad(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    return next((name for name, tensor in tensors if not tensor.detach().isfinite().all()), None)
