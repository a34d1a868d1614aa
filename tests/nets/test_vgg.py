"""VGG against torchvision's with the same weights, and against the published parameter counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import vgg as oracle

from lightning_lab.nets import VGG

COLUMNS = {11: "A", 13: "B", 16: "D", 19: "E"}
# Features of the paper's nets without batch norm; 14 714 688 and 20 024 384 are the widely quoted ones.
FEATURE_COUNTS = {11: 9_220_480, 13: 9_404_992, 16: 14_714_688, 19: 20_024_384}
BATCH_NORM_COUNTS = {11: 2 * 2752, 13: 2 * 2944, 16: 2 * 4224, 19: 2 * 5504}

every_depth = pytest.mark.parametrize("depth", [11, 13, 16, 19])
with_and_without_batch_norm = pytest.mark.parametrize("batch_norm", [False, True])


@every_depth
@with_and_without_batch_norm
def test_features_equal_torchvision_with_the_same_weights(depth: Any, batch_norm: bool) -> None:
    torch.manual_seed(0)
    ours = VGG(depth=depth, batch_norm=batch_norm).eval()
    theirs = oracle.make_layers(oracle.cfgs[COLUMNS[depth]], batch_norm=batch_norm).eval()
    with torch.no_grad():
        for name, value in ours.features.state_dict().items():
            if "running" in name:
                value.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                value.uniform_(-0.5, 0.5)
        theirs.load_state_dict(ours.features.state_dict())
        x = torch.randn(2, 3, 32, 32)
        expected = theirs(x).flatten(1)
        assert expected.std() > 1e-3
        torch.testing.assert_close(ours.features(x).flatten(1), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours(x), ours.classifier[-1](expected), rtol=1e-5, atol=1e-5)


@every_depth
@with_and_without_batch_norm
def test_wide_net_of_224_pixels_has_torchvisions_state(depth: Any, batch_norm: bool) -> None:
    with torch.device("meta"):
        ours = VGG(depth=depth, batch_norm=batch_norm, image_size=224, head="wide", num_classes=1000)
        theirs = getattr(torchvision.models, f"vgg{depth}{'_bn' if batch_norm else ''}")(init_weights=False)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    assert [type(layer) for layer in ours.classifier] == [type(layer) for layer in theirs.classifier]


@every_depth
@with_and_without_batch_norm
@pytest.mark.parametrize(
    ("arguments", "head_count"),
    [
        ({}, 512 * 10 + 10),
        ({"image_size": 64, "average_pool": True, "num_classes": 7}, 512 * 7 + 7),
        ({"head": "wide"}, 512 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 10 + 10),
        ({"head": "wide", "image_size": 64}, 2048 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 10 + 10),
        ({"in_channels": 1}, 512 * 10 + 10 - 2 * 9 * 64),
    ],
    ids=["compact", "compact-64", "wide", "wide-64", "grey"],
)
def test_parameter_count(depth: Any, batch_norm: bool, arguments: dict[str, Any], head_count: int) -> None:
    with torch.device("meta"):
        net = VGG(depth=depth, batch_norm=batch_norm, **arguments)
    expected = FEATURE_COUNTS[depth] + batch_norm * BATCH_NORM_COUNTS[depth] + head_count
    assert sum(parameter.numel() for parameter in net.parameters()) == expected


def test_average_pool_changes_nothing_at_32_pixels() -> None:
    torch.manual_seed(0)
    plain, pooled = VGG().eval(), VGG(average_pool=True).eval()
    pooled.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(pooled(x), plain(x), rtol=1e-5, atol=1e-6)


def test_average_pool_feeds_the_mean_of_the_map_to_the_head() -> None:
    torch.manual_seed(0)
    net = VGG(image_size=64, average_pool=True).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = net.classifier[-1](net.features(x).mean(dim=(2, 3)))
        torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-6)


def test_first_weights_have_torchvisions_spread() -> None:
    torch.manual_seed(0)
    net = VGG(head="wide")
    convolutions = [layer for layer in net.features if isinstance(layer, nn.Conv2d)]
    dense = [layer for layer in net.classifier if isinstance(layer, nn.Linear)]
    expected = [math.sqrt(2 / (9 * layer.out_channels)) for layer in convolutions] + [0.01] * 3
    assert [layer.weight.std().item() for layer in convolutions + dense] == pytest.approx(expected, rel=0.1)
    assert not any(layer.bias.any() for layer in convolutions + dense)


@pytest.mark.parametrize(
    ("head", "dropped"), [("compact", [True]), ("wide", [False, True, True])], ids=["compact", "wide"]
)
def test_dropout_acts_in_the_head_as_documented(head: Any, dropped: list[bool]) -> None:
    torch.manual_seed(0)
    net = VGG(head=head, dropout=0.5).train()
    seen: list[tuple[torch.Tensor, ...]] = []
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
            nn.init.ones_(layer.bias)  # so that a ReLU's 0 is not mistaken for a dropped value
            nn.init.constant_(layer.weight, 1e-4)
    for layer in net.features[-3:]:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.constant_(layer.bias, 10.0)
    net(torch.randn(4, 3, 32, 32))
    shares = [(inputs[0] == 0).float().mean().item() for inputs in seen]
    assert shares == pytest.approx([0.5 * drop for drop in dropped], abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 12}, r"^`depth` must be one of 11, 13, 16 and 19, got 12\.$"),
        ({"image_size": 48}, r"^`image_size` must be a multiple of 32, got 48\. Resize the images, or take a LeNet5 "),
        ({"image_size": 0}, r"^`image_size` must be a multiple of 32, got 0\."),
        (
            {"image_size": 64},
            r"^`average_pool` must be true for the compact head above 32 pixels, got false with `image_size` 64\. "
            r"Set it, or take `head` wide\.$",
        ),
        ({"in_channels": 0}, r"^`in_channels` must be at least 1, got 0\.$"),
        ({"num_classes": 0}, r"^`num_classes` must be at least 1, got 0\.$"),
        ({"dropout": 1.5}, r"^`dropout` must be in \[0, 1\), got 1\.5\."),
        ({"head": "wider"}, r"^`head` does not know 'wider'\. Did you mean 'wide'\? Known: compact, wide\.$"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VGG(**arguments)
