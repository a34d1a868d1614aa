"""The mean loss over examples, as a torchmetrics object."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


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
            self.total = self.total + loss * num_examples
            self.count = self.count + num_examples

    def compute(self) -> Tensor:
        """Compute the mean over all examples seen."""
        return self.total / self.count
