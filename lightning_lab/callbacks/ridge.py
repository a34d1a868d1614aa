"""Ridge regression from moments that are added up batch by batch, and over processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Count, mean and scatter about the mean of rows. Those of parts add up without loss of digits.

    Args:
        count: How many rows.
        mean: Shape (..., features), float64.
        scatter: Sum of (row - mean)(row - mean)'. Shape (..., features, features), float64.

    Reference:
        T. F. Chan, G. H. Golub, R. J. LeVeque: Updating formulae and a pairwise algorithm for computing sample
        variances. 1979.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, x: Tensor, targets: Tensor) -> Moments:
        """Measure rows of inputs (..., B, in) with their targets (..., B, out) behind them.

        On the processor, because not every accelerator has float64.
        """
        rows = torch.cat([x.cpu().double(), targets.cpu().double()], dim=-1)
        mean = rows.mean(-2) if rows.shape[-2] else torch.zeros_like(rows.sum(-2))
        centred = rows - mean.unsqueeze(-2)
        return cls(rows.shape[-2], mean, centred.mT @ centred)

    def with_more(self, more: Moments) -> Moments:
        """Add up."""
        count = self.count + more.count
        share = more.count / max(count, 1)
        apart = more.mean - self.mean
        between = apart.unsqueeze(-1) * apart.unsqueeze(-2) * (self.count * share)
        return Moments(count, self.mean + apart * share, self.scatter + more.scatter + between)


def ridge_solution(moments: Moments, inputs: int, ridge: float, *, bias: bool) -> tuple[Tensor, Tensor]:
    """Minimise sum |x W' + b - target|^2 + c |W|^2, where c is `ridge` times the mean of the diagonal of X'X.

    By a Cholesky factor in float64. X is centred where there is a bias, which is not shrunk.

    Args:
        moments: Of inputs and targets.
        inputs: How many of the features are inputs.
        ridge: Above 0.
        bias: Whether there is a bias; without one b is 0.

    Returns:
        W, shape (..., out, inputs), and b, shape (..., out); float64.
    """
    products, mean = moments.scatter, moments.mean
    if not bias:
        products = products + moments.count * mean.unsqueeze(-1) * mean.unsqueeze(-2)
    of_x, with_targets = products[..., :inputs, :inputs], products[..., :inputs, inputs:]
    diagonal = of_x.diagonal(dim1=-2, dim2=-1)
    added = ridge * diagonal.mean(-1)
    added = added.masked_fill(added == 0, 1.0)  # inputs that are all the same tell nothing, and W is 0
    factor = torch.linalg.cholesky(of_x + torch.diag_embed(added.unsqueeze(-1).expand_as(diagonal)))
    weight = torch.cholesky_solve(with_targets, factor).mT
    offset = mean[..., inputs:] - (weight @ mean[..., :inputs].unsqueeze(-1)).squeeze(-1)
    return weight, offset if bias else torch.zeros_like(offset)
