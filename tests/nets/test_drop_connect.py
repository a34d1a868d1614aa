"""Drop-connect against the product with weights masked by hand, and against mean and variance in closed form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from lightning_lab.nets import MLP, LeNet5
from lightning_lab.nets.drop_connect import DropConnectLinear


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_equals_the_product_with_weights_masked_by_hand(p: float, bias: bool) -> None:
    torch.manual_seed(0)
    layer = DropConnectLinear(7, 5, drop_connect=p, bias=bias)
    x = torch.randn(4, 7)
    torch.manual_seed(1)
    mask = torch.empty(5, 7).bernoulli_(1 - p)  # one for the whole batch
    torch.manual_seed(1)
    found = layer(x)
    torch.testing.assert_close(found, F.linear(x, layer.weight * mask / (1 - p), layer.bias))
    found.sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(5, 7) * mask / (1 - p))


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_mean_and_variance_over_many_masks_are_those_of_the_formula(p: float) -> None:
    torch.manual_seed(0)
    layer = DropConnectLinear(20, 6, drop_connect=p).double()
    x = torch.randn(3, 20, dtype=torch.float64)
    with torch.no_grad():
        outputs = torch.stack([layer(x) for _ in range(4000)])
        variance = p / (1 - p) * F.linear(x**2, layer.weight**2)  # the bias has none
        away = (outputs.mean(0) - F.linear(x, layer.weight, layer.bias)) / (variance / len(outputs)).sqrt()
    assert away.abs().max() < 4.5  # of 18 standard normal numbers
    torch.testing.assert_close(outputs.var(0), variance, rtol=0.15, atol=0)


def test_evaluation_has_all_weights() -> None:
    layer = DropConnectLinear(7, 5, drop_connect=0.5).eval()
    x = torch.randn(4, 7)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    assert "drop_connect=0.5" in repr(layer)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (MLP, {"hidden": (50, 60)}),
        (MLP, {"hidden": (50, 60), "bias": "column"}),
        (MLP, {"hidden": (50, 60), "normalisation": "batch"}),
        (MLP, {"hidden": (50, 60), "bias": "none", "dropout": 0.3}),
        (LeNet5, {}),
        (LeNet5, {"batch_norm": True}),
    ],
    ids=["mlp", "mlp-column", "mlp-batch-norm", "mlp-dropout", "lenet", "lenet-batch-norm"],
)
def test_nets_drop_weights_of_hidden_dense_layers_alone(kind: Any, arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = kind(drop_connect=0.25, activation="sigmoid", **arguments)  # a sigmoid has no gradient of 0 by itself
    dense = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
    for layer in dense:
        layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].abs() + 0.1,))  # nor has it an input of 0 then
    x = torch.rand(8, 1, 16, 16)
    net(x).square().sum().backward()
    shares = [(layer.weight.grad == 0).float().mean().item() for layer in dense]
    assert shares == pytest.approx([0.25, 0.25, 0.0], abs=0.04)

    plain = kind(activation="sigmoid", **arguments)
    plain.load_state_dict(net.state_dict())
    for layer in dense:
        layer._forward_pre_hooks.clear()
    assert torch.equal(net.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("normalisation", ["none", "layer"])
def test_bias_column_has_the_masks_of_the_bias_vector(normalisation: Any) -> None:
    found = []
    for bias in ("vector", "column"):
        torch.manual_seed(0)
        net = MLP(in_features=6, hidden=(5, 20), drop_connect=0.5, bias=bias, normalisation=normalisation).double()
        torch.manual_seed(1)
        found.append(net(torch.linspace(-1, 1, 24, dtype=torch.float64).view(4, 6)))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("net", [MLP, LeNet5])
@pytest.mark.parametrize("p", [1.0, -0.1, math.nan])
def test_impossible_probabilities_are_refused(net: type[nn.Module], p: float) -> None:
    message = rf"^`drop_connect` must be in \[0, 1\), got {p}\. It is the share of values set to zero, not the share "
    with pytest.raises(ValueError, match=message):
        net(drop_connect=p)
