"""ConvNet against the same net put together by hand, and against sizes and parameter counts in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_lab.nets import ConvNet

# Each with the net it should be, written out.
BY_HAND: dict[str, tuple[dict[str, Any], nn.Sequential]] = {
    "default": (
        {},
        nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(128 * 4, 128), nn.ReLU(), nn.Linear(128, 10),
        ),
    ),
    "one convolution in the place of a dense layer": (
        {"channels": (8,), "kernel_size": 5, "stride": 2, "padding": 2, "pooling": "none", "hidden": (),
         "activation": "tanh"},
        nn.Sequential(nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 64, 10)),
    ),
    "pooling behind every second": (
        {"in_channels": 3, "image_size": 21, "channels": (4, 5, 6), "padding": 0, "pooling": "avg", "pool_every": 2,
         "batch_norm": True, "hidden": (7, 9), "num_classes": 3, "activation": "gelu"},
        nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.GELU(),
            nn.Conv2d(4, 5, 3, bias=False), nn.BatchNorm2d(5), nn.GELU(), nn.AvgPool2d(2),
            nn.Conv2d(5, 6, 3, bias=False), nn.BatchNorm2d(6), nn.GELU(),
            nn.Flatten(), nn.Linear(6 * 36, 7, bias=False), nn.BatchNorm1d(7), nn.GELU(),
            nn.Linear(7, 9, bias=False), nn.BatchNorm1d(9), nn.GELU(), nn.Linear(9, 3),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("case", list(BY_HAND))
def test_equals_the_net_put_together_by_hand(case: str, training: bool) -> None:
    arguments, theirs = BY_HAND[case]
    torch.manual_seed(0)
    ours = ConvNet(**arguments).double()
    values = list(ours.state_dict().values())
    for value in values:
        if value.ndim == 1:
            value.uniform_(0.5, 1.5)
    names = list(theirs.state_dict())
    theirs.double().load_state_dict(dict(zip(names, values, strict=True)))
    x = torch.randn(5, *ours.input_shape, dtype=torch.float64)
    torch.testing.assert_close(ours.train(training)(x), theirs.train(training)(x), rtol=1e-10, atol=1e-10)


def maps(net: ConvNet) -> list[int]:
    """The edges of the maps that the convolutions give."""
    edges: list[int] = []
    for layer in net.features:
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _, inputs, output: edges.append(output.shape[-1]))
    net(torch.zeros(1, *net.input_shape))
    return edges


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("image_size", [8, 15, 16, 64])
def test_map_has_the_edge_of_the_formula(image_size: int, kernel_size: int, stride: int, padding: int) -> None:
    net = ConvNet(
        channels=(2,), kernel_size=kernel_size, stride=stride, padding=padding, image_size=image_size, pooling="none"
    )
    edge = (image_size + 2 * padding - kernel_size) // stride + 1
    assert maps(net) == [edge]
    assert net.classifier[1].in_features == 2 * edge**2


@pytest.mark.parametrize(
    ("arguments", "edges"),
    [
        ({}, [16, 8, 4]),
        ({"pool_every": 2}, [16, 16, 8]),
        ({"pool_every": 3}, [16, 16, 16]),
        ({"pooling": "none", "stride": 2}, [8, 4, 2]),
        ({"padding": 0, "image_size": 28}, [26, 11, 3]),
        ({"kernel_size": 5, "image_size": 64}, [62, 29, 12]),
    ],
)
def test_maps_along_the_net(arguments: dict[str, Any], edges: list[int]) -> None:
    assert maps(ConvNet(**arguments)) == edges


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({}, (9 * 32 + 32) + (9 * 32 * 64 + 64) + (9 * 64 * 128 + 128) + (512 * 128 + 128) + 1290),
        ({"channels": (8,), "kernel_size": 5, "padding": 2, "hidden": ()}, (25 * 8 + 8) + (8 * 64 * 10 + 10)),
        ({"channels": (8,), "kernel_size": 5, "stride": 2, "pooling": "none", "hidden": ()}, 208 + 8 * 49 * 10 + 10),
        ({"channels": (4, 4), "batch_norm": True, "hidden": (6,)}, (36 + 8) + (144 + 8) + (64 * 6 + 12) + 70),
    ],
    ids=["default", "one", "stride", "batch-norm"],
)
def test_parameter_count(arguments: dict[str, Any], count: int) -> None:
    assert sum(parameter.numel() for parameter in ConvNet(**arguments).parameters()) == count


def test_dropout_acts_on_the_input_of_every_dense_layer_and_nowhere_else() -> None:
    torch.manual_seed(0)
    net = ConvNet(activation="sigmoid", pooling="avg", dropout=0.25, hidden=(64, 64))  # a sigmoid is never 0 by itself
    zeros: list[tuple[type[nn.Module], float]] = []
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_pre_hook(
                lambda layer, inputs: zeros.append((type(layer), (inputs[0] == 0).float().mean().item()))
            )
    net(torch.rand(200, 1, 16, 16) + 0.1)
    assert [share for layer, share in zeros if layer is nn.Conv2d] == [0.0] * 3
    assert [share for layer, share in zeros if layer is nn.Linear] == pytest.approx([0.25] * 3, abs=0.03)


def test_gradient_comes_back_to_the_maps_in_their_order_in_memory() -> None:
    net = ConvNet().to(memory_format=torch.channels_last)
    seen: list[Tensor] = []
    net.features[-1].register_full_backward_hook(lambda _, grad_in, grad_out: seen.append(grad_out[0]))
    net(torch.randn(4, 1, 16, 16).to(memory_format=torch.channels_last)).sum().backward()
    assert [grad.is_contiguous(memory_format=torch.channels_last) for grad in seen] == [True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 7}, r"^`image_size` must be in 8\.\.64, got 7\. Resize the images, or take a VGG\.$"),
        ({"image_size": 65}, r"^`image_size` must be in 8\.\.64, got 65\."),
        (
            {"channels": ()},
            r"^`channels` must have at least 1 entry, got none\. For a net without convolution take MLP",
        ),
        ({"channels": (4, 0)}, r"^`channels\[1\]` must be at least 1, got 0\.$"),
        ({"hidden": (0,)}, r"^`hidden\[0\]` must be at least 1, got 0\.$"),
        ({"kernel_size": 0}, r"^`kernel_size` must be at least 1, got 0\.$"),
        ({"stride": 0}, r"^`stride` must be at least 1, got 0\.$"),
        ({"pool_every": 0}, r"^`pool_every` must be at least 1, got 0\.$"),
        ({"padding": -1}, r"^`padding` must be 0 or more pixels, got -1\.$"),
        (
            {"channels": (2, 2, 2, 2, 2)},
            r"^`channels` must be few enough to leave a pixel of the image, got \(2, 2, 2, 2, 2\): convolution 5 meets "
            r"a map of 1 x 1 and leaves nothing\. Take fewer convolutions, a smaller `kernel_size` or `stride`, more ",
        ),
        ({"kernel_size": 19}, r"got \(32, 64, 128\): convolution 1 meets a map of 16 x 16 and leaves nothing\."),
        ({"in_channels": 0}, r"^`in_channels` must be at least 1, got 0\.$"),
        ({"num_classes": 0}, r"^`num_classes` must be at least 1, got 0\.$"),
        ({"dropout": 1.0}, r"^`dropout` must be in \[0, 1\), got 1\.0\."),
        ({"activation": "rellu"}, r"^`activation` does not know 'rellu'\. Did you mean 'relu'\?"),
        ({"pooling": "maxx"}, r"^`pooling` does not know 'maxx'\. Did you mean 'max'\? Known: max, avg, none\.$"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConvNet(**arguments)
