"""What a run computed, compared with what another one did."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from lightning_lab.runs.checkpoint_io import newest_sound, read_checkpoint
from lightning_lab.runs.directory import RunDirectory


def result_of(run: RunDirectory) -> dict[str, Any]:
    """Collect what a run computed: weights, optimiser and schedule of both checkpoints, the metrics, how it ended.

    The state of callbacks is left out: it may hold times and paths, and what of it matters has shaped the rest.
    """
    found: dict[str, Any] = {}
    for path in (run.best, run.last):
        if path.exists():
            checkpoint = read_checkpoint(newest_sound(path))
            for key in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
                found |= _leaves(checkpoint[key], f"{path.stem}: {key}")
    for row in run.read_metrics():
        found |= {f"epoch {row['epoch']}: {key}": value for key, value in row.items() if key != "time_s"}
    summary = run.read_summary()
    return found | {key: summary.get(key) for key in ("status", "reason", "epochs", "steps", "best")}


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the entries of two results that differ in as much as a bit."""
    return tuple(key for key in {**a, **b} if key not in a or key not in b or not _equal(a[key], b[key]))


def _leaves(tree: Any, prefix: str) -> dict[str, Any]:
    if isinstance(tree, Mapping):
        entries = list(tree.items())
    elif isinstance(tree, list | tuple):
        entries = list(enumerate(tree))
    else:
        return {prefix: tree}
    return {key: leaf for name, value in entries for key, leaf in _leaves(value, f"{prefix}.{name}").items()}


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        # As bytes: `torch.equal` takes 0 for -0, and a NaN for no other.
        return isinstance(b, torch.Tensor) and (a.dtype, a.shape) == (b.dtype, b.shape) and _bytes(a) == _bytes(b)
    return json.dumps(a, default=repr) == json.dumps(b, default=repr)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
