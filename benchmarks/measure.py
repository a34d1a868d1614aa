"""What the benchmarks share: paired measurements, the conditions they were made under, and a `fit` of the command."""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_lab.__main__ import main as lightning_lab
from lightning_lab.runs.environment import describe_environment

Measurement = Callable[[], float]


def paired(ours: Measurement, theirs: Measurement, *, pairs: int = 5) -> list[tuple[float, float]]:
    """Measure both in turn, so that a machine that others use too slows both alike. One pair before them warms up."""
    ours(), theirs()
    return [(ours(), theirs()) for _ in range(pairs)]


def rows_of_fit(*arguments: str) -> list[dict[str, Any]]:
    """Run `fit` quietly in a folder that goes afterwards, and return its metrics: a row an epoch."""
    with tempfile.TemporaryDirectory() as logs, contextlib.redirect_stdout(io.StringIO()):
        assert lightning_lab(["fit", f"--run.logs={logs}", "--run.name=one", *arguments]) == 0
        (file,) = Path(logs).glob("*/one/metrics.jsonl")
        return [json.loads(line) for line in file.read_text().splitlines()]


def print_conditions() -> None:
    """Print versions, hardware and commit."""
    known = describe_environment()
    hardware = known["hardware"]
    print(f"commit {known['commit']}{' (changed)' if known['dirty'] else ''}, Python {known['python']}, ", end="")
    print(", ".join(f"{name} {known['versions'][name]}" for name in ("torch", "torchvision", "lightning")))
    print(f"{hardware['processor']}, {hardware['cores']} cores, bf16 units: {hardware['bf16_units']}, ", end="")
    print(f"{hardware['threads']} threads, GPUs: {', '.join(hardware['gpus']) or 'none'}\n")


def row(name: str, unit: str, results: list[tuple[float, float]], *, larger_is_better: bool) -> str:
    """Word one comparison: medians of both, median ratio of the pairs with its range."""
    ratios = [ours / theirs if larger_is_better else theirs / ours for ours, theirs in results]
    ours, theirs = (statistics.median(values) for values in zip(*results, strict=True))
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    both = f"{ours:.4g} {unit} | {theirs:.4g} {unit}"
    return f"| {name} | {both} | {statistics.median(ratios):.2f} | {spread} | {len(results)} |"


HEADER = "| what | ours | theirs | ratio, above 1 is faster | range | n |\n|---|---|---|---|---|---|"
