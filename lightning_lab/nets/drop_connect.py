"""Drop-connect, after Wan et al. (2013): dropout of the weights of a dense layer instead of its inputs."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn


def dense(in_features: int, out_features: int, *, drop_connect: float, bias: bool) -> nn.Linear:
    """Build torch's own dense layer, or one whose weights are dropped.

    Args:
        in_features: Values per sample.
        out_features: Number of outputs.
        drop_connect: As in :class:`DropConnectLinear`.
        bias: Whether a bias is added.
    """
    if drop_connect:
        return DropConnectLinear(in_features, out_features, drop_connect=drop_connect, bias=bias)
    return nn.Linear(in_features, out_features, bias=bias)


class DropConnectLinear(nn.Linear):
    """A dense layer that leaves out a random part of its weights in each training step.

    What stays is scaled by 1 / (1 - p), so the mean over many masks is the layer with all its weights, and that is what
    evaluation computes. The draws come from torch's default generator, as those of dropout. Departures from the paper:
    one mask a step for the whole batch instead of one for each example, the bias is never dropped, and evaluation does
    not sample.

    Args:
        in_features: Values per sample, at least 1.
        out_features: Number of outputs, at least 1.
        drop_connect: Probability p in [0, 1) of zeroing a weight. With 0 nothing is drawn.
        bias: Whether a bias is added.

    Shape:
        - Input: (B, in_features)
        - Output: (B, out_features)

    Example:
        >>> import torch
        >>> DropConnectLinear(3, 5, drop_connect=0.5)(torch.zeros(7, 3)).shape
        torch.Size([7, 5])

    Reference:
        Wan, Zeiler, Zhang, LeCun, Fergus: Regularization of neural networks using DropConnect. ICML 2013.
    """

    def __init__(self, in_features: int, out_features: int, *, drop_connect: float, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.drop_connect = drop_connect

    def forward(self, input: Tensor) -> Tensor:
        """Multiply with the weights that this step has."""
        return F.linear(input, F.dropout(self.weight, self.drop_connect, self.training), self.bias)

    def extra_repr(self) -> str:
        """Show the probability beside the sizes."""
        return f"{super().extra_repr()}, drop_connect={self.drop_connect}"
