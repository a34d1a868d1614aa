"""Residual nets of basic blocks, after He et al. (2016), in the size for CIFAR. Not the net of 224 pixels."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from lightning_lab.nets.checks import check_choice, check_images, check_positive

# Channels and blocks of the stages. 18 is table 1 of the paper; the others are section 4.2, of depth 6 n + 2.
_NARROW = (16, 32, 64)
_STAGES: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {
    18: ((64, 128, 256, 512), (2, 2, 2, 2)),
    **{6 * n + 2: (_NARROW, (n, n, n)) for n in (3, 5, 7, 9, 18)},
}
_SMALLEST = 8  # edge of an image in pixels, which the deepest stage sees as one


class ResNet(nn.Module):
    """Stages of two-convolution blocks whose input is added to their output, global average pooling, one dense layer.

    The first convolution is 3 x 3 at stride 1 without pooling behind it, also at depth 18, where the paper's net for
    224 pixels has 7 x 7 at stride 2: small images would be gone before the first block. Names and shapes are
    torchvision's, so ``ResNet(depth=18)`` takes its weights but for the first convolution. Weights start as
    torchvision's do: convolutions Kaiming normal over the fan out, without bias; batch norm 1 and 0; the dense layer
    as torch's.

    Args:
        depth: Number of layers with weights. 18 has stages of 64, 128, 256 and 512 channels (11.2 million weights);
            20, 32, 44, 56 and 110 have 16, 32 and 64 (0.27 million at depth 20, 1.7 million at 110).
        in_channels: Channels of an image, at least 1.
        num_classes: Number of outputs, at least 1.
        image_size: Height and width of an image in pixels, at least 8.
        shortcut: What carries the input past a block that halves the map and widens it: ``projection`` is a 1 x 1
            convolution with batch norm (the paper's option B), ``pad`` every second pixel, with zeros for the further
            channels and no weights (option A, the paper's for CIFAR-10).

    Shape:
        - Input: (B, in_channels, image_size, image_size)
        - Output: (B, num_classes), the logits

    Raises:
        ValueError: If an argument is out of its range, or if an image of another shape arrives.

    Example:
        >>> import torch
        >>> ResNet(depth=20).eval()(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> sum(p.numel() for p in ResNet(depth=20, shortcut="pad").parameters())
        269722

    Reference:
        He, Zhang, Ren, Sun: Deep residual learning for image recognition. CVPR 2016, arXiv:1512.03385.
    """

    def __init__(
        self,
        *,
        depth: Literal[18, 20, 32, 44, 56, 110] = 18,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 32,
        shortcut: Literal["projection", "pad"] = "projection",
    ) -> None:
        super().__init__()
        if depth not in _STAGES:
            raise ValueError(f"`depth` must be one of 18, 20, 32, 44, 56 and 110, got {depth}.")
        check_positive("in_channels", in_channels)
        check_positive("num_classes", num_classes)
        check_choice("shortcut", shortcut, ("projection", "pad"))
        if image_size < _SMALLEST:
            raise ValueError(f"`image_size` must be at least {_SMALLEST}, got {image_size}. Resize the images.")

        self.in_channels = in_channels
        self.num_classes = num_classes
        self.image_size = image_size
        self.input_shape = (in_channels, image_size, image_size)

        stage_channels, stage_blocks = _STAGES[depth]
        width = stage_channels[0]
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        stages: list[nn.Module] = []
        for channels, num_blocks in zip(stage_channels, stage_blocks, strict=True):
            blocks = [_BasicBlock(width, channels, 2 if stages else 1, shortcut)]
            blocks += [_BasicBlock(channels, channels, 1, shortcut) for _ in range(num_blocks - 1)]
            stages.append(nn.Sequential(*blocks))
            width = channels
        self.layer1, self.layer2, self.layer3 = stages[:3]
        self.layer4 = stages[3] if len(stages) > 3 else nn.Identity()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits of a batch of images."""
        check_images("ResNet", x, self.input_shape)
        x = self.relu(self.bn1(self.conv1(x)))  # (B, 64 or 16, image_size, image_size)
        x = self.layer2(self.layer1(x))  # (B, 128 or 32, S / 2, S / 2), S = image_size, halves rounded up
        x = self.layer4(self.layer3(x))  # (B, 512, S / 8, S / 8), or (B, 64, S / 4, S / 4)
        x = self.avgpool(x).flatten(1)  # (B, 512 or 64)
        logits: Tensor = self.fc(x)  # (B, num_classes)
        return logits


class _BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm, and what goes past them."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, shortcut: Literal["projection", "pad"]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 and shortcut == "pad":
            self.downsample = _PadShortcut(out_channels - in_channels, stride)
        elif stride > 1:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        y: Tensor = self.relu(residual + self.downsample(x))
        return y


class _PadShortcut(nn.Module):
    """Take every `stride`-th pixel and append channels of zeros."""

    def __init__(self, more_channels: int, stride: int) -> None:
        super().__init__()
        self.more_channels = more_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.more_channels))
