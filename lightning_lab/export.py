"""The verb ``export``: the net of a run as ONNX, safetensors or torch.export, with what its user has to know."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_lab import __version__
from lightning_lab.cli import LabCLI
from lightning_lab.endings import end
from lightning_lab.export_formats import Preprocessed, example_batches, to_onnx, to_safetensors, to_torch_export
from lightning_lab.messages import quieten
from lightning_lab.runs.arguments import Parser
from lightning_lab.runs.checkpoint_io import check_fits, newest_sound, read_checkpoint
from lightning_lab.runs.directory import RunDirectory, previous
from lightning_lab.runs.errors import InputError
from lightning_lab.runs.files import write_bytes
from lightning_lab.runs.listing import find_run
from lightning_lab.verbs import build

#: format: (the file's ending, packages that it needs)
_FORMATS: dict[str, tuple[str, tuple[str, ...]]] = {
    "onnx": (".onnx", ("onnx", "onnxscript", "onnxruntime")),
    "safetensors": (".safetensors", ("safetensors",)),
    "torch_export": (".pt2", ()),
}
#: Whatever the run was trained on: here its net is built on the processor, in one process.
_HERE = (
    "--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto",
    "--trainer.precision=32-true",
)  # fmt: skip


def main(args: list[str]) -> int:
    """Export.

    Args:
        args: What follows ``export`` on the command line.

    Returns:
        The exit code.
    """
    parser = Parser(
        prog="lightning-lab export",
        usage="lightning-lab export RUN_OR_CKPT --format {onnx,safetensors,torch_export} [options] [--data.KEY VALUE]",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "source", metavar="RUN_OR_CKPT", help="<experiment>/<name>, a unique part of it, a folder, or a checkpoint"
    )
    parser.add_argument("--format", choices=tuple(_FORMATS), required=True, help="what to write")
    parser.add_argument("--which", choices=("best", "last"), help="which checkpoint of the run (default: best)")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the file (default: in the run's folder, named after the checkpoint)",
    )
    parser.add_argument("--overwrite", action="store_true", help="write over a file that is there")
    parser.add_argument(
        "--with_preprocessing",
        action="store_true",
        help="let the graph take uint8 images (batch, height, width, channels)",
    )
    parser.add_argument("--run.logs", dest="logs", default="logs", metavar="DIR", help="where runs are (default: logs)")
    options, changes = parser.parse_known_args(args)
    quieten()
    try:
        print(_export(options, changes))
    except BaseException as error:
        return end(error, None)
    return 0


def _export(options: argparse.Namespace, changes: list[str]) -> str:
    suffix, packages = _FORMATS[options.format]
    raw = options.with_preprocessing
    _check_installed(options.format, packages)
    if raw and options.format == "safetensors":
        raise InputError("`with_preprocessing` needs a graph: --format onnx or torch_export, not safetensors.")
    run, path = _find(options.source, options.which, Path(options.logs))
    output = options.output or run.path / f"{path.stem}{suffix}"
    if output.suffix != suffix:
        raise InputError(f"`output` must end in {suffix} for --format {options.format}, got {output}.")
    if output.exists() and not options.overwrite:
        raise InputError(f"{output} is there already. Write over it with --overwrite, or name another with --output.")
    path = newest_sound(path)
    run.read_config()  # a damaged one is told by its name
    cli = build("validate", [f"--config={run.config}", *_HERE, *changes])
    net = _load(cli, checkpoint := read_checkpoint(path), path)
    shape, normalisation = _input_shape(cli), getattr(cli.datamodule, "normalisation", None)
    if raw:
        if normalisation is None or len(shape) != 3:
            raise InputError(
                f"`with_preprocessing` needs images whose normalisation is known, and {type(cli.datamodule).__name__} "
                "does not give any. Leave it out."
            )
        net = Preprocessed(net, normalisation).eval()
    metadata = describe(cli, run, checkpoint, path, raw=raw)
    names = "images" if raw else "x", "logits" if hasattr(cli.model, "num_classes") else "values"
    batches = example_batches(shape, normalisation, raw=raw)
    if options.format == "safetensors":
        content = to_safetensors(net, metadata)
        told = f"weights: {sum(value.numel() for value in net.state_dict().values())} numbers, no graph"
    else:
        if options.format == "onnx":
            exported = to_onnx(net, batches, metadata, names=names)
        else:
            exported = to_torch_export(net, batches, {"metadata.json": json.dumps(metadata, indent=2)})
        content = exported.content
        told = (
            f"compared with torch on {len(batches)} batches of 1 to {max(map(len, batches))}: outputs differ by at "
            f"most {exported.difference:.1e}, the largest is {exported.largest:.3g}"
        )
    write_bytes(output, content)
    size = f"{len(content) / 1e6:.2f} MB"
    return f"{output}: {metadata['net']} from {path}, {size}\n  input: {names[0]}, {metadata['input']}\n  {told}"


def describe(
    cli: LabCLI, run: RunDirectory, checkpoint: dict[str, Any], path: Path, *, raw: bool = False
) -> dict[str, str]:
    """Say what a user of the exported net has to know, each value as text: JSON where it is no plain word.

    Args:
        cli: The run's configuration, parsed.
        run: The run.
        checkpoint: Where the weights are from.
        path: Of the checkpoint.
        raw: Whether the net takes images as bytes and normalises them itself.
    """
    data, shape = cli.datamodule, _input_shape(cli)
    form = (shape[1], shape[2], shape[0]) if raw else shape
    sizes = f"(batch, {', '.join(map(str, form))})"
    rows = checkpoint.get("callbacks", {}).get("RunRecord", {}).get("rows", [])
    monitor = cli.config.checkpoint.monitor if cli.config.checkpoint is not None else None
    # Of the epoch whose end the checkpoint stands at; one that was made within an epoch has none.
    metric = [
        {"metric": monitor, "value": row[monitor], "epoch": row["epoch"]}
        for row in rows
        if row["step"] == checkpoint["global_step"] and monitor in row
    ]
    return {
        "lightning_lab": __version__,
        "config": run.path.parent.name,
        "run": run.path.name,
        "checkpoint": path.name,
        "step": str(checkpoint["global_step"]),
        "net": type(cli.model.net).__name__,
        "input": f"uint8 {sizes}, pixels" if raw else f"float32 {sizes}, normalised",
        "input_shape": json.dumps(form),
        "class_names": json.dumps(getattr(data, "class_names", None)),
        "normalisation": json.dumps({"kind": "in the graph"} if raw else getattr(data, "normalisation", None)),
        "metric": json.dumps(metric[-1] if metric else None),
    }


def _check_installed(name: str, packages: tuple[str, ...]) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise InputError(
            f"`format` {name} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            'pip install "lightning-lab[export]"'
        )


def _find(source: str, which: str | None, logs: Path) -> tuple[RunDirectory, Path]:
    path = Path(source)
    if path.suffix != ".ckpt":
        run = find_run(source, logs)
        which = which or "best"
        path = {"best": run.best, "last": run.last}[which]
        if not (path.is_file() or previous(path).is_file()):
            other = "last" if which == "best" else "best"
            raise InputError(f"The run {run.path} has no {which} checkpoint. Try --which {other}.")
        return run, path
    if which is not None:
        raise InputError(f"`which` {which} goes with a run, and {source} is a checkpoint already. Leave it out.")
    if not path.is_file():
        raise InputError(f"There is no checkpoint {path}.")
    run = RunDirectory(path.absolute().parent.parent)
    if not run.config.is_file():
        raise InputError(
            f"{path} is not a run's checkpoint: there is no {run.config} that says which net it is of. Expected "
            "<run>/checkpoints/<name>.ckpt."
        )
    return run, path


def _load(cli: LabCLI, checkpoint: dict[str, Any], path: Path) -> nn.Module:
    net: Any = getattr(cli.model, "net", None)
    if not isinstance(net, nn.Module):
        raise InputError(f"{type(cli.model).__name__} has no `net` that could be exported, as the tasks here have.")
    check_fits(checkpoint, cli.model.state_dict(), path)
    cli.model.load_state_dict(checkpoint["state_dict"])
    return net.float().eval().requires_grad_(False).to(memory_format=torch.contiguous_format)


def _input_shape(cli: LabCLI) -> tuple[int, ...]:
    for owner in (cli.datamodule, cli.model.net):
        shape = getattr(owner, "input_shape", None)
        if shape is not None:
            return tuple(shape)
    raise InputError(
        f"Neither {type(cli.datamodule).__name__} nor {type(cli.model.net).__name__} says its `input_shape`: give one "
        "of them the attribute, without the batch axis."
    )


_DESCRIPTION = """Write the net of a run for use elsewhere: in eval mode, in float32, with any batch size.

onnx: a graph for ONNX Runtime and others, compared with torch on several batches before it is written. torch_export: a
graph for torch alone (.pt2, torch.export.load), compared in the same way. safetensors: the weights alone. The first and
the last need a few packages more: pip install "lightning-lab[export]".

Each file carries as metadata: class_names, normalisation (kind: dataset is (pixel / 255 - mean) / std for each
channel; image takes each image's own mean and standard deviation (n - 1), centre its mean alone; standardised is (x -
mean) / std), input_shape, metric, config, run, checkpoint, step, net and lightning_lab. With --with_preprocessing the
graph normalises by itself and takes bytes, as they come from a decoder (normalisation kind: in the graph); the images
must have the right size all the same.

examples:
  lightning-lab export lenet5/first --format onnx
  lightning-lab export logs/lenet5/first --format onnx --with_preprocessing --output digits.onnx
  lightning-lab export lenet5/first --format safetensors --which last
  lightning-lab export logs/lenet5/first/checkpoints/best.ckpt --format torch_export --overwrite
  lightning-lab export vgg/first --format onnx --data.root DIR        where the folder of the images has moved"""
