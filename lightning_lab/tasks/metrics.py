"""Means over an epoch's examples, as torchmetrics objects that take few operations a step.

`add` is `update` without torchmetrics' bookkeeping around it, which costs a small net a tenth of its step. It adds in
place, because to assign an attribute of a module costs as much as the sum.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


def _add(metric: Metric, *batch: Any) -> None:
    """Add a batch, as the metric's ``update`` does."""
    if not metric._update_count:
        metric._update_count = 1  # torchmetrics asks whether there was any
    type(metric).update(metric, *batch)  # the class's own, which torchmetrics has not wrapped


class MeanLoss(Metric):
    """Weigh each batch's mean loss by its number of examples, over all batches and processes.

    torchmetrics' own MeanMetric either drops NaN, so that a diverging epoch looks better than it was, or, told to
    keep them, ignores the weights (1.9).

    Example:
        >>> mean = MeanLoss()
        >>> mean.update(torch.tensor(1.0), 3)
        >>> mean.update(torch.tensor(5.0), 1)
        >>> mean.compute()
        tensor(2.)
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, num_examples: int) -> None:
        """Add a batch: its mean loss (a scalar) and how many examples it is the mean of."""
        # A rank without an example left adds nothing, even if its filler's loss is not finite.
        if num_examples:
            self.total.add_(loss * num_examples)
            self.count.add_(num_examples)

    add = _add

    def compute(self) -> Tensor:
        """Compute the mean over all examples seen."""
        return self.total / self.count


class TopOneAccuracy(Metric):
    """Share of the examples whose largest logit is the target's: torchmetrics' micro average, at a third of its cost.

    Of equal logits the first counts.

    Example:
        >>> accuracy = TopOneAccuracy()
        >>> accuracy.update(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        >>> accuracy.compute()
        tensor(0.5000)
    """

    full_state_update = False
    correct: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("correct", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, y: Tensor) -> None:
        """Add a batch: logits (B, num_classes) and targets (B,)."""
        self.correct.add_((logits.argmax(dim=1) == y).sum())
        self.count.add_(len(y))

    add = _add

    def compute(self) -> Tensor:
        """Compute the share over all examples seen."""
        return self.correct / self.count
