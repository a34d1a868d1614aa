"""A plain convolutional net for small images: any number of convolutions, then dense layers. No published net."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from lightning_lab.nets.activation import ACTIVATIONS, Activation
from lightning_lab.nets.checks import check_choice, check_dropout, check_images, check_positive
from lightning_lab.nets.flatten import flatten

_POOLINGS = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}
_SMALLEST, _LARGEST = 8, 64  # edge of an image in pixels


class ConvNet(nn.Module):
    """Convolutions of one kernel size, stride and padding, pooling between them, and dense layers behind them.

    A block is convolution, batch norm if asked for, activation, and 2 x 2 pooling behind every `pool_every`-th of
    them. It shows what a convolution does in the place of a dense layer: a map of edge H becomes one of edge
    (H + 2 `padding` - `kernel_size`) // `stride` + 1, with in x out x `kernel_size`^2 weights whatever H is. Weights
    and biases start as torch's do, uniform within 1 / sqrt(fan in).

    Args:
        in_channels: Channels of an image, at least 1.
        num_classes: Number of outputs, at least 1.
        image_size: Height and width of an image in pixels, 8 to 64.
        channels: Output channels of the convolutions, one or more of them, each at least 1.
        kernel_size: Edge of the kernels in pixels, at least 1.
        stride: Step of the kernels in pixels, at least 1.
        padding: Zeros on each side of a convolution's input, in pixels, 0 or more. (`kernel_size` - 1) / 2 keeps the
            size of a map at stride 1.
        activation: Activation after each convolution and each hidden dense layer.
        pooling: Maximum or average over 2 x 2 pixels, or none. An odd last row or column is dropped.
        pool_every: Pool behind every so many convolutions, at least 1: with 2, behind the second, the fourth and so
            on. Without effect where `pooling` is none.
        batch_norm: Normalise ahead of every activation. The layer in front then has no bias, as it would be subtracted.
        dropout: Probability in [0, 1) of zeroing an input of a dense layer, of each of them, that is after batch norm
            and activation. The convolutions have none. Not the probability of keeping: of a keep probability q it is
            1 - q.
        hidden: Widths of the hidden dense layers, each at least 1. Empty joins the last map to the outputs.

    Shape:
        - Input: (B, in_channels, image_size, image_size)
        - Output: (B, num_classes), the logits

    Raises:
        ValueError: If an argument is out of its range, if convolutions and pooling leave nothing of the image, or if an
            image of another shape arrives.

    Example:
        >>> import torch
        >>> ConvNet()(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 10])
        >>> sum(p.numel() for p in ConvNet(channels=(8,), kernel_size=5, padding=2, hidden=()).features.parameters())
        208
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int = 16,
        channels: tuple[int, ...] = (32, 64, 128),
        kernel_size: int = 3,
        stride: int = 1,
        padding: int = 1,
        activation: Activation = "relu",
        pooling: Literal["max", "avg", "none"] = "max",
        pool_every: int = 1,
        batch_norm: bool = False,
        dropout: float = 0.0,
        hidden: tuple[int, ...] = (128,),
    ) -> None:
        super().__init__()
        check_positive("in_channels", in_channels)
        check_positive("num_classes", num_classes)
        check_positive("channels", channels)
        check_positive("kernel_size", kernel_size)
        check_positive("stride", stride)
        check_positive("pool_every", pool_every)
        check_positive("hidden", hidden)
        check_choice("activation", activation, ACTIVATIONS)
        check_choice("pooling", pooling, (*_POOLINGS, "none"))
        check_dropout(dropout)
        if not channels:
            raise ValueError("`channels` must have at least 1 entry, got none. For a net without convolution take MLP.")
        if padding < 0:
            raise ValueError(f"`padding` must be 0 or more pixels, got {padding}.")
        if not _SMALLEST <= image_size <= _LARGEST:
            raise ValueError(
                f"`image_size` must be in {_SMALLEST}..{_LARGEST}, got {image_size}. Resize the images, or take a VGG."
            )

        self.in_channels = in_channels
        self.num_classes = num_classes
        self.image_size = image_size
        self.input_shape = (in_channels, image_size, image_size)

        blocks: list[nn.Module] = []
        width, size = in_channels, image_size
        for number, out_channels in enumerate(channels, start=1):
            blocks.append(nn.Conv2d(width, out_channels, kernel_size, stride, padding, bias=not batch_norm))
            if batch_norm:
                blocks.append(nn.BatchNorm2d(out_channels))
            blocks.append(ACTIVATIONS[activation]())
            before, size = size, (size + 2 * padding - kernel_size) // stride + 1
            if pooling != "none" and number % pool_every == 0:
                blocks.append(_POOLINGS[pooling](2))
                size //= 2
            if size < 1:
                raise ValueError(
                    f"`channels` must be few enough to leave a pixel of the image, got {tuple(channels)}: convolution "
                    f"{number} meets a map of {before} x {before} and leaves nothing. Take fewer convolutions, a "
                    "smaller `kernel_size` or `stride`, more `padding`, or less pooling."
                )
            width = out_channels
        self.features = nn.Sequential(*blocks)

        dense: list[nn.Module] = []
        width *= size**2
        for units in hidden:
            dense += [nn.Dropout(dropout), nn.Linear(width, units, bias=not batch_norm)]
            if batch_norm:
                dense.append(nn.BatchNorm1d(units))
            dense.append(ACTIVATIONS[activation]())
            width = units
        self.classifier = nn.Sequential(*dense, nn.Dropout(dropout), nn.Linear(width, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits of a batch of images."""
        check_images("ConvNet", x, self.input_shape)
        x = self.features(x)  # (B, channels[-1], S, S), S = 2 for 16 pixels and the default
        x = flatten(x)  # (B, channels[-1] * S * S)
        logits: Tensor = self.classifier(x)  # (B, num_classes)
        return logits
