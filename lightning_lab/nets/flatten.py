"""From feature maps to the dense layers, without slowing the way back."""

from __future__ import annotations

import torch
from torch import Tensor


def flatten(x: Tensor) -> Tensor:
    """Flatten feature maps, and let their gradient come back in the order in memory that the maps have.

    A dense layer's gradient comes back channel by channel. Behind channels-last maps that would make the whole way
    back slow.

    Args:
        x: Feature maps. Shape (B, C, H, W).

    Returns:
        Shape (B, C * H * W).
    """
    if x.requires_grad and x.is_contiguous(memory_format=torch.channels_last):
        x.register_hook(_channels_last)  # type: ignore[no-untyped-call]
    return x.flatten(1)


def _channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)
