"""NiN against the same net put together by hand, and against the published parameter count."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from lightning_lab.nets import NiN


def by_hand(classes: int = 10) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 192, 5, padding=2), nn.ReLU(), nn.Conv2d(192, 160, 1), nn.ReLU(), nn.Conv2d(160, 96, 1), nn.ReLU(),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        nn.Conv2d(96, 192, 5, padding=2), nn.ReLU(), nn.Conv2d(192, 192, 1), nn.ReLU(), nn.Conv2d(192, 192, 1),
        nn.ReLU(), nn.AvgPool2d(3, stride=2, ceil_mode=True),
        nn.Conv2d(192, 192, 3, padding=1), nn.ReLU(), nn.Conv2d(192, 192, 1), nn.ReLU(), nn.Conv2d(192, classes, 1),
        nn.AvgPool2d(8), nn.Flatten(),
    )  # fmt: skip


def with_batch_norm() -> nn.Sequential:
    layers: list[nn.Module] = []
    for layer, after in zip(by_hand(), [*by_hand()[1:], nn.Identity()], strict=True):
        if isinstance(layer, nn.Conv2d) and isinstance(after, nn.ReLU):
            kernel, channels = layer.kernel_size[0], layer.out_channels
            bare = nn.Conv2d(layer.in_channels, channels, kernel, padding=kernel // 2, bias=False)
            layers += [bare, nn.BatchNorm2d(channels)]
        else:
            layers.append(layer)
    return nn.Sequential(*layers)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_equals_the_net_put_together_by_hand(batch_norm: bool, training: bool) -> None:
    torch.manual_seed(0)
    ours = NiN(batch_norm=batch_norm).double()
    for value in ours.state_dict().values():
        if value.ndim == 1:
            value.uniform_(0.5, 1.5)
    theirs = (with_batch_norm() if batch_norm else by_hand()).double()
    values = ours.state_dict().values()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = theirs.train(training)(x)
    assert expected.std() > 1e-3
    torch.testing.assert_close(ours.train(training)(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({}, 966_986),  # the published net's
        ({"num_classes": 7}, 966_986 - 3 * 193),
        ({"in_channels": 1}, 966_986 - 2 * 25 * 192),
        ({"batch_norm": True}, 966_986 + 192 + 160 + 96 + 5 * 192),  # a scale and a shift for each bias
    ],
    ids=["published", "seven-classes", "grey", "batch-norm"],
)
def test_parameter_count(arguments: dict[str, Any], count: int) -> None:
    assert sum(parameter.numel() for parameter in NiN(**arguments).parameters()) == count


def test_first_weights_have_the_stated_spread() -> None:
    torch.manual_seed(0)
    convolutions = [layer for layer in NiN().modules() if isinstance(layer, nn.Conv2d)]
    expected = [math.sqrt(2 / (layer.kernel_size[0] ** 2 * layer.in_channels)) for layer in convolutions]
    assert [layer.weight.std().item() for layer in convolutions] == pytest.approx(expected, rel=0.05)
    assert not any(layer.bias.any() for layer in convolutions)


def test_dropout_acts_between_the_blocks_and_nowhere_else() -> None:
    torch.manual_seed(0)
    net = NiN(dropout=0.25)
    shares: list[float] = []
    for layer in net.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 1e-3)  # with a bias above 0 no ReLU gives a 0 by itself
            nn.init.ones_(layer.bias)
            layer.register_forward_pre_hook(lambda _, inputs: shares.append((inputs[0] == 0).float().mean().item()))
    net(torch.rand(4, 3, 32, 32) + 0.1)
    assert shares == pytest.approx([0, 0, 0, 0.25, 0, 0, 0.25, 0, 0], abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 7}, r"^`image_size` must be at least 8, got 7\. Resize the images\.$"),
        ({"in_channels": 0}, r"^`in_channels` must be at least 1, got 0\.$"),
        ({"num_classes": 0}, r"^`num_classes` must be at least 1, got 0\.$"),
        ({"dropout": 1.0}, r"^`dropout` must be in \[0, 1\), got 1\.0\. It is the share of values set to zero"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NiN(**arguments)
