"""LeNet-5, after LeCun et al. (1998), with the parts that the labs vary. Not the original's RBF output layer."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from lightning_lab.nets.activation import ACTIVATIONS, Activation
from lightning_lab.nets.checks import check_choice, check_dropout, check_images, check_positive
from lightning_lab.nets.drop_connect import dense
from lightning_lab.nets.flatten import flatten

_POOLINGS = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}


class LeNet5(nn.Module):
    """Two convolutions and up to three dense layers for small images.

    A block is convolution (no padding), batch norm if asked for, activation, 2 x 2 pooling. Departures from the paper:
    ReLU instead of a scaled tanh, pooling without weights, a full second convolution, a linear output layer.
    The classic net is the default at ``image_size=32``; the wide one of the labs has ``channels=(16, 36)``,
    ``kernel_sizes=(5, 3)`` and ``hidden=(128, 96)``.

    Args:
        in_channels: Channels of an image, at least 1.
        num_classes: Number of outputs, at least 1.
        image_size: Height and width of an image in pixels, 16 to 32.
        channels: Output channels of the two convolutions, each at least 1.
        kernel_sizes: Edge of the two kernels in pixels, each at least 1 and small enough to leave a pixel.
        activation: Activation after each convolution and each hidden dense layer.
        pooling: Average or maximum over 2 x 2 pixels. An odd last row or column is dropped.
        batch_norm: Normalise ahead of every activation. The layer in front then has no bias, as it would be subtracted.
        dropout: Probability in [0, 1) of zeroing an input of a dense layer, of each of them, that is after batch norm
            and activation. The convolutions have none. Not the probability of keeping: of a keep probability q it is
            1 - q.
        drop_connect: Probability in [0, 1) of zeroing a weight of a hidden dense layer, drawn anew in each training
            step. The output layer, the biases and the convolutions keep all of theirs.
        hidden: Widths of the hidden dense layers: two of them (three dense layers in all), or one.

    Shape:
        - Input: (B, in_channels, image_size, image_size)
        - Output: (B, num_classes), the logits

    Raises:
        ValueError: If an argument is out of its range, if the kernels leave nothing of the image, or if an image of
            another shape arrives.

    Example:
        >>> import torch
        >>> LeNet5()(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 10])
        >>> sum(p.numel() for p in LeNet5(in_channels=3, image_size=32).parameters())
        62006

    Reference:
        LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition.
        Proceedings of the IEEE 86 (11), 1998.
        Wan, Zeiler, Zhang, LeCun, Fergus: Regularization of neural networks using DropConnect. ICML 2013.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int = 16,
        channels: tuple[int, int] = (6, 16),
        kernel_sizes: tuple[int, int] = (5, 5),
        activation: Activation = "relu",
        pooling: Literal["avg", "max"] = "avg",
        batch_norm: bool = False,
        dropout: float = 0.0,
        drop_connect: float = 0.0,
        hidden: tuple[int, ...] = (120, 84),
    ) -> None:
        super().__init__()
        check_positive("in_channels", in_channels)
        check_positive("num_classes", num_classes)
        check_positive("channels", channels, 2)
        check_positive("kernel_sizes", kernel_sizes, 2)
        check_positive("hidden", hidden)
        check_choice("activation", activation, ACTIVATIONS)
        check_choice("pooling", pooling, _POOLINGS)
        check_dropout(dropout)
        check_dropout(drop_connect, "drop_connect")
        if not 16 <= image_size <= 32:
            raise ValueError(f"`image_size` must be in 16..32, got {image_size}. Resize the images, or take a VGG.")
        if len(hidden) not in (1, 2):
            raise ValueError(f"`hidden` must have 1 or 2 entries, got {len(hidden)}. For another depth take an MLP.")
        map_size = _map_size(image_size, kernel_sizes)

        self.in_channels = in_channels
        self.num_classes = num_classes
        self.image_size = image_size
        self.input_shape = (in_channels, image_size, image_size)

        blocks: list[nn.Module] = []
        width = in_channels
        for out_channels, kernel_size in zip(channels, kernel_sizes, strict=True):
            blocks.append(nn.Conv2d(width, out_channels, kernel_size, bias=not batch_norm))
            if batch_norm:
                blocks.append(nn.BatchNorm2d(out_channels))
            blocks += [ACTIVATIONS[activation](), _POOLINGS[pooling](2)]
            width = out_channels
        self.features = nn.Sequential(*blocks)

        head: list[nn.Module] = []
        width *= map_size**2
        for units in hidden:
            head += [nn.Dropout(dropout), dense(width, units, drop_connect=drop_connect, bias=not batch_norm)]
            if batch_norm:
                head.append(nn.BatchNorm1d(units))
            head.append(ACTIVATIONS[activation]())
            width = units
        self.classifier = nn.Sequential(*head, nn.Dropout(dropout), nn.Linear(width, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits of a batch of images."""
        check_images("LeNet5", x, self.input_shape)
        x = self.features(x)  # (B, channels[1], S, S), S = 5 for 32 pixels and 5 x 5 kernels
        x = flatten(x)  # (B, channels[1] * S * S)
        logits: Tensor = self.classifier(x)  # (B, num_classes)
        return logits


def _map_size(image_size: int, kernel_sizes: tuple[int, int]) -> int:
    """Follow the edge of the image through both blocks and refuse kernels that leave nothing of it."""
    size = image_size
    for kernel_size in kernel_sizes:
        size = (size - kernel_size + 1) // 2
        if size < 1:
            raise ValueError(
                f"`kernel_sizes` must leave a pixel of the image, got {tuple(kernel_sizes)} for {image_size} x "
                f"{image_size} pixels. Choose smaller kernels or a larger `image_size`."
            )
    return size
