"""Optimisers that torch lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the iteration's odd polynomial, steep at zero: Jordan et al. 2024


class Muon(Optimizer):
    """Momentum whose step for a convolution is orthogonalised, so that all directions of its weights move alike.

    torch's own Muon takes matrices alone. Here the weights of convolutions are read as matrices (filters x inputs);
    each filter bank keeps a constant norm, and its step is the momentum's nearest (semi-)orthogonal matrix, found by
    Newton-Schulz iteration. All other parameters get Nesterov momentum with rates of their own: matrices `head_lr`,
    vectors `bias_lr`, and weight decay that is the same share for both.

    Args:
        params: The parameters.
        lr: Rate of the convolutions, at least 0: the step's length relative to the filter bank's norm.
        momentum: Of the convolutions, in [0, 1).
        head_lr: Rate of the matrices, at least 0.
        bias_lr: Rate of the vectors, at least 0.
        other_momentum: Of matrices and vectors, in [0, 1).
        weight_decay: Share of matrices and vectors that a step at the full rate takes away, at least 0; a schedule
            lowers it with the rate. Filter banks have none: their norm is constant.
        ns_steps: Iterations of Newton-Schulz, at least 1.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        K. Jordan et al.: Muon: an optimizer for hidden layers in neural networks. 2024.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.24,
        *,
        momentum: float = 0.6,
        head_lr: float = 1.0,
        bias_lr: float = 1.0,
        other_momentum: float = 0.85,
        weight_decay: float = 0.0,
        ns_steps: int = 3,
    ) -> None:
        rates = {"lr": lr, "head_lr": head_lr, "bias_lr": bias_lr, "weight_decay": weight_decay}
        for name, value in rates.items():
            if not value >= 0:
                raise ValueError(f"`{name}` must be at least 0, got {value}.")
        for name, value in {"momentum": momentum, "other_momentum": other_momentum}.items():
            if not 0 <= value < 1:
                raise ValueError(f"`{name}` must be in [0, 1), got {value}.")
        if ns_steps < 1:
            raise ValueError(f"`ns_steps` must be at least 1, got {ns_steps}.")
        trained = [parameter for parameter in params if parameter.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if p.ndim > 2], "lr": lr, "momentum": momentum, "orthogonal": True},
            {"params": [p for p in trained if p.ndim == 2], "lr": head_lr, "momentum": other_momentum},
            {"params": [p for p in trained if p.ndim < 2], "lr": bias_lr, "momentum": other_momentum},
        ]
        for group in groups:
            group["weight_decay"] = weight_decay / group["lr"] if group["lr"] else 0.0
        defaults = {"ns_steps": ns_steps, "orthogonal": False}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the parameters."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum = state["momentum"]
        if group["orthogonal"]:
            momentum.mul_(group["momentum"]).add_(gradient)
            ahead = gradient.add(momentum, alpha=group["momentum"])  # Nesterov
            parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
            direction = orthogonalise(ahead.reshape(len(ahead), -1), steps=group["ns_steps"])
            parameter.add_(direction.reshape(parameter.shape), alpha=-group["lr"])
        else:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
            momentum.mul_(group["momentum"]).add_(gradient)
            parameter.add_(gradient.add(momentum, alpha=group["momentum"]), alpha=-group["lr"])


def orthogonalise(matrix: Tensor, *, steps: int) -> Tensor:
    """Bring all singular values of a matrix near 1, by Newton-Schulz iteration.

    Args:
        matrix: Shape (M, N).
        steps: Iterations. With five, singular values within a hundredth of the largest end between 0.7 and 1.2.

    Returns:
        About ``U @ V.T`` of the singular value decomposition. Shape (M, N), in the type of `matrix`.
    """
    a, b, c = _COEFFICIENTS
    x: Tensor = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
