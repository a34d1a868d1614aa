"""A net for CIFAR-10 that learns in few epochs, after Jordan (2024). Not a copy: whitening without bias, any width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_lab.nets.checks import check_images, check_positive

_PATCH = 2  # edge of the patches that the first layer whitens, in pixels
_SMALLEST = 18  # edge of an image in pixels: 17 behind the whitening, then 8, 4 and 2
_MOMENTUM = 0.4  # of batch norm: a run of some hundred steps has no time for torch's 0.1
_EPSILON = 5e-4  # keeps the directions of smallest variance from being blown up


class SpeedNet(nn.Module):
    """Whitening, three blocks of two convolutions, one dense layer.

    The first layer projects patches of 2 x 2 pixels onto the directions in which natural images vary, each scaled to
    unit variance, and their negatives. It is computed from training images by :meth:`whiten` and not trained, so no
    gradient has to be carried to it. A block is convolution, 2 x 2 maximum pooling, batch norm, GELU, convolution,
    batch norm, GELU; batch norm has a shift and no scale. The first filters of each convolution start as the identity
    on its inputs, so the net is open from the first step.

    Args:
        in_channels: Channels of an image, at least 1.
        num_classes: Number of outputs, at least 1.
        image_size: Height and width of an image in pixels, at least 18.
        channels: Output channels of the three blocks, each at least 1.
        scale: Factor on the logits, above 0. Small logits leave the gradient open for long.

    Shape:
        - Input: (B, in_channels, image_size, image_size), or any other edge of at least 18 pixels
        - Output: (B, num_classes), the logits

    Raises:
        ValueError: If an argument is out of its range, or if an image of another shape arrives.

    Example:
        >>> import torch
        >>> net = SpeedNet()
        >>> images = torch.rand(50, 3, 32, 32)
        >>> net.whiten(images)
        >>> net(images).shape
        torch.Size([50, 10])

    Reference:
        K. Jordan: 94% on CIFAR-10 in 3.29 seconds on a single GPU. arXiv:2404.00498, 2024.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 32,
        channels: tuple[int, int, int] = (64, 256, 256),
        scale: float = 1 / 9,
    ) -> None:
        super().__init__()
        check_positive("in_channels", in_channels)
        check_positive("num_classes", num_classes)
        check_positive("channels", channels, 3)
        if image_size < _SMALLEST:
            raise ValueError(
                f"`image_size` must be at least {_SMALLEST}, got {image_size}. Resize the images, or take LeNet5."
            )
        if not scale > 0:
            raise ValueError(f"`scale` must be above 0, got {scale}.")
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.image_size = image_size
        self.input_shape = (in_channels, image_size, image_size)
        self.scale = scale

        directions = in_channels * _PATCH**2
        self.whitening = nn.Conv2d(in_channels, 2 * directions, _PATCH, bias=False).requires_grad_(False)
        blocks: list[nn.Module] = [nn.GELU()]
        width = 2 * directions
        for out_channels in channels:
            blocks += [_conv(width, out_channels), nn.MaxPool2d(2), _norm(out_channels), nn.GELU()]
            blocks += [_conv(out_channels, out_channels), _norm(out_channels), nn.GELU()]
            width = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.head = nn.Linear(width, num_classes, bias=False)

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Set the first layer from training images.

        Args:
            images: As the net will see them, thousands of them. Shape (N, in_channels, image_size, image_size).
        """
        directions = self.in_channels * _PATCH**2
        # On the CPU in fp64: eigenvectors of nearly equal eigenvalues turn with the last bits.
        patches = images.double().cpu().unfold(2, _PATCH, 1).unfold(3, _PATCH, 1)  # (N, C, H-1, W-1, 2, 2)
        patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, directions)
        covariance = patches.T @ patches / len(patches)
        variances, vectors = torch.linalg.eigh(covariance)  # ascending
        # The sign of an eigenvector is arbitrary: its largest component is made positive.
        largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))  # (1, directions)
        filters = (vectors * largest.sign() / (variances + _EPSILON).sqrt()).T.flip(0)
        filters = filters.reshape(directions, self.in_channels, _PATCH, _PATCH)
        self.whitening.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits of a batch of images."""
        edge = x.shape[-1] if x.ndim == 4 and x.shape[-1] >= _SMALLEST else self.image_size
        check_images("SpeedNet", x, (self.in_channels, edge, edge))
        x = self.whitening(x)  # (B, 24, 31, 31) for 32 pixels
        x = self.blocks(x)  # (B, channels[2], 3, 3)
        x = self.pool(x).flatten(1)  # (B, channels[2])
        logits: Tensor = self.head(x) * self.scale  # (B, num_classes)
        return logits


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    shared = min(in_channels, out_channels)
    nn.init.dirac_(conv.weight[:shared].detach())
    return conv


def _norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=_MOMENTUM)
    norm.weight.requires_grad_(False)
    return norm
