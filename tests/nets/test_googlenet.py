"""GoogLeNet against torchvision's inception modules with the same weights, and against the published counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.googlenet import BasicConv2d
from torchvision.models.googlenet import Inception as Oracle

from lightning_lab.nets import GoogLeNet
from lightning_lab.nets.googlenet import Inception

# Channels into each module and out of it, of the paper's table 1.
WIDTHS = {
    "3a": (192, 256),
    "3b": (256, 480),
    "4a": (480, 512),
    "4b": (512, 512),
    "4c": (512, 512),
    "4d": (512, 528),
    "4e": (528, 832),
    "5a": (832, 832),
    "5b": (832, 1024),
}
# As torchvision's googlenet calls its modules: into, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, projection.
ROWS = (
    (192, 64, 96, 128, 16, 32, 32), (256, 128, 128, 192, 32, 96, 64), (480, 192, 96, 208, 16, 48, 64),
    (512, 160, 112, 224, 24, 64, 64), (512, 128, 128, 256, 24, 64, 64), (512, 112, 144, 288, 32, 64, 64),
    (528, 256, 160, 320, 32, 128, 128), (832, 256, 160, 320, 32, 128, 128), (832, 384, 192, 384, 48, 128, 128),
)  # fmt: skip
PUBLISHED = 6_166_250  # of the usual port for CIFAR-10: two 3 x 3, and a bias at each convolution
both_ways = pytest.mark.parametrize("five_by_five", ["two_3x3", "one_5x5"])


def oracle(row: tuple[int, ...], five_by_five: str) -> Oracle:
    """Torchvision's module, with its single 3 x 3 in the place of 5 x 5 put right."""
    module = Oracle(*row)
    if five_by_five == "one_5x5":
        module.branch3[1] = BasicConv2d(row[4], row[5], kernel_size=5, padding=2)
    else:
        module.branch3.append(BasicConv2d(row[5], row[5], kernel_size=3, padding=1))
    return module


def assert_equal_with_the_same_weights(ours: nn.Module, theirs: nn.Module, x: torch.Tensor, training: bool) -> None:
    for value in ours.state_dict().values():
        if value.ndim == 1:
            value.uniform_(0.5, 1.5)
    values = ours.state_dict().values()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
    expected = theirs.train(training)(x)
    assert expected.std() > 1e-3
    torch.testing.assert_close(ours.train(training)(x), expected, rtol=1e-8, atol=1e-8)


@both_ways
@pytest.mark.parametrize("row", ROWS, ids=list(WIDTHS))
def test_module_equals_torchvisions_put_right(row: tuple[int, ...], five_by_five: Any) -> None:
    torch.manual_seed(0)
    ours = Inception(row[0], row[1:], five_by_five).double()  # type: ignore[arg-type]
    x = torch.randn(2, row[0], 6, 6, dtype=torch.float64)
    assert_equal_with_the_same_weights(ours, oracle(row, five_by_five).double(), x, training=False)


@both_ways
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_net_equals_one_of_torchvisions_modules(five_by_five: Any, training: bool) -> None:
    torch.manual_seed(0)
    ours = GoogLeNet(five_by_five=five_by_five, image_size=16).double()
    modules = [oracle(row, five_by_five) for row in ROWS]
    pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
    theirs = nn.Sequential(
        BasicConv2d(3, 192, kernel_size=3, padding=1), *modules[:2], pool, *modules[2:7], pool, *modules[7:],
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 10),
    ).double()  # fmt: skip
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert_equal_with_the_same_weights(ours, theirs, x, training)


def test_widths_are_the_papers() -> None:
    with torch.device("meta"):
        net = GoogLeNet()
    modules = {name: layer for name, layer in net.features.named_children() if isinstance(layer, Inception)}
    widths = {
        name.removeprefix("inception"): (module.branch1[0].in_channels, module.out_channels)
        for name, module in modules.items()
    }
    assert widths == WIDTHS


@pytest.mark.parametrize(
    ("arguments", "difference"),
    [
        ({}, 0),
        ({"num_classes": 7}, -3 * 1025),
        ({"in_channels": 1}, -2 * 9 * 192),
        # 25 weights for each pair of channels instead of 9, and neither the second 3 x 3 nor its batch norm
        ({"five_by_five": "one_5x5"}, sum(16 * row[4] * row[5] - 9 * row[5] ** 2 - 2 * row[5] for row in ROWS)),
    ],
    ids=["published", "seven-classes", "grey", "one-5x5"],
)
def test_parameter_count(arguments: dict[str, Any], difference: int) -> None:
    with torch.device("meta"):
        net = GoogLeNet(**arguments)
    biases = 192 + sum(sum(row[1:]) + row[5] for row in ROWS)  # which batch norm would subtract
    assert sum(parameter.numel() for parameter in net.parameters()) == PUBLISHED - biases + difference


def test_first_weights_have_the_stated_spread() -> None:
    torch.manual_seed(0)
    convolutions = [layer for layer in GoogLeNet().modules() if isinstance(layer, nn.Conv2d)]
    expected = [math.sqrt(2 / (layer.kernel_size[0] ** 2 * layer.out_channels)) for layer in convolutions]
    assert [layer.weight.std().item() for layer in convolutions] == pytest.approx(expected, rel=0.05)


def test_dropout_acts_on_the_input_of_the_dense_layer_and_nowhere_else() -> None:
    torch.manual_seed(0)
    plain, dropped = GoogLeNet(image_size=8), GoogLeNet(image_size=8, dropout=0.25)
    dropped.load_state_dict(plain.state_dict())
    seen: dict[nn.Module, torch.Tensor] = {}
    for net in (plain, dropped):
        net.fc.register_forward_pre_hook(lambda layer, inputs: seen.update({layer: inputs[0]}))
        net(torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    before, after = seen[plain.fc], seen[dropped.fc]
    kept = after != 0
    torch.testing.assert_close(after[kept], before[kept] / 0.75)
    assert (~kept & (before > 0)).sum() / (before > 0).sum() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 7}, r"^`image_size` must be at least 8, got 7\. Resize the images\.$"),
        ({"in_channels": 0}, r"^`in_channels` must be at least 1, got 0\.$"),
        ({"num_classes": 0}, r"^`num_classes` must be at least 1, got 0\.$"),
        ({"dropout": -0.5}, r"^`dropout` must be in \[0, 1\), got -0\.5\."),
        (
            {"five_by_five": "5x5"},
            r"^`five_by_five` does not know '5x5'\. Did you mean 'one_5x5'\? Known: two_3x3, one_5x5\.$",
        ),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GoogLeNet(**arguments)
