"""Gradient clipping that shows what it does: the norm before and after, and how often it had to act."""

from __future__ import annotations

from typing import Any, final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from lightning_lab.callbacks.scaling import check_unscaled, remaining_scale

#: Without clipping, the norm is measured in one of so many steps, so that looking costs next to nothing.
MEASURE_EVERY_STEPS = 10


@final
class GradientClipping(Callback):
    """Bound the gradient, and log its norm.

    With neither bound set it only measures, in every tenth step. Logs once an epoch ``grad_norm`` (mean Euclidean norm
    over all parameters, before clipping) and, with a bound, ``grad_norm_clipped`` (mean norm after) and
    ``clipped_frac`` (share of the steps in which the bound was reached).

    Args:
        max_norm: Scale the whole gradient down to this Euclidean norm, above 0; null does not.
        max_value: Cut each component to [-max_value, max_value], above 0; null does not.

    Raises:
        ValueError: If a bound is not above 0, or both are given.
        InputError: If there is a bound, in 16-mixed with a fused optimiser, whose gradients are scaled until its step.
    """

    def __init__(self, *, max_norm: float | None = None, max_value: float | None = None) -> None:
        for name, bound in (("max_norm", max_norm), ("max_value", max_value)):
            if bound is not None and not bound > 0:
                raise ValueError(f"`{name}` must be above 0, got {bound}. Null switches it off.")
        if max_norm is not None and max_value is not None:
            raise ValueError(f"Give `max_norm` or `max_value`, not both, got {max_norm} and {max_value}.")
        self.max_norm = max_norm
        self.max_value = max_value
        self._sums = torch.zeros(3)  # norm before, norm after, steps clipped
        self._measured = 0
        self._steps = 0  # in this epoch
        self._ever_clipped = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to clip twice, and to clip what is scaled.

        Raises:
            ValueError: If Lightning's own clipping is on too.
            InputError: If the optimiser takes the scale of 16-mixed off itself.
        """
        if self._clips:
            check_unscaled(trainer, "gradient_clipping")
        if trainer.gradient_clip_val is not None:
            raise ValueError(
                f"`trainer.gradient_clip_val` {trainer.gradient_clip_val} and the slot `gradient_clipping` both handle "
                "the gradient. Use --gradient_clipping.max_norm, or --gradient_clipping null."
            )
        self._sums = self._sums.to(pl_module.device)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Measure and clip, after the processes have averaged their gradients."""
        self._steps += 1
        if not self._clips and (self._steps - 1) % MEASURE_EVERY_STEPS:
            return
        parameters = [p for p in pl_module.parameters() if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        before = get_total_norm(gradients)
        if self.max_norm is not None:
            clip_grads_with_norm_(parameters, self.max_norm, before)
            clipped = before > self.max_norm
            after = before.clamp_max(self.max_norm)
        elif self.max_value is not None:
            largest = torch.stack(torch._foreach_norm(gradients, float("inf"))).max()
            clip_grad_value_(parameters, self.max_value)
            clipped, after = largest > self.max_value, get_total_norm(gradients)
        else:
            before = before / remaining_scale(trainer)
            clipped, after = torch.zeros_like(before), before
        self._sums += torch.stack([before, after, clipped.to(before.dtype)])
        self._measured += 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch's means."""
        if not self._measured:
            return
        before, after, clipped = (self._sums / self._measured).tolist()
        metrics: dict[str, float | Tensor] = {"grad_norm": before}
        if self._clips:
            metrics |= {"grad_norm_clipped": after, "clipped_frac": clipped}
            self._ever_clipped |= clipped > 0
        pl_module.log_dict(metrics)
        self._sums.zero_()
        self._measured = self._steps = 0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so if the bound was never reached."""
        bound = self.max_norm or self.max_value
        if bound is not None and not self._ever_clipped:
            rank_zero_warn(f"`gradient_clipping` had no effect: no gradient reached the bound {bound}.")

    @property
    def _clips(self) -> bool:
        return self.max_norm is not None or self.max_value is not None

    def state_dict(self) -> dict[str, Any]:
        """Keep the epoch's sums for a run that continues."""
        return {
            "sums": self._sums,
            "measured": self._measured,
            "steps": self._steps,
            "ever_clipped": self._ever_clipped,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the sums up again."""
        self._sums = state_dict["sums"]
        self._measured = state_dict["measured"]
        self._steps = state_dict["steps"]
        self._ever_clipped = state_dict["ever_clipped"]
