"""ResNet against torchvision's net and blocks with the same weights, and against the published parameter counts."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from lightning_lab.nets import ResNet

# With 10 classes. 11 173 962 and the counts with `pad` are those of the ports for CIFAR-10 in wide use.
COUNTS = {
    (18, "projection"): 11_173_962,
    (20, "projection"): 272_474,
    (20, "pad"): 269_722,
    (32, "pad"): 464_154,
    (44, "pad"): 658_586,
    (56, "pad"): 853_018,
    (110, "pad"): 1_727_962,
}


class EverySecondPixel(nn.Module):
    """Option A of the paper, written out."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :, ::2, ::2], torch.zeros_like(x[:, :, ::2, ::2])], dim=1)


def of_torchvision(depth: int, shortcut: str) -> nn.Module:
    if depth == 18 and shortcut == "projection":
        net = torchvision.models.resnet18(num_classes=10)
        net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        net.maxpool = nn.Identity()
        return net
    widths = (64, 128, 256, 512) if depth == 18 else (16, 32, 64)
    blocks = 2 if depth == 18 else (depth - 2) // 6
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    layers += [BasicBlock(widths[0], widths[0]) for _ in range(blocks)]
    for narrow, wide in itertools.pairwise(widths):
        past: nn.Module = EverySecondPixel()
        if shortcut == "projection":
            past = nn.Sequential(nn.Conv2d(narrow, wide, 1, 2, bias=False), nn.BatchNorm2d(wide))
        layers.append(BasicBlock(narrow, wide, 2, past))
        layers += [BasicBlock(wide, wide) for _ in range(blocks - 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    ("depth", "shortcut", "image_size"),
    [(18, "projection", 32), (18, "pad", 16), (20, "projection", 16), (20, "pad", 32), (32, "pad", 13)],
)
def test_equals_torchvision_with_the_same_weights(depth: Any, shortcut: Any, image_size: int, training: bool) -> None:
    torch.manual_seed(0)
    ours = ResNet(depth=depth, shortcut=shortcut, image_size=image_size).double()
    for value in ours.state_dict().values():
        if value.ndim == 1:
            value.uniform_(0.5, 1.5)
    theirs = of_torchvision(depth, shortcut).double()
    values = ours.state_dict().values()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
    x = torch.randn(3, 3, image_size, image_size, dtype=torch.float64)
    found = []
    for net in (ours, theirs):
        outputs = net.train(training)(x)
        outputs.square().sum().backward()
        found.append((outputs.detach(), [parameter.grad for parameter in net.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-8)
    assert found[0][0].std() > 1e-3


def test_resnet18_has_torchvisions_names() -> None:
    with torch.device("meta"):
        ours, theirs = ResNet().state_dict(), of_torchvision(18, "projection").state_dict()
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}


@pytest.mark.parametrize(("depth", "shortcut"), list(COUNTS))
def test_parameter_count(depth: Any, shortcut: Any) -> None:
    with torch.device("meta"):
        net = ResNet(depth=depth, shortcut=shortcut)
    assert sum(parameter.numel() for parameter in net.parameters()) == COUNTS[depth, shortcut]


@pytest.mark.parametrize("depth", [18, 20, 32, 44, 56, 110])
def test_depth_counts_the_layers_with_weights(depth: Any) -> None:
    with torch.device("meta"):
        net = ResNet(depth=depth, shortcut="pad")
    assert sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in net.modules()) == depth


def test_first_weights_have_the_stated_spread() -> None:
    torch.manual_seed(0)
    convolutions = [layer for layer in ResNet().modules() if isinstance(layer, nn.Conv2d)]
    expected = [math.sqrt(2 / (layer.kernel_size[0] ** 2 * layer.out_channels)) for layer in convolutions]
    assert [layer.weight.std().item() for layer in convolutions] == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 34}, r"^`depth` must be one of 18, 20, 32, 44, 56 and 110, got 34\.$"),
        ({"image_size": 7}, r"^`image_size` must be at least 8, got 7\. Resize the images\.$"),
        ({"in_channels": 0}, r"^`in_channels` must be at least 1, got 0\.$"),
        ({"num_classes": 0}, r"^`num_classes` must be at least 1, got 0\.$"),
        ({"shortcut": "padd"}, r"^`shortcut` does not know 'padd'\. Did you mean 'pad'\? Known: projection, pad\.$"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResNet(**arguments)
