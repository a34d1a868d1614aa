"""The whitening layer against its definition, the identity at the start, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_lab.nets import SpeedNet


def images(count: int = 200, size: int = 20, channels: int = 3) -> Tensor:
    """Smooth random pictures: neighbouring pixels and channels go together, as in photographs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, channels, size, size, generator=generator)
    x = nn.functional.avg_pool2d(x, 3, stride=1, padding=1)
    return x + x.mean(1, keepdim=True) + 0.05 * torch.randn(x.shape, generator=generator)


@pytest.mark.parametrize("channels", [1, 3])
def test_whitened_patches_have_the_identity_as_covariance(channels: int) -> None:
    net = SpeedNet(in_channels=channels, image_size=20)
    x = images(channels=channels)
    net.whiten(x)
    half = 4 * channels
    with torch.no_grad():
        out = net.whitening(x)[:, :half].permute(0, 2, 3, 1).reshape(-1, half).double()
    second_moments = out.T @ out / len(out)
    # A direction of variance v keeps v / (v + epsilon) of it.
    torch.testing.assert_close(second_moments, torch.eye(half, dtype=torch.float64), atol=0.05, rtol=0)
    assert (second_moments - torch.diag(second_moments.diag())).abs().max() < 1e-4


def test_filters_are_those_of_numpys_eigenvectors() -> None:
    x = images(50)
    net = SpeedNet(image_size=20)
    net.whiten(x)
    pixels = x.numpy().astype(np.float64)
    patches = [
        pixels[n, :, i : i + 2, j : j + 2].ravel() for n in range(50) for i in range(19) for j in range(19)
    ]  # fmt: skip
    covariance = np.mean([np.outer(p, p) for p in patches], axis=0)
    variances, vectors = np.linalg.eigh(covariance)
    found = net.whitening.weight[:12].reshape(12, 12).double().numpy()
    for filter_, variance, vector in zip(found, variances[::-1], vectors.T[::-1], strict=True):
        vector = vector * np.sign(vector[np.abs(vector).argmax()])
        np.testing.assert_allclose(filter_, vector / np.sqrt(variance + 5e-4), rtol=1e-4, atol=1e-4)


def test_the_second_half_of_the_filters_are_the_negatives_of_the_first() -> None:
    net = SpeedNet(image_size=20)
    net.whiten(images(20))
    assert torch.equal(net.whitening.weight[12:], -net.whitening.weight[:12])


def test_whitening_is_not_trained_and_gets_no_gradient() -> None:
    net = SpeedNet(image_size=20, channels=(8, 8, 8))
    net(images(4)).sum().backward()
    assert not net.whitening.weight.requires_grad
    assert net.whitening.weight.grad is None


@pytest.mark.parametrize("channels", [(8, 8, 8), (30, 24, 40), (64, 256, 256)])
def test_a_convolution_starts_as_the_identity_on_its_first_channels(channels: Any) -> None:
    net = SpeedNet(image_size=20, channels=channels)
    convs = [module for module in net.blocks if isinstance(module, nn.Conv2d)]
    assert len(convs) == 6
    shared = [min(conv.in_channels, conv.out_channels) for conv in convs]
    x = [torch.randn(2, conv.in_channels, 5, 5) for conv in convs]
    outputs = [conv(one) for conv, one in zip(convs, x, strict=True)]
    same = [torch.equal(out[:, :n], one[:, :n]) for out, one, n in zip(outputs, x, shared, strict=True)]
    assert same == [True] * 6


def test_parameters_are_as_many_as_counted_by_hand() -> None:
    # Six convolutions of 3 x 3, a shift behind each, a head of 256 x 10.
    expected = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256) + 2 * (64 + 256 + 256) + 2560
    trained = sum(p.numel() for p in SpeedNet().parameters() if p.requires_grad)
    assert trained == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 17}, "`image_size` must be at least 18, got 17."),
        ({"scale": 0.0}, "`scale` must be above 0, got 0.0."),
        ({"channels": (8, 0, 8)}, "`channels[1]` must be at least 1, got 0."),
        ({"num_classes": 0}, "`num_classes` must be at least 1, got 0."),
        ({"in_channels": 0}, "`in_channels` must be at least 1, got 0."),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        SpeedNet(**arguments)


@pytest.mark.parametrize("edge", [18, 24, 32, 40])
def test_images_of_other_sizes_are_taken(edge: int) -> None:
    net = SpeedNet(channels=(4, 4, 4)).eval()
    x = images(2, size=edge)
    assert net(x).shape == (2, 10)


@pytest.mark.parametrize("shape", [(2, 3, 17, 17), (2, 1, 32, 32), (2, 3, 20, 24), (3, 32, 32)])
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="SpeedNet"):
        SpeedNet(channels=(4, 4, 4))(torch.zeros(shape))
