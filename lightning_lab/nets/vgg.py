"""VGG, after Simonyan and Zisserman (2015), for small images. Not torchvision's net, but its weights fit."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_lab.nets.checks import check_choice, check_dropout, check_images, check_positive
from lightning_lab.nets.small_map import SmallMapConv2d

# Columns A, B, D and E of table 1 of the paper: the depth counts these convolutions and three dense layers.
_CONVS_PER_STAGE = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_STAGE_CHANNELS = (64, 128, 256, 512, 512)
_WIDE_UNITS = 4096
_REDUCTION = 2 ** len(_STAGE_CHANNELS)  # each stage halves the edge of the image


class VGG(nn.Module):
    """Stages of 3 x 3 convolutions, each closed by maximum pooling, and a dense head.

    Departures from the paper: batch norm, a compact head, no dropout unless asked for. The names and shapes are
    torchvision's: ``features`` takes its weights of the same depth, and with ``head="wide"`` and ``image_size=224`` the
    whole net does. For that the convolutions keep their bias ahead of batch norm, where it has no effect. Weights start
    as torchvision's do: convolutions Kaiming normal over the fan out, dense layers normal with std 0.01, biases 0.

    Args:
        depth: Number of layers with weights in the paper's net. The compact head has two fewer.
        in_channels: Channels of an image, at least 1.
        num_classes: Number of outputs, at least 1.
        image_size: Height and width of an image in pixels, a multiple of 32.
        batch_norm: Normalise between each convolution and its ReLU.
        dropout: Probability in [0, 1) of zeroing an input of the last dense layer, and with the wide head of the one
            before it. The convolutions have none. Not the probability of keeping: of a keep probability q it is
            1 - q.
        head: ``compact`` is one dense layer, 512 to the classes; ``wide`` is the paper's, two hidden layers of 4096.
        average_pool: Average the last feature map to 1 x 1. The compact head needs it for images above 32 pixels; at 32
            pixels the map is 1 x 1 already and nothing changes.

    Shape:
        - Input: (B, in_channels, image_size, image_size)
        - Output: (B, num_classes), the logits

    Raises:
        ValueError: If an argument is out of its range, if the compact head meets a feature map above 1 x 1, or if an
            image of another shape arrives.

    Example:
        >>> import torch
        >>> VGG(depth=11).eval()(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])

    Reference:
        Simonyan, Zisserman: Very deep convolutional networks for large-scale image recognition. ICLR 2015,
        arXiv:1409.1556.
    """

    def __init__(
        self,
        *,
        depth: Literal[11, 13, 16, 19] = 11,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 32,
        batch_norm: bool = True,
        dropout: float = 0.0,
        head: Literal["compact", "wide"] = "compact",
        average_pool: bool = False,
    ) -> None:
        super().__init__()
        if depth not in _CONVS_PER_STAGE:
            raise ValueError(f"`depth` must be one of 11, 13, 16 and 19, got {depth}.")
        check_positive("in_channels", in_channels)
        check_positive("num_classes", num_classes)
        check_choice("head", head, ("compact", "wide"))
        check_dropout(dropout)
        if image_size < 1 or image_size % _REDUCTION:
            raise ValueError(
                f"`image_size` must be a multiple of {_REDUCTION}, got {image_size}. Resize the images, "
                "or take a LeNet5 for 16 to 32 pixels."
            )
        if head == "compact" and image_size > _REDUCTION and not average_pool:
            raise ValueError(
                f"`average_pool` must be true for the compact head above {_REDUCTION} pixels, got false with "
                f"`image_size` {image_size}. Set it, or take `head` wide."
            )

        self.in_channels = in_channels
        self.num_classes = num_classes
        self.image_size = image_size
        self.input_shape = (in_channels, image_size, image_size)

        layers: list[nn.Module] = []
        channels = in_channels
        for num_convs, stage_channels in zip(_CONVS_PER_STAGE[depth], _STAGE_CHANNELS, strict=True):
            for _ in range(num_convs):
                layers.append(SmallMapConv2d(channels, stage_channels))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(stage_channels))
                layers.append(nn.ReLU(inplace=True))
                channels = stage_channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1) if average_pool else nn.Identity()

        width = channels if average_pool else channels * (image_size // _REDUCTION) ** 2
        dense: list[nn.Module] = [nn.Dropout(dropout)]
        if head == "wide":
            dense = [nn.Linear(width, _WIDE_UNITS), nn.ReLU(inplace=True), nn.Dropout(dropout)]
            dense += [nn.Linear(_WIDE_UNITS, _WIDE_UNITS), nn.ReLU(inplace=True), nn.Dropout(dropout)]
            width = _WIDE_UNITS
        self.classifier = nn.Sequential(*dense, nn.Linear(width, num_classes))
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits of a batch of images."""
        check_images("VGG", x, self.input_shape)
        x = self.features(x)  # (B, 512, image_size / 32, image_size / 32)
        x = self.avgpool(x)  # (B, 512, 1, 1) if averaged
        x = x.flatten(1)  # (B, 512), or (B, 512 * (image_size / 32)^2)
        logits: Tensor = self.classifier(x)  # (B, num_classes)
        return logits


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    """Draw the first weights of one layer; batch norm keeps torch's scale 1 and shift 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
