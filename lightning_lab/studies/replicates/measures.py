"""Losses and metrics of n replicates at once: the formulas of the tasks, with one number for each replicate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from lightning_lab.tasks import Classification, Regression

#: torchmetrics' own: below it a sum of squares counts as zero, a target as this.
_R2_ZERO, _LEAST_TARGET = 1e-4, 1.17e-06


def losses(task: Any, outputs: Tensor, y: Tensor, *, training: bool) -> Tensor:
    """Compute each replicate's loss of a batch.

    Args:
        task: One of the replicates' tasks; they are alike.
        outputs: Shape (n, B, outputs).
        y: Targets. Shape (n, B) int64, or (n, B, 1).
        training: Whether labels are smoothed.

    Returns:
        Shape (n,).
    """
    if isinstance(task, Regression):
        return F.mse_loss(outputs, y, reduction="none").flatten(1).mean(1)
    if task.loss == "cross_entropy":
        smoothing = task.label_smoothing if training else 0.0
        each = F.cross_entropy(outputs.flatten(0, 1), y.flatten(), reduction="none", label_smoothing=smoothing)
        return each.view(y.shape).mean(1)
    target = F.one_hot(y, task.num_classes).to(outputs.dtype)
    if task.loss == "mse":
        return F.mse_loss(outputs, target, reduction="none").flatten(1).mean(1)
    distance: Tensor = torch.linalg.vector_norm(outputs - target, dim=2)
    return distance.mean(1)


def evaluate(task: Any, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Compute each replicate's validation metrics, in double precision.

    Args:
        task: One of the replicates' tasks.
        batches: Outputs and targets of all examples.

    Returns:
        Metric name to shape (n,).
    """
    sums: dict[str, Tensor] = {}
    count = 0
    for outputs, y in batches:
        batch = y.shape[1]
        parts = {"loss": losses(task, outputs, y, training=False).double() * batch}
        parts |= _regression(outputs, y) if isinstance(task, Regression) else _classification(task, outputs, y)
        sums = {name: sums.get(name, 0) + value for name, value in parts.items()}
        count += batch
    if isinstance(task, Classification):
        return {f"val/{name}": value / count for name, value in sums.items()}
    spread = sums["y_squared"] - sums["y"] ** 2 / count
    r2 = torch.where(spread > _R2_ZERO, 1 - sums["squared"] / spread, 0.0)
    r2 = torch.where(sums["squared"] > _R2_ZERO, r2, 1.0)
    metrics = {"loss": sums["loss"] / count, "mae": sums["absolute"] / count, "r2": r2}
    metrics["relative_error"] = sums["relative"] / count
    return {f"val/{name}": value for name, value in metrics.items()}


def hits(outputs: Tensor, y: Tensor) -> Tensor:
    """Count the examples whose largest output is the target's. Shape (n,)."""
    return (outputs.argmax(dim=2) == y).sum(1)


def _classification(task: Classification, logits: Tensor, y: Tensor) -> dict[str, Tensor]:
    parts = {"acc": hits(logits, y).double()}
    if task.num_classes > 5:
        parts["top5"] = (logits.topk(5, dim=2).indices == y.unsqueeze(2)).any(2).sum(1).double()
    return parts


def _regression(values: Tensor, y: Tensor) -> dict[str, Tensor]:
    values, y = values.flatten(1).double(), y.flatten(1).double()  # (n, B) both
    away = (values - y).abs()
    parts = {"absolute": away, "squared": away**2, "relative": away / y.abs().clamp_min(_LEAST_TARGET)}
    parts |= {"y": y, "y_squared": y**2}
    return {name: value.sum(1) for name, value in parts.items()}
