"""Random changes to training images, a whole batch at a time, each example with draws of its own.

torchvision's transforms make ONE draw for a batch given as a tensor, which is why they are not used here. All draws
of an epoch are a pure function of (seed, epoch, index of the example). What the draws do to the pixels, beyond crop
and flip, is in `affine.py` and `pixels.py`.
"""

from __future__ import annotations

import math
from typing import Literal, final

import torch
from torch import Tensor

from lightning_lab.data.affine import resample
from lightning_lab.data.pixels import add_noise, brighten, cut_out, turn_grey
from lightning_lab.runs.errors import check_choice
from lightning_lab.runs.seeds import stream_seed

#: The number in each augmentation's seed, and how many columns it draws. Recorded runs depend on them: never change
#: one. Each has a stream of its own, so that switching one on leaves the others' draws as they were.
_STREAMS = {
    "shift": (1, 2),
    "rotate": (2, 1),
    "resize": (3, 1),
    "brightness": (4, 1),
    "grey": (5, 1),
    "noise": (6, 2),
    "cutout": (7, 2),
}


@final
class Augment:
    """Random changes to training images: crop, flip, shift, rotate, resize, brightness, grey, noise, cutout.

    They are made in this order, each on the bytes that the one before it left; shift, rotate and resize together, as
    one bilinear resampling. Each example has its own draws, the same in whatever batch it comes. Each is off until it
    is set, so that a study of one is a study of that one; what is off costs nothing.

    Args:
        crop: Pad each side by this many pixels and cut a window of the original size at a random place. 0 is off.
        padding: What stands outside the image when it is cropped: zeros (black), or its reflection; without effect on
            the rest.
        flip: Mirror left to right: never, at random with probability 1/2, or alternating (each image is drawn once
            and then mirrored every second epoch, so that two epochs show both sides of every image).
        shift: Move by up to this many pixels, fractions included, along each axis; black comes in. 0 is off.
        rotate: Turn about the image's centre by up to this many degrees either way, in [0, 180]; black comes in. 0 is
            off.
        resize: Enlarge or reduce by a factor in [1 - `resize`, 1 + `resize`], in [0, 1); black comes in. 0 is off.
        brightness: Multiply with a factor in [1 - `brightness`, 1 + `brightness`], in [0, 1]; clipped. 0 is off.
        grey: Probability of turning a colour image to grey (ITU-R 601 luma, as Pillow does), in [0, 1]. 0 is off.
        noise: Standard deviation of Gaussian noise, drawn for each pixel and channel, as a fraction of the full range
            of 255, in [0, 1]; clipped. 0 is off.
        cutout: Edge in pixels of a square made black. Its centre is anywhere on the image with equal probability, and
            what lies outside is clipped. 0 is off.

    Shape:
        - Input: (B, C, H, W) uint8 and the draws, (B, 3) or more.
        - Output: (B, C, H, W) uint8, channels-last in memory.

    Raises:
        ValueError: If an argument is out of its range, or, when an image comes, `crop`, `shift` or `cutout` is so large
            that nothing need be left of it, or `grey` has neither 1 nor 3 channels.

    Example:
        >>> augment = Augment(crop=1, rotate=15, cutout=2)
        >>> augment(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), augment.draw(2, seed=0, epoch=0), epoch=0).shape
        torch.Size([2, 3, 8, 8])

    Reference:
        T. DeVries, G. W. Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017.
    """

    def __init__(
        self,
        *,
        crop: int = 0,
        padding: Literal["zeros", "reflect"] = "zeros",
        flip: Literal["none", "random", "alternating"] = "none",
        shift: float = 0.0,
        rotate: float = 0.0,
        resize: float = 0.0,
        brightness: float = 0.0,
        grey: float = 0.0,
        noise: float = 0.0,
        cutout: int = 0,
    ) -> None:
        check_choice("padding", padding, ("zeros", "reflect"))
        check_choice("flip", flip, ("none", "random", "alternating"))
        if crop < 0:
            raise ValueError(f"`crop` must be 0 (off) or more pixels, got {crop}.")
        if not 0 <= shift < math.inf:  # NaN fails too, here and below
            raise ValueError(f"`shift` must be 0 (off) or more pixels, got {shift}.")
        if not 0 <= rotate <= 180:
            raise ValueError(f"`rotate` must be in [0, 180] degrees, got {rotate}.")
        if not 0 <= resize < 1:
            raise ValueError(f"`resize` must be in [0, 1), got {resize}.")
        if not 0 <= brightness <= 1:
            raise ValueError(f"`brightness` must be in [0, 1], got {brightness}.")
        if not 0 <= grey <= 1:
            raise ValueError(f"`grey` must be a probability in [0, 1], got {grey}.")
        if not 0 <= noise <= 1:
            raise ValueError(f"`noise` must be in [0, 1], a fraction of 255, got {noise}.")
        if cutout < 0:
            raise ValueError(f"`cutout` must be 0 (off) or more pixels, got {cutout}.")
        self.crop = crop
        self.padding = padding
        self.flip = flip
        self.shift = shift
        self.rotate = rotate
        self.resize = resize
        self.brightness = brightness
        self.grey = grey
        self.noise = noise
        self.cutout = cutout
        self._on = [name for name in _STREAMS if getattr(self, name)]

    def draw(self, size: int, seed: int, epoch: int) -> Tensor:
        """Draw one epoch's numbers for a data set of `size` examples.

        Returns:
            Numbers in [0, 1): row, column and side of each example, then the columns of each further augmentation
            that is on. Of `rotate` they are the angle's cosine and sine. Shape (size, 3 or more).
        """
        window = torch.Generator().manual_seed(stream_seed(seed, "augment", epoch))
        # The alternating flip wants the same side in every epoch, so that one has no epoch in its seed.
        side = torch.Generator().manual_seed(stream_seed(seed, "augment")) if self.flip == "alternating" else window
        columns = [torch.rand(size, 2, generator=window), torch.rand(size, 1, generator=side)]
        for name in self._on:
            number, count = _STREAMS[name]
            generator = torch.Generator().manual_seed(stream_seed(seed, "augment", epoch, number))
            columns.append(torch.rand(size, count, generator=generator))
        if self.rotate:
            # Here and not in the batch: the last bit of a vectorised cosine depends on its place in the vector.
            place = 2 + self._on.index("rotate")
            angle = _symmetric(columns[place].double(), math.radians(self.rotate))
            columns[place] = torch.cat([angle.cos(), angle.sin()], dim=1).float()
        return torch.cat(columns, dim=1)

    def __call__(self, x: Tensor, draws: Tensor, epoch: int) -> Tensor:
        """Change a batch.

        Args:
            x: uint8 images. Shape (B, C, H, W).
            draws: These examples' rows of :meth:`draw`. Shape (B, 3 or more).
            epoch: Which epoch it is; the alternating flip turns with it.

        Returns:
            uint8 images. Shape (B, C, H, W).
        """
        height, width = x.shape[-2:]
        for name, pixels, most in (
            ("crop", self.crop, min(height, width)),
            ("shift", self.shift, min(height, width)),
            ("cutout", self.cutout, 2 * max(height, width)),
        ):
            if pixels >= most:
                raise ValueError(
                    f"`{name}` {pixels:g} can leave nothing of an image of {height} x {width}: it must be below {most}."
                )
        counts = [2 if name == "rotate" else _STREAMS[name][1] for name in self._on]
        own = dict(zip(self._on, torch.split(draws[:, 3:], counts, dim=1), strict=True)) if counts else {}
        x = x.permute(0, 2, 3, 1).contiguous()  # (B, H, W, C)
        if self.crop or self.flip != "none":
            x = self._cut(x, draws, epoch)
        if own.keys() & {"shift", "rotate", "resize"}:
            x = resample(
                x,
                shift=_symmetric(own["shift"], self.shift) if self.shift else None,
                turn=own.get("rotate"),
                scale=1 + _symmetric(own["resize"], self.resize) if self.resize else None,
            )
        if self.brightness:
            x = brighten(x, 1 + _symmetric(own["brightness"], self.brightness))
        if self.grey:
            x = turn_grey(x, own["grey"].squeeze(1) < self.grey)
        if self.noise:
            x = add_noise(x, own["noise"], self.noise)
        if self.cutout:
            x = cut_out(x, own["cutout"], self.cutout)
        return x.permute(0, 3, 1, 2)

    def _cut(self, x: Tensor, draws: Tensor, epoch: int) -> Tensor:
        size, height, width, channels = x.shape
        x = self._padded(x)  # (B or 2 B, H + 2 crop, W + 2 crop, C)
        rows, columns = x.shape[1:3]
        image = torch.arange(size, device=x.device)
        row, column = (draws[:, :2] * (2 * self.crop + 1)).long().unbind(1)
        if self.flip != "none":
            mirrored = (draws[:, 2] < 0.5) ^ (self.flip == "alternating" and epoch % 2 == 1)
            image = image + size * mirrored
            column = torch.where(mirrored, 2 * self.crop - column, column)
        # A row of a window is one run of bytes, which is copied in one go: far faster than pixel by pixel.
        first = (image * rows + row).mul_(columns).add_(column)  # (B,), of the window's first pixel
        below = torch.arange(0, height * columns, columns, device=x.device)
        runs = x.view(-1).unfold(0, width * channels, channels)  # one from every pixel; they overlap, no byte is copied
        return runs.index_select(0, (first.unsqueeze(1) + below).view(-1)).view(size, height, width, channels)

    def _padded(self, x: Tensor) -> Tensor:
        """Pad the images, and behind them their mirror images, if there is a flip."""
        n, (size, height, width, channels) = self.crop, x.shape
        padded = x.new_zeros(size * (1 if self.flip == "none" else 2), height + 2 * n, width + 2 * n, channels)
        inside = padded[:, n : n + height, n : n + width]
        inside[:size] = x
        if self.flip != "none":
            inside[size:] = x.flip(2)
        if self.padding == "reflect" and n:
            across = padded[:, n : n + height]  # columns first: the corners are reflected twice
            across[:, :, :n] = inside[:, :, 1 : n + 1].flip(2)
            across[:, :, n + width :] = inside[:, :, -n - 1 : -1].flip(2)
            padded[:, :n] = across[:, 1 : n + 1].flip(1)
            padded[:, n + height :] = across[:, -n - 1 : -1].flip(1)
        return padded


def _symmetric(draws: Tensor, limit: float) -> Tensor:
    """Numbers in [0, 1) to numbers in [-limit, limit)."""
    return (2 * draws - 1) * limit
