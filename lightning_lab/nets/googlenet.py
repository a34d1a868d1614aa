"""GoogLeNet, after Szegedy et al. (2015), with batch norm and in the size for CIFAR. No auxiliary heads."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_lab.nets.checks import check_choice, check_dropout, check_images, check_positive

# Table 1 of the paper: #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj of each module, in three stages.
_STAGES: tuple[tuple[tuple[str, tuple[int, int, int, int, int, int]], ...], ...] = (
    (("3a", (64, 96, 128, 16, 32, 32)), ("3b", (128, 128, 192, 32, 96, 64))),
    (
        ("4a", (192, 96, 208, 16, 48, 64)),
        ("4b", (160, 112, 224, 24, 64, 64)),
        ("4c", (128, 128, 256, 24, 64, 64)),
        ("4d", (112, 144, 288, 32, 64, 64)),
        ("4e", (256, 160, 320, 32, 128, 128)),
    ),
    (("5a", (256, 160, 320, 32, 128, 128)), ("5b", (384, 192, 384, 48, 128, 128))),
)
_STEM_CHANNELS = 192
_SMALLEST = 8  # edge of an image in pixels, of which the last stage sees a quarter
_EPSILON = 1e-3  # of batch norm, as the authors' later nets and torchvision's have it

FiveByFive = Literal["two_3x3", "one_5x5"]


class GoogLeNet(nn.Module):
    """A 3 x 3 convolution, nine inception modules in three stages, global average pooling, one dense layer.

    The modules are the paper's. Departures: the stem of an image of 224 pixels, which divides the edge by eight, is
    one convolution that keeps it; every convolution has batch norm (and no bias, as it would be subtracted); the two
    auxiliary heads are left out. Convolutions start Kaiming normal over the fan out, the dense layer as torch's.

    Torchvision's GoogLeNet has a single 3 x 3 convolution where the paper has 5 x 5, a known mistake that it keeps for
    its weights' sake. It is not repeated here: `five_by_five` chooses between the paper's kernel and two of 3 x 3 that
    see the same 5 x 5 pixels.

    Args:
        in_channels: Channels of an image, at least 1.
        num_classes: Number of outputs, at least 1.
        image_size: Height and width of an image in pixels, at least 8.
        five_by_five: The paper's 5 x 5 convolution: ``one_5x5``, or ``two_3x3`` in a row, each with batch norm and
            ReLU, which see as much (Szegedy et al. 2016; usual for CIFAR). At these widths the two have more weights:
            6.16 million in all against 5.87.
        dropout: Probability in [0, 1) of zeroing an input of the dense layer; the paper has 0.4. Not the probability of
            keeping: of a keep probability q it is 1 - q.

    Shape:
        - Input: (B, in_channels, image_size, image_size)
        - Output: (B, num_classes), the logits

    Raises:
        ValueError: If an argument is out of its range, or if an image of another shape arrives.

    Example:
        >>> import torch
        >>> GoogLeNet(image_size=16).eval()(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 10])

    Reference:
        Szegedy et al.: Going deeper with convolutions. CVPR 2015, arXiv:1409.4842.
        Szegedy et al.: Rethinking the Inception architecture for computer vision. CVPR 2016, arXiv:1512.00567.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 32,
        five_by_five: FiveByFive = "two_3x3",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_positive("in_channels", in_channels)
        check_positive("num_classes", num_classes)
        check_choice("five_by_five", five_by_five, ("two_3x3", "one_5x5"))
        check_dropout(dropout)
        if image_size < _SMALLEST:
            raise ValueError(f"`image_size` must be at least {_SMALLEST}, got {image_size}. Resize the images.")

        self.in_channels = in_channels
        self.num_classes = num_classes
        self.image_size = image_size
        self.input_shape = (in_channels, image_size, image_size)

        self.features = nn.Sequential()
        self.features.add_module("stem", _conv(in_channels, _STEM_CHANNELS, 3))
        width = _STEM_CHANNELS
        for stage, modules in enumerate(_STAGES, start=3):
            if stage > 3:
                # The last window may reach over the edge, so that the map is halved.
                self.features.add_module(f"pool{stage - 1}", nn.MaxPool2d(3, 2, ceil_mode=True))
            for name, channels in modules:
                module = Inception(width, channels, five_by_five)
                self.features.add_module(f"inception{name}", module)
                width = module.out_channels
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits of a batch of images."""
        check_images("GoogLeNet", x, self.input_shape)
        x = self.features(x)  # (B, 1024, image_size / 4, image_size / 4)
        x = self.avgpool(x).flatten(1)  # (B, 1024)
        logits: Tensor = self.fc(self.dropout(x))  # (B, num_classes)
        return logits


class Inception(nn.Module):
    """Four ways through a module, side by side: 1 x 1, 3 x 3, 5 x 5 and pooling, each with a 1 x 1 that narrows it.

    Args:
        in_channels: Channels of the input.
        channels: As a row of the paper's table 1 has them: #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj.
        five_by_five: As in :class:`GoogLeNet`.

    Shape:
        - Input: (B, in_channels, H, W)
        - Output: (B, out_channels, H, W)
    """

    def __init__(
        self, in_channels: int, channels: tuple[int, int, int, int, int, int], five_by_five: FiveByFive
    ) -> None:
        super().__init__()
        one, reduced_3, three, reduced_5, five, projected = channels
        self.out_channels = one + three + five + projected
        wide = [_conv(reduced_5, five, 5)] if five_by_five == "one_5x5" else [_conv(reduced_5, five, 3)]
        if five_by_five == "two_3x3":
            wide.append(_conv(five, five, 3))
        self.branch1 = _conv(in_channels, one, 1)
        self.branch2 = nn.Sequential(_conv(in_channels, reduced_3, 1), _conv(reduced_3, three, 3))
        self.branch3 = nn.Sequential(_conv(in_channels, reduced_5, 1), *wide)
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), _conv(in_channels, projected, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Go all four ways and put the maps behind one another."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


def _conv(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels, eps=_EPSILON),
        nn.ReLU(inplace=True),
    )
