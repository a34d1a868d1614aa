"""Random changes to training images, a whole batch at a time, each example with draws of its own.

torchvision's transforms make ONE draw for a batch given as a tensor, which is why they are not used here. All draws
of an epoch are a pure function of (seed, epoch, index of the example).
"""

from __future__ import annotations

from typing import Literal, final

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from lightning_lab.runs.seeds import stream_seed


@final
class Augment:
    """Crop and flip.

    Args:
        crop: Pad each side by this many pixels and cut a window of the original size at a random place. 0 is off.
        padding: What stands outside the image: zeros (black), or its reflection.
        flip: Mirror left to right: never, at random with probability 1/2, or alternating (each image is drawn once
            and then mirrored every second epoch, so that two epochs show both sides of every image).

    Shape:
        - Input: (B, C, H, W) uint8 and the draws (B, 3) in [0, 1).
        - Output: (B, C, H, W) uint8.

    Raises:
        ValueError: If `crop` is negative, or, when an image comes, too large to be reflected.

    Example:
        >>> augment = Augment(crop=1)
        >>> augment(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), augment.draw(2, seed=0, epoch=0), epoch=0).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(
        self,
        *,
        crop: int = 4,
        padding: Literal["zeros", "reflect"] = "zeros",
        flip: Literal["none", "random", "alternating"] = "random",
    ) -> None:
        if crop < 0:
            raise ValueError(f"`crop` must be 0 (off) or more pixels, got {crop}.")
        self.crop = crop
        self.padding = padding
        self.flip = flip

    def draw(self, size: int, seed: int, epoch: int) -> Tensor:
        """Draw one epoch's numbers for a data set of `size` examples.

        Returns:
            Numbers in [0, 1): row, column and side of each example. Shape (size, 3).
        """
        window = torch.Generator().manual_seed(stream_seed(seed, "augment", epoch))
        # The alternating flip wants the same side in every epoch, so that one has no epoch in its seed.
        side = torch.Generator().manual_seed(stream_seed(seed, "augment")) if self.flip == "alternating" else window
        corner = torch.rand(size, 2, generator=window)
        return torch.cat([corner, torch.rand(size, 1, generator=side)], dim=1)

    def __call__(self, x: Tensor, draws: Tensor, epoch: int) -> Tensor:
        """Change a batch.

        Args:
            x: uint8 images. Shape (B, C, H, W).
            draws: These examples' rows of :meth:`draw`. Shape (B, 3).
            epoch: Which epoch it is; the alternating flip turns with it.

        Returns:
            uint8 images. Shape (B, C, H, W).
        """
        height, width = x.shape[-2:]
        if self.padding == "reflect" and self.crop >= min(height, width):
            raise ValueError(
                f"`crop` {self.crop} with `padding` reflect must be smaller than the image, {height} x {width}."
            )
        rows = torch.arange(height, device=x.device).expand(len(x), height)
        columns = torch.arange(width, device=x.device).expand(len(x), width)
        if self.flip != "none":
            mirrored = (draws[:, 2] < 0.5) ^ (self.flip == "alternating" and epoch % 2 == 1)
            columns = torch.where(mirrored.unsqueeze(1), width - 1 - columns, columns)
        if self.crop:
            x = self._pad(x)  # (B, C, H + 2 crop, W + 2 crop)
            corner = (draws[:, :2] * (2 * self.crop + 1)).long()
            rows = rows + corner[:, :1]
            columns = columns + corner[:, 1:2]
        one = torch.arange(len(x), device=x.device).view(-1, 1, 1)
        x = x.permute(0, 2, 3, 1)[one, rows.unsqueeze(2), columns.unsqueeze(1)]  # (B, H, W, C)
        return x.permute(0, 3, 1, 2)

    def _pad(self, x: Tensor) -> Tensor:
        if self.padding == "zeros":
            return F.pad(x, [self.crop] * 4)
        # Reflection is not there for bytes; floats hold them exactly.
        return F.pad(x.float(), [self.crop] * 4, mode="reflect").to(x.dtype)
