"""One process and several: do they measure the same, and if not, why not?"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

#: The largest relative difference that is taken for rounding: a hundred units in the last place of fp32.
ROUNDING = 1e-5
_NO_METRICS = ("epoch", "step", "time_s")
_KINKS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.Hardtanh, nn.modules.pooling._MaxPoolNd)


class Difference(NamedTuple):
    """How far two runs are apart in one metric of one epoch.

    Args:
        relative: Of the larger value; infinite where one of the two runs has no value.
        metric: Its name.
        epoch: From 1.
        one: The first run's value.
        other: The second one's.
    """

    relative: float
    metric: str
    epoch: int
    one: float | None
    other: float | None


class Kinds(Callback):
    """Write down what the net is made of, as far as that says why the number of processes shows.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at each module."""
        if trainer.is_global_zero:
            Path(self.path).write_text(json.dumps(sorted(kinds_of(pl_module))))


def kinds_of(module: nn.Module) -> set[str]:
    """Name what a net has that tells one process from several: ``dropout``, ``batch norm``, ``kinks``."""
    found = set()
    for part in module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0:
            found.add("dropout")
        elif isinstance(part, nn.modules.batchnorm._BatchNorm) and not isinstance(part, nn.SyncBatchNorm):
            found.add("batch norm")
        elif isinstance(part, _KINKS):
            found.add("kinks")
    return found


def differences(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """Compare the metrics of two runs, epoch by epoch; a single process's own, ``val/loss/rank0``, are left out.

    Args:
        one: The rows of a metrics.jsonl.
        other: Those of another one.
    """
    found = []
    rows = [{row["epoch"]: row for row in run} for run in (one, other)]
    for epoch in sorted({**rows[0], **rows[1]}):
        a, b = (run.get(epoch, {}) for run in rows)
        names = [name for name in {**a, **b} if name not in _NO_METRICS and "/rank" not in name]
        found += [Difference(_relative(a.get(n), b.get(n)), n, epoch, a.get(n), b.get(n)) for n in names]
    return found


def reasons(kinds: Collection[str], precision: str) -> list[str]:
    """Word the known reasons for a difference that apply to a run.

    Args:
        kinds: What :func:`kinds_of` found in its net.
        precision: Its ``trainer.precision``.
    """
    found = [text for kind, text in _REASONS.items() if kind in kinds]
    if precision.startswith(("bf16", "16")):
        found.append(
            f"`trainer.precision` {precision} rounds every gradient coarsely, and the processes add them up in another "
            "order. --trainer.precision 32-true shows what is left without that."
        )
    return found


def _relative(a: float | None, b: float | None) -> float:
    if a == b:
        return 0.0
    return float("inf") if a is None or b is None else abs(a - b) / max(abs(a), abs(b))


_REASONS = {
    "dropout": "The net has dropout, which draws a mask in each process: another number of processes is another run. "
    "--model.net.dropout 0 shows what is left without it.",
    "batch norm": "The net has batch norm, which measures mean and spread within a process, over its part of the "
    "batch. On GPUs, --trainer.sync_batchnorm true lets it measure over all of them.",
    "kinks": "The net has kinks (ReLU, max pooling), which turn differences of rounding into larger ones from epoch to "
    "epoch; GELU and average pooling do not (docs/decisions/0007-smooth-default.md).",
}
