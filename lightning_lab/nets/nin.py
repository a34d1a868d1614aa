"""Network in network, after Lin, Chen and Yan (2014), as its authors published it for CIFAR-10."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_lab.nets.checks import check_dropout, check_images, check_positive

# Kernel and output channels of the three convolutions of each block; the very last has the classes for channels.
_BLOCKS = (((5, 192), (1, 160), (1, 96)), ((5, 192), (1, 192), (1, 192)), ((3, 192), (1, 192)))
_SMALLEST = 8  # edge of an image in pixels, of which the last block sees a quarter


class NiN(nn.Module):
    """Three blocks of a convolution and two 1 x 1 convolutions, and a global average for each class.

    A 1 x 1 convolution is a dense layer at every pixel: a block is a small net that slides over the image. There is no
    dense layer at the end, the last block has one map for each class and its mean is the logit. Every convolution is
    followed by ReLU, but for the last: the authors' net has one there too, which leaves a class without gradient once
    its map is negative everywhere. Between the blocks stand 3 x 3 pooling at stride 2, maximum first and average then,
    and dropout. Weights start Kaiming normal over the fan in, biases at 0; the authors drew from a normal distribution
    of std 0.05.

    Args:
        in_channels: Channels of an image, at least 1.
        num_classes: Number of outputs, at least 1.
        image_size: Height and width of an image in pixels, at least 8.
        batch_norm: Normalise between each convolution and its ReLU, the last apart. The convolution then has no bias,
            as it would be subtracted. The paper has none.
        dropout: Probability in [0, 1) of zeroing a value of the maps between two blocks; the paper has 0.5. Not the
            probability of keeping: of a keep probability q it is 1 - q.

    Shape:
        - Input: (B, in_channels, image_size, image_size)
        - Output: (B, num_classes), the logits

    Raises:
        ValueError: If an argument is out of its range, or if an image of another shape arrives.

    Example:
        >>> import torch
        >>> NiN()(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> sum(p.numel() for p in NiN().parameters())
        966986

    Reference:
        Lin, Chen, Yan: Network in network. ICLR 2014, arXiv:1312.4400.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 32,
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_positive("in_channels", in_channels)
        check_positive("num_classes", num_classes)
        check_dropout(dropout)
        if image_size < _SMALLEST:
            raise ValueError(f"`image_size` must be at least {_SMALLEST}, got {image_size}. Resize the images.")

        self.in_channels = in_channels
        self.num_classes = num_classes
        self.image_size = image_size
        self.input_shape = (in_channels, image_size, image_size)

        layers: list[nn.Module] = []
        width = in_channels
        for block, convolutions in enumerate(_BLOCKS):
            if block > 0:
                # The last window may reach over the edge, so that the map is halved.
                pooling = nn.MaxPool2d if block == 1 else nn.AvgPool2d
                layers += [pooling(3, 2, ceil_mode=True), nn.Dropout(dropout)]
            for kernel_size, channels in convolutions:
                padding = kernel_size // 2
                layers.append(nn.Conv2d(width, channels, kernel_size, padding=padding, bias=not batch_norm))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(channels))
                layers.append(nn.ReLU(inplace=True))
                width = channels
        self.features = nn.Sequential(*layers, nn.Conv2d(width, num_classes, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits of a batch of images."""
        check_images("NiN", x, self.input_shape)
        x = self.features(x)  # (B, num_classes, image_size / 4, image_size / 4)
        logits: Tensor = self.avgpool(x).flatten(1)  # (B, num_classes)
        return logits
