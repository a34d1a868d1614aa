"""MLP against the formulas in NumPy, against a back-propagation printed in full, and against stated spreads."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_lab.nets import MLP

NUMPY_ACTIVATIONS = {
    "relu": lambda z: np.maximum(z, 0),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "gelu": lambda z: z / 2 * (1 + np.vectorize(math.erf)(z / math.sqrt(2))),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
}


def linear_layers(net: MLP) -> list[nn.Linear]:
    return [layer for layer in net.layers if isinstance(layer, nn.Linear)]


@pytest.mark.parametrize("hidden", [(), (7,), (5, 6, 4)], ids=["none", "one", "three"])
@pytest.mark.parametrize("normalisation", ["none", "batch", "layer", "layer_variance"])
@pytest.mark.parametrize("activation", list(NUMPY_ACTIVATIONS))
def test_equals_the_numpy_formulas(activation: Any, normalisation: Any, hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net = MLP(in_features=6, hidden=hidden, out_features=3, activation=activation, normalisation=normalisation).double()
    x = torch.randn(4, 6, dtype=torch.float64)
    outputs = net.train()(x).detach().numpy()

    h = x.numpy()
    for layer in linear_layers(net)[:-1]:
        h = h @ layer.weight.detach().numpy().T
        if normalisation != "batch":
            h = h + layer.bias.detach().numpy()
        if normalisation != "none":
            axis = 0 if normalisation == "batch" else 1
            spread = h.var(axis, keepdims=True) + 1e-5
            h = (h - h.mean(axis, keepdims=True)) / (spread if normalisation == "layer_variance" else np.sqrt(spread))
        h = NUMPY_ACTIVATIONS[activation](h)
    last = linear_layers(net)[-1]
    expected = h @ last.weight.detach().numpy().T + last.bias.detach().numpy()
    np.testing.assert_allclose(outputs, expected, rtol=1e-10, atol=1e-10)


def test_back_propagation_by_hand() -> None:
    """A net 2-2-2 with sigmoids, squared error and one step of gradient descent, printed with four decimals."""
    net = MLP(in_features=2, hidden=(2,), out_features=2, activation="sigmoid").double()
    first, second = linear_layers(net)
    printed = {"rtol": 0, "atol": 5e-5}
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[0.15, 0.20], [0.25, 0.30]]))
        second.weight.copy_(torch.tensor([[0.40, 0.45], [0.50, 0.55]]))
        first.bias.fill_(0.35)
        second.bias.fill_(0.60)

    outputs = torch.sigmoid(net(torch.tensor([[0.05, 0.10]], dtype=torch.float64)))
    loss = ((outputs - torch.tensor([[0.01, 0.99]])) ** 2).sum() / 2
    loss.backward()
    np.testing.assert_allclose(outputs.detach().numpy(), [[0.7514, 0.7729]], **printed)
    np.testing.assert_allclose(loss.item(), 0.2984, **printed)
    np.testing.assert_allclose(first.weight.grad, [[0.0004, 0.0009], [0.0005, 0.0010]], **printed)
    np.testing.assert_allclose(second.weight.grad, [[0.0822, 0.0827], [-0.0226, -0.0227]], **printed)

    torch.optim.SGD(net.parameters(), lr=0.5).step()
    stepped = [parameter.detach().numpy() for parameter in net.parameters()]
    np.testing.assert_allclose(stepped[0], [[0.1498, 0.1996], [0.2498, 0.2995]], **printed)
    np.testing.assert_allclose(stepped[1], [0.3456, 0.3450], **printed)
    np.testing.assert_allclose(stepped[2], [[0.3589, 0.4087], [0.5113, 0.5614]], **printed)
    np.testing.assert_allclose(stepped[3], [0.5308, 0.6190], **printed)


@pytest.mark.parametrize("initialisation", ["default", "standard_normal", "xavier", "kaiming"])
def test_bias_column_is_the_bias_vector(initialisation: Any) -> None:
    """At one seed both start from the same function, and a step of gradient descent keeps them equal."""
    nets = []
    for bias in ("vector", "column"):
        torch.manual_seed(0)
        nets.append(MLP(in_features=6, hidden=(5, 20), initialisation=initialisation, bias=bias).double())
    vector, column = nets
    assert [layer.in_features for layer in linear_layers(column)] == [7, 6, 21]
    assert all(layer.bias is None for layer in linear_layers(column))

    x, y = torch.randn(8, 6, dtype=torch.float64), torch.arange(8)
    torch.testing.assert_close(column(x), vector(x), rtol=1e-12, atol=1e-12)
    for net in nets:
        nn.functional.cross_entropy(net(x), y).backward()
        torch.optim.SGD(net.parameters(), lr=0.1).step()
    torch.testing.assert_close(column(x), vector(x), rtol=1e-10, atol=1e-10)
    for a, b in zip(linear_layers(vector), linear_layers(column), strict=True):
        torch.testing.assert_close(b.weight, torch.cat((a.weight, a.bias[:, None]), dim=1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bias", ["vector", "column", "none"])
@pytest.mark.parametrize(
    ("initialisation", "stds"),
    [
        ("default", [1 / math.sqrt(3 * 300), 1 / math.sqrt(3 * 200)]),  # uniform within 1 / sqrt(in)
        ("standard_normal", [1.0, 1.0]),
        ("xavier", [1 / math.sqrt(500), 1 / math.sqrt(300)]),
        ("kaiming", [math.sqrt(2 / 300), math.sqrt(2 / 200)]),
    ],
)
def test_first_weights_have_the_stated_spread(initialisation: Any, stds: list[float], bias: Any) -> None:
    torch.manual_seed(0)
    net = MLP(in_features=300, hidden=(200,), out_features=100, initialisation=initialisation, bias=bias)
    weights = [layer.weight[:, :fan_in] for layer, fan_in in zip(linear_layers(net), (300, 200), strict=True)]
    assert [weight.std().item() for weight in weights] == pytest.approx(stds, rel=0.02)
    assert [weight.mean().item() for weight in weights] == pytest.approx([0.0, 0.0], abs=0.02)


@pytest.mark.parametrize("initialisation", ["standard_normal", "xavier", "kaiming"])
@pytest.mark.parametrize("bias", ["vector", "column"])
def test_biases_start_at_zero_where_stated(initialisation: Any, bias: Any) -> None:
    net = MLP(in_features=4, hidden=(3,), initialisation=initialisation, bias=bias)
    biases = [layer.weight[:, -1] if bias == "column" else layer.bias for layer in linear_layers(net)]
    assert [value.any().item() for value in biases] == [False, False]
    assert all(layer.weight[:, 0].all() for layer in linear_layers(net))


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({}, 256 * 128 + 128 + 128 * 10 + 10),
        ({"bias": "column"}, 257 * 128 + 129 * 10),
        ({"bias": "none"}, 256 * 128 + 128 * 10),
        ({"hidden": ()}, 2570),
        ({"in_features": 1, "hidden": (20, 20, 30), "out_features": 1}, 40 + 420 + 630 + 31),
        ({"in_features": 1, "hidden": (20, 20, 30), "out_features": 1, "normalisation": "layer"}, 40 + 420 + 630 + 31),
        ({"normalisation": "batch"}, 256 * 128 + 2 * 128 + 128 * 10 + 10),
        ({"normalisation": "batch", "bias": "column"}, 256 * 128 + 2 * 128 + 129 * 10),
    ],
)
def test_parameter_count(arguments: dict[str, Any], count: int) -> None:
    assert sum(parameter.numel() for parameter in MLP(**arguments).parameters()) == count


@pytest.mark.parametrize("bias", ["vector", "column"])
def test_dropout_acts_on_hidden_units_and_not_on_the_input(bias: Any) -> None:
    torch.manual_seed(0)
    net = MLP(in_features=50, hidden=(50, 50), activation="sigmoid", dropout=0.25, bias=bias)
    shares: list[float] = []
    for layer in linear_layers(net):
        layer.register_forward_pre_hook(lambda _, inputs: shares.append((inputs[0] == 0).float().mean().item()))
    net(torch.rand(200, 50) + 0.1)
    assert shares == pytest.approx([0.0, 0.25, 0.25], abs=0.03)


@pytest.mark.parametrize("shape", [(3, 48), (3, 3, 4, 4), (3, 1, 6, 8)], ids=str)
def test_samples_of_any_shape_are_flattened(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net = MLP(in_features=48)
    x = torch.randn(3, 48)
    torch.testing.assert_close(net(x.reshape(shape)), net(x), rtol=0, atol=0)


def test_channels_last_images_are_flattened_in_the_same_order() -> None:
    torch.manual_seed(0)
    net = MLP(in_features=48)
    x = torch.randn(3, 3, 4, 4)
    torch.testing.assert_close(net(x.to(memory_format=torch.channels_last)), net(x), rtol=0, atol=0)


def test_single_values_need_no_second_axis() -> None:
    net = MLP(in_features=1, hidden=(4,), out_features=1)
    x = torch.linspace(0, 1, 5)
    torch.testing.assert_close(net(x), net(x[:, None]), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_features": 0}, r"^`in_features` must be at least 1, got 0\.$"),
        ({"out_features": 0}, r"^`out_features` must be at least 1, got 0\.$"),
        ({"hidden": (4, 0)}, r"^`hidden\[1\]` must be at least 1, got 0\.$"),
        ({"dropout": 1.0}, r"^`dropout` must be in \[0, 1\), got 1\.0\."),
        (
            {"activation": "tan"},
            r"^`activation` does not know 'tan'\. Did you mean 'tanh'\? Known: relu, .*leaky_relu\.$",
        ),
        (
            {"normalisation": "xyz"},
            r"^`normalisation` does not know 'xyz'\. Known: none, batch, layer, layer_variance\.$",
        ),
        (
            {"initialisation": "he"},
            r"^`initialisation` does not know 'he'\. .*Known: default, standard_normal, xavier, ",
        ),
        ({"bias": "row"}, r"^`bias` does not know 'row'\. .*Known: vector, column, none\.$"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLP(**arguments)


@pytest.mark.parametrize(
    ("shape", "got", "values"),
    [((2, 3, 32, 32), "3 x 32 x 32 = 3072", 3072), ((2, 64), "64", 64), ((256,), "1", 1)],
)
def test_other_samples_are_refused_with_the_remedy(shape: tuple[int, ...], got: str, values: int) -> None:
    message = (
        rf"^MLP was built for 256 values per sample, got {got}\. "
        rf"Set `in_features` of the net to {values}, or choose the data to fit\.$"
    )
    with pytest.raises(ValueError, match=message):
        MLP()(torch.zeros(shape))
