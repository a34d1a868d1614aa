"""What every exported net promises. A new net is covered by being exported; `VARIANTS` adds settings worth a look."""

from __future__ import annotations

import doctest
import io
import sys
from typing import Any

import jsonargparse
import pytest
import torch
from torch import Tensor, nn

import lightning_lab.nets as nets

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "ConvNet": [
        {"channels": (8,), "kernel_size": 5, "stride": 2, "padding": 2, "pooling": "none", "hidden": ()},
        {"in_channels": 3, "image_size": 33, "channels": (4, 6), "batch_norm": True, "dropout": 0.5, "num_classes": 3},
    ],
    "GoogLeNet": [
        {"in_channels": 1, "image_size": 9, "num_classes": 3, "five_by_five": "one_5x5", "dropout": 0.5},
    ],
    "LeNet5": [
        {"batch_norm": True, "dropout": 0.5, "drop_connect": 0.5, "hidden": (12,)},
        {
            "in_channels": 3,
            "image_size": 32,
            "num_classes": 7,
            "channels": (16, 36),
            "kernel_sizes": (5, 3),
            "hidden": (128, 96),
            "pooling": "max",
            "activation": "sigmoid",
        },
    ],
    "MLP": [
        {"hidden": ()},
        {"hidden": (20, 30), "normalisation": "batch", "bias": "column", "dropout": 0.5},
        {"in_features": 6, "hidden": (8, 8), "out_features": 3, "normalisation": "layer", "initialisation": "xavier"},
        {"bias": "none", "activation": "tanh", "initialisation": "kaiming"},
        {"hidden": (20, 30), "normalisation": "layer_variance", "drop_connect": 0.5},
    ],
    "NiN": [{"in_channels": 1, "image_size": 9, "num_classes": 3, "batch_norm": True, "dropout": 0.5}],
    "ResNet": [
        {"depth": 20, "in_channels": 1, "image_size": 17, "num_classes": 3},
        {"depth": 20, "image_size": 8, "shortcut": "pad"},
    ],
    "SpeedNet": [{"in_channels": 1, "num_classes": 3, "image_size": 20, "channels": (8, 4, 16)}],
    "VGG": [
        {"depth": 13, "batch_norm": False, "dropout": 0.5},
        {"in_channels": 1, "image_size": 64, "average_pool": True, "num_classes": 3},
        {"head": "wide", "dropout": 0.5},
    ],
}
CASES = [(name, variant) for name in nets.__all__ for variant in [{}, *VARIANTS.get(name, [])]]
every_net = pytest.mark.parametrize(
    ("name", "variant"),
    CASES,
    ids=[f"{name}-{','.join(map(str, variant.values())) or 'default'}" for name, variant in CASES],
)


def build(name: str, variant: dict[str, Any], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net: nn.Module = getattr(nets, name)(**variant)
    return net


def batch(net: nn.Module, size: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(size, *net.input_shape, generator=torch.Generator().manual_seed(seed))


def test_exports_are_classes_of_torch_modules() -> None:
    assert {name for name in nets.__all__ if issubclass(getattr(nets, name), nn.Module)} == set(nets.__all__)
    assert len(nets.__all__) >= 3


def test_every_variant_belongs_to_an_exported_net() -> None:
    assert set(VARIANTS) <= set(nets.__all__)


@every_net
def test_output_has_one_row_per_sample_and_one_column_per_class(name: str, variant: dict[str, Any]) -> None:
    net = build(name, variant)
    assert net(batch(net)).shape == (4, net.num_classes)
    assert net.num_classes == variant.get("num_classes", variant.get("out_features", 10))


@every_net
def test_every_parameter_gets_a_finite_gradient_but_those_that_are_not_trained(
    name: str, variant: dict[str, Any]
) -> None:
    net = build(name, variant)
    nn.functional.cross_entropy(net(batch(net)), torch.arange(4) % net.num_classes).backward()
    assert all(parameter.grad is None for parameter in net.parameters() if not parameter.requires_grad)
    grads = {key: parameter.grad for key, parameter in net.named_parameters() if parameter.requires_grad}
    assert [key for key, grad in grads.items() if grad is None or not torch.isfinite(grad).all()] == []
    assert any(grad.any() for grad in grads.values())


@every_net
def test_row_of_the_evaluated_batch_ignores_the_other_rows(name: str, variant: dict[str, Any]) -> None:
    net = build(name, variant).eval()
    x, other = batch(net), batch(net, seed=2)
    other[2] = x[2]
    with torch.no_grad():
        torch.testing.assert_close(net(other)[2], net(x)[2], rtol=1e-5, atol=1e-6)
        assert not torch.allclose(net(other)[1], net(x)[1], rtol=1e-5, atol=0)


@every_net
def test_state_dict_round_trip_is_bit_equal(name: str, variant: dict[str, Any]) -> None:
    net = build(name, variant)
    net(batch(net))  # moves the running statistics away from their first values
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    copy = build(name, variant, seed=1)
    copy.load_state_dict(torch.load(file, weights_only=True))
    assert list(copy.state_dict()) == list(net.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(copy.state_dict().values(), net.state_dict().values(), strict=True))
    with torch.no_grad():
        assert torch.equal(copy.eval()(batch(net)), net.eval()(batch(net)))


@every_net
def test_seed_decides_the_first_weights(name: str, variant: dict[str, Any]) -> None:
    first, again, other = (list(build(name, variant, seed).parameters()) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))


@every_net
def test_input_of_another_shape_is_refused(name: str, variant: dict[str, Any]) -> None:
    net = build(name, variant)
    first, *rest = net.input_shape
    with pytest.raises(
        ValueError, match=rf"^{name} was built for .*, got .*{first + 1}.* or choose the data to fit\.$"
    ):
        net(torch.zeros(2, first + 1, *rest))


@every_net
def test_channels_last_images_give_the_same_result(name: str, variant: dict[str, Any]) -> None:
    net = build(name, variant).eval()
    x = batch(net)
    x = x if x.ndim == 4 else x.reshape(4, -1, 1, 2)
    with torch.no_grad():
        expected = net(x)
        actual = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    largest = max(1.0, expected.abs().max().item())  # a small sum of large terms has their rounding
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 * largest)


@every_net
def test_net_is_built_from_a_configuration(name: str, variant: dict[str, Any]) -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "net")
    init_args = {key: list(value) if isinstance(value, tuple) else value for key, value in variant.items()}
    parsed = parser.parse_object({"net": {"class_path": f"lightning_lab.nets.{name}", "init_args": init_args}})
    net = parser.instantiate(parsed).net
    assert type(net) is getattr(nets, name)
    assert [p.shape for p in net.parameters()] == [p.shape for p in build(name, variant).parameters()]


@pytest.mark.parametrize("name", nets.__all__)
def test_docstring_examples_hold(name: str) -> None:
    result = doctest.testmod(sys.modules[getattr(nets, name).__module__])
    assert result.attempted > 0
    assert result.failed == 0
