"""The callbacks Penalty and GradientClipping for stacked weights: each replicate by its own norms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_lab.callbacks.gradient_clipping import MEASURE_EVERY_STEPS, GradientClipping
from lightning_lab.callbacks.penalty import Penalty, chosen_names


class StackedPenalty:
    """Add n penalties' gradients.

    Args:
        slot: Kind, weight and which parameters.
        task: One replicate's, by whose names they are chosen.
        size: How many replicates.
    """

    def __init__(self, slot: Penalty, task: nn.Module, size: int) -> None:
        self.kind = slot.kind
        self.weight = slot.weight
        chosen = chosen_names(task, slot.parameters)
        self._places = [place for place, (name, _) in enumerate(task.named_parameters()) if name in chosen]
        self._sum = torch.zeros(size)
        self._steps = 0

    @torch.no_grad()
    def act(self, parameters: Sequence[Tensor]) -> None:
        """Add, as the callback does before an optimiser step."""
        self._steps += 1
        if self.weight == 0:
            return
        for parameter in [parameters[place] for place in self._places]:
            assert parameter.grad is not None
            rest = list(range(1, parameter.dim()))
            if self.kind == "l2":
                parameter.grad.add_(parameter, alpha=2 * self.weight)
                value = parameter.square().sum(rest)
            elif self.kind == "l1":
                parameter.grad.add_(parameter.sign(), alpha=self.weight)
                value = parameter.abs().sum(rest)
            else:
                value = torch.linalg.vector_norm(parameter, dim=rest)
                factor = (self.weight / value).masked_fill(value == 0, 0.0)
                parameter.grad.addcmul_(parameter, factor.view(-1, *[1] * len(rest)))
            self._sum += self.weight * value

    def end_epoch(self) -> dict[str, Tensor]:
        """Give the epoch's mean, one number a replicate, and start anew."""
        mean = self._sum / max(self._steps, 1)
        self._sum = torch.zeros_like(self._sum)
        self._steps = 0
        return {"train/penalty": mean}


class StackedClipping:
    """Measure and bound n gradients.

    Args:
        slot: The bounds.
        size: How many replicates.
    """

    def __init__(self, slot: GradientClipping, size: int) -> None:
        self.max_norm = slot.max_norm
        self.max_value = slot.max_value
        self.ever_clipped = torch.zeros(size, dtype=torch.bool)
        self._sums = torch.zeros(3, size)  # norm before, norm after, steps clipped
        self._measured = 0
        self._steps = 0  # in this epoch

    def act(self, parameters: Sequence[Tensor]) -> None:
        """Measure and clip, as the callback does before an optimiser step."""
        clips = self.max_norm is not None or self.max_value is not None
        self._steps += 1
        if not clips and (self._steps - 1) % MEASURE_EVERY_STEPS:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]  # (n, ...) each
        before = after = _norm(gradients)
        clipped = torch.zeros_like(before, dtype=torch.bool)
        if self.max_norm is not None:
            factor = (self.max_norm / (before + 1e-6)).clamp_max(1.0)  # torch's own formula
            for gradient in gradients:
                gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))
            clipped, after = before > self.max_norm, before.clamp_max(self.max_norm)
        elif self.max_value is not None:
            clipped = torch.stack([one.abs().flatten(1).amax(1) for one in gradients]).amax(0) > self.max_value
            torch._foreach_clamp_min_(gradients, -self.max_value)
            torch._foreach_clamp_max_(gradients, self.max_value)
            after = _norm(gradients)
        self._sums += torch.stack([before, after, clipped.to(before.dtype)])
        self._measured += 1

    def end_epoch(self) -> dict[str, Tensor]:
        """Give the epoch's means, one number a replicate, and start anew."""
        before, after, clipped = self._sums / max(self._measured, 1)
        metrics = {"grad_norm": before} if self._measured else {}
        if metrics and (self.max_norm is not None or self.max_value is not None):
            metrics |= {"grad_norm_clipped": after, "clipped_frac": clipped}
            self.ever_clipped |= clipped > 0
        self._sums = torch.zeros_like(self._sums)
        self._measured = self._steps = 0
        return metrics


def _norm(gradients: Sequence[Tensor]) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(
        torch.stack([torch.linalg.vector_norm(one.flatten(1), dim=1) for one in gradients]), dim=0
    )
    return norms
