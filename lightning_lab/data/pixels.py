"""Changes of the pixels' values, of whole batches: brightness, grey, noise and cutout.

All take uint8 images (B, H, W, C), contiguous, leave them as they are and return new ones. Values are rounded half to
even and clipped to [0, 255].
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

#: Weights of red, green and blue in 65536ths, ITU-R 601-2, and the half that rounds up: Pillow's own integers.
_LUMA, _HALF = (19595, 38470, 7471), 0x8000


def brighten(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply each image with its factor. Shape of `factor`: (B, 1)."""
    return _to_bytes(x.flatten(1).float().mul_(factor)).view_as(x)


def turn_grey(x: Tensor, chosen: Tensor) -> Tensor:
    """Give the chosen images' luma to all their channels. Shape of `chosen`: (B,).

    Raises:
        ValueError: If there are neither 1 nor 3 channels. An image of 1 channel is grey already.
    """
    size, channels = len(x), x.shape[3]
    if channels == 1:
        return x
    if channels != 3:
        raise ValueError(f"`grey` needs images of 1 or 3 channels, got {channels}.")
    red, green, blue = x.int().unbind(3)  # (B, H, W) each
    luma = (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2]).add_(_HALF)
    grey = luma.bitwise_right_shift_(16).to(torch.uint8)
    both = torch.cat([x, torch.stack([grey] * 3, dim=3)]).flatten(1)  # (2 B, H W C)
    return both.index_select(0, torch.arange(size, device=x.device) + size * chosen).view_as(x)


def add_noise(x: Tensor, keys: Tensor, std: float) -> Tensor:
    """Add Gaussian noise, a pure function of the image's key and the pixel's position.

    A hash of both gives 16 bits for each value, and a table the normal distribution's quantile (of 65536, up to 4.3
    standard deviations). So no generator runs, and the noise is the same in any batch and on any device.

    Args:
        x: uint8 images. Shape (B, H, W, C).
        keys: Each image's own numbers in [0, 1). Shape (B, 2).
        std: Standard deviation, as a fraction of 255.

    Returns:
        uint8 images. Shape (B, H, W, C).
    """
    values = x.flatten(1)  # (B, H W C)
    count = values.shape[1]
    words = _words(keys, -(-count // 2))
    halves = torch.cat([words & 0xFFFF, (words >> 16).bitwise_and_(0xFFFF)], dim=1)[:, :count]
    drawn = _quantiles(std, x.device).index_select(0, halves.reshape(-1))
    return _to_bytes(drawn.view_as(values).add_(values)).view_as(x)


def cut_out(x: Tensor, draws: Tensor, edge: int) -> Tensor:
    """Make a square black, clipped at the image's edges.

    The centre is uniform over the image: over its pixels where `edge` is odd; where it is even the centre is a corner
    of pixels, and the corners on the image's edge are half as likely as the others.

    Args:
        x: uint8 images. Shape (B, H, W, C).
        draws: Numbers in [0, 1): how far down and how far right the centre is. Shape (B, 2).
        edge: Of the square, in pixels.

    Returns:
        uint8 images. Shape (B, H, W, C).
    """
    height, width, channels = x.shape[1:]
    outside = []
    for length, draw in ((height, draws[:, :1]), (width, draws[:, 1:])):
        first = torch.floor(draw * length - (edge - 1) / 2)  # (B, 1)
        place = torch.arange(length, device=x.device)
        outside.append(((place < first) | (place >= first + edge)).to(torch.uint8) * 255)  # (B, length)
    rows, columns = outside[0].unsqueeze(2), outside[1].repeat_interleave(channels, dim=1).unsqueeze(1)
    # Masks of bytes: a tenth of the time of filling through a boolean mask.
    return (x.flatten(2) & (rows | columns)).view_as(x)


def _to_bytes(values: Tensor) -> Tensor:
    return values.round_().clamp_(0, 255).to(torch.uint8)


def _words(keys: Tensor, count: int) -> Tensor:
    """Draw `count` words of 32 random bits for each key: (B, 2) to (B, count)."""
    first, second = (keys * (1 << 24)).int().unbind(1)  # each has 24 random bits
    positions = _mix(torch.arange(count, dtype=torch.int32, device=keys.device))
    return _mix(positions ^ _mix(_mix(first) ^ second).unsqueeze(1))


def _mix(words: Tensor) -> Tensor:
    """Hash each of 32 bits one to one: every bit that goes in turns half of those that come out.

    The constants are C. Wellons' `lowbias32`. Products wrap around; a shift to the right repeats the sign, which the
    mask takes away.
    """
    words = words ^ ((words >> 16) & 0xFFFF)
    words *= 0x7FEB352D
    words ^= (words >> 15) & 0x1FFFF
    words *= 0x846CA68B - (1 << 32)
    words ^= (words >> 16) & 0xFFFF
    return words


@lru_cache(maxsize=8)
def _quantiles(std: float, device: torch.device) -> Tensor:
    levels = (torch.arange(1 << 16, dtype=torch.float64) + 0.5) / (1 << 16)
    normal: Tensor = torch.special.ndtri(levels)
    return (normal * (255 * std)).float().to(device)
