"""Shift, rotation and change of size of whole batches, as one bilinear resampling.

The sampling grid is computed by hand: `affine_grid` multiplies matrices, so that on a GPU TF32 would move the pixels
and the batch's size could decide the last bits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor


def resample(x: Tensor, *, shift: Tensor | None, turn: Tensor | None, scale: Tensor | None) -> Tensor:
    """Enlarge each image about its centre, then turn it about its centre, then shift it.

    Pixels are squares: the image reaches from its first pixel's edge to its last pixel's edge (`align_corners` false).
    What comes from outside is black, and is blended in at the border.

    Args:
        x: uint8 images. Shape (B, H, W, C).
        shift: Pixels to the right and down, or None. Shape (B, 2).
        turn: Cosine and sine of the angle, counter-clockwise, or None. Shape (B, 2).
        scale: Factor on lengths, above 0, or None. Shape (B, 1).

    Returns:
        uint8 images, rounded half to even. Shape (B, H, W, C).
    """
    height, width = x.shape[1:3]
    # Where each pixel of the output comes from, in pixels from the image's centre.
    right = torch.arange(width, device=x.device).add(0.5 - width / 2).expand(len(x), -1)  # (B, W)
    down = torch.arange(height, device=x.device).add(0.5 - height / 2).expand(len(x), -1)  # (B, H)
    if shift is not None:
        right, down = right - shift[:, :1], down - shift[:, 1:]
    if scale is not None:
        right, down = right / scale, down / scale
    across, along = right.unsqueeze(1), down.unsqueeze(2)  # (B, 1, W), (B, H, 1)
    grid = torch.empty(len(x), height, width, 2, device=x.device)
    if turn is None:
        grid[..., 0], grid[..., 1] = across * (2 / width), along * (2 / height)
    else:
        cosine, sine = turn.view(-1, 2, 1, 1).unbind(1)
        torch.sub(across * (cosine * (2 / width)), along * (sine * (2 / width)), out=grid[..., 0])
        torch.add(across * (sine * (2 / height)), along * (cosine * (2 / height)), out=grid[..., 1])
    sampled = F.grid_sample(x.permute(0, 3, 1, 2).float(), grid, mode="bilinear", align_corners=False)  # (B, C, H, W)
    return sampled.round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
