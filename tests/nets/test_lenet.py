"""LeNet5 against the same net written with functions, and against parameter counts worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_lab.nets import LeNet5

WIDE: dict[str, Any] = {"channels": (16, 36), "kernel_sizes": (5, 3), "hidden": (128, 96)}
CIFAR: dict[str, Any] = {"in_channels": 3, "image_size": 32}


def reference(net: LeNet5, x: Tensor, activation: str, pooling: str, batch_norm: bool, dense: int) -> Tensor:
    """Two convolutions and `dense` dense layers, written out, with the net's weights in the order of its state."""
    act = {"leaky_relu": functional.leaky_relu, "gelu": functional.gelu, "silu": functional.silu}.get(
        activation
    ) or getattr(torch, activation)
    pool = {"avg": functional.avg_pool2d, "max": functional.max_pool2d}[pooling]
    state = iter(net.state_dict().values())

    def normalise(x: Tensor) -> Tensor:
        scale, shift, mean, var, _ = (next(state) for _ in range(5))
        shape = (1, -1, *[1] * (x.ndim - 2))
        x = (x - mean.view(shape)) / torch.sqrt(var.view(shape) + 1e-5)
        return x * scale.view(shape) + shift.view(shape)

    for _ in range(2):
        x = functional.conv2d(x, next(state)) if batch_norm else functional.conv2d(x, next(state), next(state))
        x = pool(act(normalise(x) if batch_norm else x), 2)
    x = x.reshape(len(x), -1)
    for _ in range(dense - 1):
        x = x @ next(state).T if batch_norm else x @ next(state).T + next(state)
        x = act(normalise(x) if batch_norm else x)
    x = x @ next(state).T + next(state)
    assert next(state, None) is None
    return x


@pytest.mark.parametrize(
    "sizes", [{}, CIFAR | WIDE, {"hidden": (30,), "image_size": 21}], ids=["digits", "wide", "two"]
)
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(
    ("activation", "pooling"),
    [
        ("relu", "avg"),
        ("relu", "max"),
        ("sigmoid", "avg"),
        ("tanh", "max"),
        ("gelu", "avg"),
        ("silu", "avg"),
        ("leaky_relu", "avg"),
    ],
)
def test_equals_the_net_written_with_functions(
    activation: Any, pooling: Any, batch_norm: bool, sizes: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    net = LeNet5(activation=activation, pooling=pooling, batch_norm=batch_norm, **sizes)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if "running" in name:
                value.uniform_(0.5, 1.5)
        x = torch.randn(3, *net.input_shape)
        expected = reference(net, x, activation, pooling, batch_norm, dense=len(sizes.get("hidden", (120, 84))) + 1)
        torch.testing.assert_close(net.eval()(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({}, 156 + 2416 + 2040 + 10164 + 850),
        (CIFAR, 62006),  # 456 + 2416 + 48120 + 10164 + 850
        (CIFAR | {"batch_norm": True}, 62006 + 6 + 16 + 120 + 84),  # a scale and a shift for each bias
        (CIFAR | {"hidden": (120,)}, 456 + 2416 + 48120 + 1210),
        (CIFAR | WIDE, 1216 + 5220 + 166016 + 12384 + 970),  # 36 * 6 * 6 = 1296 inputs of the first dense layer
    ],
    ids=["digits", "classic", "batch-norm", "two-dense", "wide"],
)
def test_parameter_count(arguments: dict[str, Any], count: int) -> None:
    assert sum(parameter.numel() for parameter in LeNet5(**arguments).parameters()) == count


def test_dropout_acts_on_the_input_of_every_dense_layer_and_nowhere_else() -> None:
    torch.manual_seed(0)
    net = LeNet5(activation="sigmoid", dropout=0.25, batch_norm=True)  # a sigmoid is never 0 by itself
    zeros: dict[str, float] = {}
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm1d):
            layer.register_forward_pre_hook(
                lambda _, inputs, name=name: zeros.update({name: (inputs[0] == 0).float().mean().item()})
            )
    net(torch.rand(200, 1, 16, 16) + 0.1)
    shares = {name: zeros[name] for name, layer in net.named_modules() if name in zeros}
    dense = [share for name, share in shares.items() if isinstance(net.get_submodule(name), nn.Linear)]
    assert dense == pytest.approx([0.25] * 3, abs=0.03)
    assert sorted(shares.values())[:-3] == [0.0] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 15}, r"^`image_size` must be in 16\.\.32, got 15\. Resize the images, or take a VGG\.$"),
        ({"image_size": 33}, r"^`image_size` must be in 16\.\.32, got 33\."),
        ({"hidden": ()}, r"^`hidden` must have 1 or 2 entries, got 0\. For another depth take an MLP\.$"),
        ({"hidden": (3, 3, 3)}, r"^`hidden` must have 1 or 2 entries, got 3\."),
        ({"hidden": (3, 0)}, r"^`hidden\[1\]` must be at least 1, got 0\.$"),
        ({"channels": (0, 16)}, r"^`channels\[0\]` must be at least 1, got 0\.$"),
        ({"kernel_sizes": (5, 0)}, r"^`kernel_sizes\[1\]` must be at least 1, got 0\.$"),
        (
            {"kernel_sizes": (5, 7)},
            r"^`kernel_sizes` must leave a pixel of the image, got \(5, 7\) for 16 x 16 pixels\.",
        ),
        (
            {"kernel_sizes": (16, 1)},
            r"^`kernel_sizes` must leave .* Choose smaller kernels or a larger `image_size`\.$",
        ),
        ({"channels": (6,)}, r"^`channels` must have 2 entries, got \[6\]\.$"),
        ({"kernel_sizes": (5, 5, 5)}, r"^`kernel_sizes` must have 2 entries, got \[5, 5, 5\]\.$"),
        ({"hidden": (120, 2.5)}, r"^`hidden\[1\]` must be a whole number, got 2\.5\.$"),
        ({"num_classes": "10"}, r"^`num_classes` must be a whole number, got '10'\.$"),
        ({"in_channels": 0}, r"^`in_channels` must be at least 1, got 0\.$"),
        ({"num_classes": -1}, r"^`num_classes` must be at least 1, got -1\.$"),
        ({"dropout": 1.0}, r"^`dropout` must be in \[0, 1\), got 1\.0\. It is the share of values set to zero"),
        ({"dropout": -0.1}, r"^`dropout` must be in \[0, 1\), got -0\.1\."),
        ({"dropout": float("nan")}, r"^`dropout` must be in \[0, 1\), got nan\."),
        (
            {"activation": "rellu"},
            r"^`activation` does not know 'rellu'\. Did you mean 'relu'\? Known: relu, sigmoid, ",
        ),
        ({"pooling": "xyz"}, r"^`pooling` does not know 'xyz'\. Known: avg, max\.$"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LeNet5(**arguments)


@pytest.mark.parametrize(
    ("shape", "got"),
    [((2, 3, 32, 32), "3 x 32 x 32"), ((1, 16, 16), "16 x 16"), ((2, 256), "256"), ((4,), "single values")],
)
def test_other_images_are_refused_with_the_remedy(shape: tuple[int, ...], got: str) -> None:
    message = (
        rf"^LeNet5 was built for images of 1 x 16 x 16 \(channels x height x width\), got {got}\. "
        r"Set `in_channels` and `image_size` of the net, or choose the data to fit\.$"
    )
    with pytest.raises(ValueError, match=message):
        LeNet5()(torch.zeros(shape))
