"""A net as ONNX, as torch.export's graph, or as bare weights: bytes, compared with the net before they are written."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_lab.runs.errors import InputError

#: Two outputs are the same if they differ by less than this share of the largest output: what rounding does to float32
#: over some tens of layers, with a wide margin.
TOLERANCE = 1e-4
#: Outputs that are all smaller than this are compared as if the largest were this: cancellation leaves rounding alone.
_NEAR_ZERO = 1e-3
#: Batches that the exported net is tried on.
_SIZES = (1, 2, 5, 32)


class Exported(NamedTuple):
    """An exported net.

    Args:
        content: The file's bytes.
        difference: The largest difference of an output from the net's own, over all batches that were tried.
        largest: The largest output of the net, in absolute value.
    """

    content: bytes
    difference: float
    largest: float


class Preprocessed(nn.Module):
    """A net that takes images as they come from a decoder, and normalises them itself.

    Args:
        net: Takes normalised images. Shape (B, C, H, W).
        normalisation: What the data module says: ``kind``, one of dataset, image, centre and none; for the first also
            ``mean`` and ``std`` of each channel, of pixels in [0, 1].

    Shape:
        - Input: (B, H, W, C) uint8
        - Output: the net's
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, normalisation: dict[str, Any]) -> None:
        super().__init__()
        self.net = net
        self.kind: str = normalisation["kind"]
        constants = {name: torch.tensor(normalisation.get(name, [0.0])).view(-1, 1, 1) for name in ("mean", "std")}
        for name, values in constants.items():
            self.register_buffer(name, values)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise, then let the net read."""
        outputs: Tensor = self.net(normalise(images, self.kind, self.mean, self.std))
        return outputs


def normalise(images: Tensor, kind: str, mean: Tensor, std: Tensor) -> Tensor:
    """Normalise as the data modules do: (B, H, W, C) uint8 to (B, C, H, W) float32."""
    x = images.permute(0, 3, 1, 2).float() / 255
    if kind == "dataset":
        return (x - mean) / std
    if kind == "none":
        return x
    own_std, own_mean = torch.std_mean(x, dim=(1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
    return (x - own_mean) / own_std.clamp_min(1e-6) if kind == "image" else x - own_mean


def to_onnx(net: nn.Module, batches: list[Tensor], metadata: dict[str, str], *, names: tuple[str, str]) -> Exported:
    """Make an ONNX graph with a free batch axis, and compare it with the net in ONNX Runtime.

    Args:
        net: In eval mode, on the CPU.
        batches: What both are tried on; the first has at least two examples.
        metadata: Goes into the model's own metadata.
        names: Of the input and the output.

    Raises:
        InputError: If the net cannot be exported, or the graph computes something else.
    """
    import onnx
    import onnxruntime

    graph = _graph(net, batches[0])
    try:
        program = torch.onnx.export(
            graph, input_names=names[:1], output_names=names[1:], dynamic_shapes=_free_batch(), dynamo=True,
            verbose=False,
        )  # fmt: skip
    except Exception as error:  # torch raises a dozen types here
        raise _not_exported(net, error) from error
    assert program is not None
    program.model.metadata_props.update(metadata)
    model = program.model_proto
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    return _compared(net, content, lambda x: torch.from_numpy(session.run(None, {names[0]: x.numpy()})[0]), batches)


def to_torch_export(net: nn.Module, batches: list[Tensor], metadata: dict[str, str]) -> Exported:
    """Make torch.export's archive with a free batch axis and the metadata as the extra file ``metadata.json``.

    Args:
        net: In eval mode, on the CPU.
        batches: What both are tried on; the first has at least two examples.
        metadata: JSON text under the name of each extra file.

    Raises:
        InputError: If the net cannot be exported, or the graph computes something else.
    """
    file = io.BytesIO()
    torch.export.save(_graph(net, batches[0]), file, extra_files=metadata)
    content = file.getvalue()
    loaded = torch.export.load(io.BytesIO(content)).module()
    return _compared(net, content, loaded, batches)


def to_safetensors(net: nn.Module, metadata: dict[str, str]) -> bytes:
    """Write the net's `state_dict`, each tensor laid out plainly.

    Args:
        net: Any net.
        metadata: Goes into the file's header.
    """
    from safetensors.torch import save

    state = net.state_dict()
    plain = {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    return save(plain, metadata)


def example_batches(shape: tuple[int, ...], normalisation: dict[str, Any] | None, *, raw: bool) -> list[Tensor]:
    """Draw batches to try a net on: normally distributed numbers, and random bytes normalised as images are.

    Args:
        shape: Of one input, as the net reads it.
        normalisation: What the data module says; None if nothing is known.
        raw: Give images as bytes (B, H, W, C), for :class:`Preprocessed`, instead.

    Returns:
        Batches of several sizes, the first of two.
    """
    generator = torch.Generator().manual_seed(0)
    sizes = sorted(_SIZES, key=lambda size: size == 1)  # an axis of length 1 would be taken for a fixed one
    noise = [torch.randn(size, *shape, generator=generator) for size in sizes]
    if normalisation is None or len(shape) != 3:
        return noise
    form = shape[1], shape[2], shape[0]
    images = [torch.randint(0, 256, (size, *form), dtype=torch.uint8, generator=generator) for size in sizes]
    if raw:
        return images
    prepare = Preprocessed(nn.Identity(), normalisation)
    return noise + [prepare(image) for image in images]


def _graph(net: nn.Module, batch: Tensor) -> torch.export.ExportedProgram:
    with torch.no_grad():
        try:
            graph = torch.export.export(net, (batch,), dynamic_shapes=_free_batch())
        except Exception as error:  # torch raises a dozen types here
            raise _not_exported(net, error) from error
    for node in graph.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths and lines of this machine, which the file would carry
    return graph


def _free_batch() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch")},)


def _not_exported(net: nn.Module, error: Exception) -> InputError:
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):  # torch wraps what it was about
        error = error.__cause__
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return InputError(
        f"{type(net).__name__} cannot be exported as a graph: {line} Its forward must not branch on the values of its "
        "input; --format safetensors writes the weights alone."
    )


def _compared(
    net: nn.Module, content: bytes, answer: Callable[[Tensor], Tensor], batches: Iterable[Tensor]
) -> Exported:
    differences, sizes = [], []
    with torch.no_grad():
        for x in batches:
            own = net(x)
            differences.append((own - answer(x)).abs().max())
            sizes.append(own.abs().max())
    difference, largest = float(torch.stack(differences).max()), float(torch.stack(sizes).max())  # NaN stays NaN
    name = type(net).__name__
    if not math.isfinite(largest):
        raise InputError(
            f"{name} gives outputs that are not finite, with which no graph can be compared: its run has diverged. "
            "Choose another checkpoint."
        )
    if not difference <= TOLERANCE * max(_NEAR_ZERO, largest):
        raise InputError(
            f"The exported graph of {name} gives other outputs than the net, by up to {difference:.3g}: its forward "
            "depends on more than its input. Nothing was written; --format safetensors writes the weights."
        )
    return Exported(content, difference, largest)
