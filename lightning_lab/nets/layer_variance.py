"""Layer normalisation with a mistake that is worth a look: division by the variance."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerVariance(nn.Module):
    """Subtract each sample's mean over the layer and divide by its variance, where the standard deviation is meant.

    It computes (x - mean) / (var + eps), without learned scale or shift, with the mean of the squared deviations as
    variance and `eps` where layer normalisation has it: the root is all that is missing. So the output's spread is not
    1 but one over the input's: a layer of small spread is blown up, one of large spread fades. Not to be used for
    anything but to see what the mistake does.

    Args:
        eps: Added to the variance, above 0.

    Shape:
        - Input: (..., units)
        - Output: the same

    Example:
        >>> import torch
        >>> LayerVariance()(torch.tensor([[-2.0, 2.0]])).round(decimals=3)
        tensor([[-0.5000,  0.5000]])
    """

    def __init__(self, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, wrongly."""
        var, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)  # (..., 1)
        return (x - mean) / (var + self.eps)
