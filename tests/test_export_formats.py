"""Exported nets against the nets themselves, run by ONNX Runtime and by torch's own loader."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from safetensors.torch import load, safe_open
from test_configs import cifar10_tree
from torch import Tensor, nn

import lightning_lab
from lightning_lab import nets
from lightning_lab.data import CIFAR10, Digits, ImageFolder, Regression
from lightning_lab.export_formats import (
    TOLERANCE,
    Preprocessed,
    example_batches,
    to_onnx,
    to_safetensors,
    to_torch_export,
)
from lightning_lab.nets.small_map import SmallMapConv2d
from lightning_lab.runs.errors import InputError

QUICK = {"MLP", "LeNet5"}  # the others take seconds each
EVERY = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in nets.__all__]
VARIANTS: list[nn.Module] = [
    nets.MLP(hidden=(20, 20), normalisation="batch", bias="column"),
    nets.MLP(hidden=(), bias="none"),
    nets.MLP(normalisation="layer", activation="gelu", dropout=0.5),
    nets.LeNet5(in_channels=3, image_size=32, batch_norm=True, pooling="max", activation="leaky_relu", hidden=(30,)),
]


def trained(net: nn.Module) -> nn.Module:
    """Give batch norm running statistics and put the net where it is exported from."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        net.train()(torch.randn(8, *shape_of(net), generator=generator))
    return net.eval().requires_grad_(False)


def shape_of(net: nn.Module) -> tuple[int, ...]:
    shape: Any = net.input_shape
    return tuple(shape)


def assert_same(net: nn.Module, run: Any, shape: tuple[int, ...]) -> None:
    """Compare at sizes and with numbers that the export itself has not tried."""
    generator = torch.Generator().manual_seed(99)
    for size in (1, 3, 17):
        x = 2 * torch.randn(size, *shape, generator=generator)
        with torch.no_grad():
            own, other = net(x), torch.as_tensor(run(x))
        assert other.shape == own.shape
        torch.testing.assert_close(other, own, rtol=1e-4, atol=1e-5)


def session(content: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def assert_tells_nothing_of_this_machine(content: bytes) -> None:
    for path in (Path(lightning_lab.__file__).parent, Path(torch.__file__).parent):
        assert str(path).encode() not in content
    assert b'File "/' not in content  # torch's own notes have paths that begin with torch/


def check_onnx(net: nn.Module) -> None:
    shape = shape_of(net)
    exported = to_onnx(net, example_batches(shape, None, raw=False), {"note": "here"}, names=("x", "y"))
    assert exported.difference <= TOLERANCE * max(1, exported.largest)
    assert exported.largest > 0
    assert_tells_nothing_of_this_machine(exported.content)
    runtime = session(exported.content)
    assert runtime.get_modelmeta().custom_metadata_map["note"] == "here"
    assert [(put.name, put.shape) for put in runtime.get_inputs()] == [("x", ["batch", *shape])]
    assert [(put.name, put.shape[0]) for put in runtime.get_outputs()] == [("y", "batch")]
    assert_same(net, lambda x: runtime.run(None, {"x": x.numpy()})[0], shape)


@pytest.mark.parametrize("name", EVERY)
def test_every_net_as_onnx(name: str) -> None:
    check_onnx(trained(getattr(nets, name)()))


@pytest.mark.slow
@pytest.mark.parametrize("net", VARIANTS, ids=lambda net: type(net).__name__)
def test_variants_as_onnx(net: nn.Module) -> None:
    check_onnx(trained(net))


@pytest.mark.parametrize("name", EVERY)
def test_every_net_as_a_graph_of_torch(name: str) -> None:
    net = trained(getattr(nets, name)())
    shape = shape_of(net)
    exported = to_torch_export(net, example_batches(shape, None, raw=False), {"metadata.json": '{"note": "here"}'})
    assert_tells_nothing_of_this_machine(exported.content)
    extra = {"metadata.json": ""}
    loaded = torch.export.load(io.BytesIO(exported.content), extra_files=extra).module()
    assert json.loads(extra["metadata.json"]) == {"note": "here"}
    assert_same(net, loaded, shape)


@pytest.mark.parametrize("name", EVERY)
def test_every_net_as_weights(name: str, tmp_path: Path) -> None:
    net = trained(getattr(nets, name)()).to(memory_format=torch.channels_last)
    content = to_safetensors(net, {"note": "here"})
    read, own = load(content), net.state_dict()
    assert read.keys() == own.keys()
    assert all(torch.equal(read[key], own[key]) for key in own)
    (tmp_path / "net.safetensors").write_bytes(content)
    with safe_open(tmp_path / "net.safetensors", "pt") as file:
        assert file.metadata() == {"note": "here"}


def test_a_small_map_is_exported_as_a_convolution() -> None:
    net = SmallMapConv2d(3, 5).requires_grad_(False)
    batches = example_batches((3, 2, 2), None, raw=False)
    exported = to_torch_export(net, batches, {})
    assert exported.difference > 0  # rounding: the net itself takes its other way
    graph = torch.export.load(io.BytesIO(exported.content)).graph
    assert [str(node.target) for node in graph.nodes if node.op == "call_function"] == ["aten.conv2d.default"]


def raw_of(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()  # (B, H, W, C)


@pytest.mark.parametrize("kind", ["dataset", "image", "centre", "none"])
@pytest.mark.parametrize("path", [None, "digits.mat"])
def test_preprocessing_is_that_of_the_digits(kind: Any, path: str | None, tmp_path: Path) -> None:
    if path is not None:
        path = str(tmp_path / path)
        Path(path).touch()  # only its name is asked for
    data = Digits(path, normalise=kind)
    assert data.normalisation["kind"] == kind
    bytes_of_images = torch.randint(0, 256, (9, 1, 16, 16), dtype=torch.uint8, generator=torch.manual_seed(0))
    bytes_of_images[3] = 0  # an empty image has no spread
    given = Preprocessed(nn.Identity(), data.normalisation)(raw_of(bytes_of_images))
    torch.testing.assert_close(given, data._prepare(bytes_of_images), rtol=0, atol=2e-6)


def test_preprocessing_is_that_of_the_loaders(image_tree: Path, tmp_path: Path) -> None:
    own = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    for data in (
        ImageFolder(str(image_tree), val_frac=0.5),
        ImageFolder(str(image_tree), val_frac=0.5, **own),  # type: ignore[arg-type]
        ImageFolder(str(image_tree), val_frac=0.5, channels=1),
        CIFAR10(str(cifar10_tree(tmp_path / "cifar")), val_frac=0.5),
    ):
        data.setup("fit")
        loader = data.val_dataloader()
        batch = next(iter(loader))
        given = Preprocessed(nn.Identity(), data.normalisation)(raw_of(loader.examples.x[batch.indices]))
        torch.testing.assert_close(given, batch.x, rtol=0, atol=2e-6)


@pytest.mark.parametrize("standardise", [True, False])
def test_a_functions_inputs_are_described(standardise: bool) -> None:
    data = Regression(low=2.0, high=5.0, standardise=standardise)
    data.setup("fit")
    loader = data.val_dataloader()
    batch = next(iter(loader))
    x, said = loader.examples.x[batch.indices], data.normalisation
    assert said["kind"] == ("standardised" if standardise else "none")
    mean, std = said.get("mean", [0.0])[0], said.get("std", [1.0])[0]
    torch.testing.assert_close((x - mean) / std, batch.x)


def test_batches_are_noise_and_normalised_bytes() -> None:
    grey = {"kind": "dataset", "mean": [0.5], "std": [0.25]}
    assert [tuple(x.shape) for x in example_batches((4,), grey, raw=False)] == [(2, 4), (5, 4), (32, 4), (1, 4)]
    batches = example_batches((1, 4, 6), grey, raw=False)
    assert len(batches) == 8
    assert {tuple(x.shape[1:]) for x in batches} == {(1, 4, 6)}
    steps = (torch.cat(batches[4:]) * 0.25 + 0.5) * 255
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
    raw = example_batches((3, 4, 6), grey, raw=True)
    assert {(tuple(x.shape[1:]), x.dtype) for x in raw} == {((4, 6, 3), torch.uint8)}


class Counting(nn.Module):
    """Gives another answer each time."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


class Branching(nn.Module):
    """Looks at the values."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class NotANumber(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * float("nan")


class OneSize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 4)


class Elsewhere(nn.Module):
    """Is another function in an exported graph than outside of it."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (float("nan") if torch.compiler.is_exporting() else 1.0)


class Faint(nn.Module):
    """Gives outputs that are near zero, and in a graph none."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (0.0 if torch.compiler.is_compiling() else 2e-6)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Faint(), "graph of Faint gives other outputs than the net, by up to"),
        (
            Counting(),
            r"graph of Counting gives other outputs than the net, by up to [\d.]+: its forward depends on more",
        ),
        (Elsewhere(), "graph of Elsewhere gives other outputs than the net, by up to nan"),
        (NotANumber(), "NotANumber gives outputs that are not finite, .+: its run has diverged. Choose another"),
        (Branching(), "Branching cannot be exported as a graph: .+ must not branch on the values of its input"),
        (OneSize(), "OneSize cannot be exported as a graph: "),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_not_be_the_net_is_refused(net: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_torch_export(net, example_batches((4,), None, raw=False), {})


class Unknown(nn.Module):
    """Has an operation for which ONNX has none."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Counting(), "graph of Counting gives other outputs than the net"),
        (Unknown(), "Unknown cannot be exported as a graph: .*bessel_j0"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_same_as_onnx(net: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_onnx(net, example_batches((4,), None, raw=False), {}, names=("x", "y"))
