"""A 3 x 3 convolution that is quick on maps of 2 x 2 pixels, where VGG's last stage works on images of 32 pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn


class SmallMapConv2d(nn.Conv2d):
    """A convolution 3 x 3 with padding 1 that is computed as one matrix product on maps of 2 x 2.

    On such a map every output pixel sees every input pixel, each through one of the nine taps: the convolution is a
    dense layer of 4 x 4 blocks. The libraries' kernels multiply all nine taps, five of them with padding, and their
    backward pass is slow on small maps. Results differ by rounding. Maps of other sizes, devices other than the
    processor, and graphs that are exported take torch's way.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.

    Shape:
        - Input: (B, in_channels, H, W)
        - Output: (B, out_channels, H, W)

    Example:
        >>> import torch
        >>> SmallMapConv2d(3, 5)(torch.zeros(7, 3, 2, 2)).shape
        torch.Size([7, 5, 2, 2])
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        if x.shape[-2:] != (2, 2) or x.device.type != "cpu" or torch.compiler.is_exporting():
            return super().forward(x)
        weight = self.weight
        if torch.is_autocast_enabled("cpu"):
            weight = weight.to(torch.get_autocast_dtype("cpu"))  # before it grows
        # Output pixel (p, q) sees input pixel (r, s) through the tap (r - p + 1, s - q + 1).
        blocks = [
            weight[:, :, 1 - p : 3 - p, 1 - q : 3 - q].permute(0, 2, 3, 1).flatten(1) for p in (0, 1) for q in (0, 1)
        ]
        flat = x.permute(0, 2, 3, 1).flatten(1)  # (B, 4 * in_channels), pixel by pixel
        bias = None if self.bias is None else self.bias.repeat(4)
        y = F.linear(flat, torch.cat(blocks), bias)  # (B, 4 * out_channels)
        return y.view(-1, 2, 2, self.out_channels).permute(0, 3, 1, 2)  # (B, out_channels, 2, 2), channels-last
