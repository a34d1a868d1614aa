"""Studies that were never trained, for tests of the report: real files, made-up numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_lab.runs.directory import RunDirectory
from lightning_lab.studies.cells import Arm, Budget, Cell, CellResult
from lightning_lab.studies.design import Claim, Study

VERSIONS = {"lightning": "2.6.6", "torch": "2.11.0", "torchvision": "0.26.1", "numpy": "2.4.6", "scipy": "1.17.1"}
HARDWARE = {"host": "node-01", "system": "Linux 6.8", "processor": "AMD EPYC 9354", "cores": 8,
            "memory_bytes": 67_000_000_000, "threads": 2, "gpus": ["NVIDIA A100"]}  # fmt: skip


def make_study(folder: Path, *, name: str = "digits-dropout", arms: Sequence[str] | None = None, seeds: int = 5,
               epochs: int = 15, metric: str = "val/acc", goal: Any = "max", margin: float | None = 0.01,
               claims: Sequence[Claim] = ()) -> Study:  # fmt: skip
    names = arms or ["dropout=0", "dropout=0.2", "dropout=0.5"]
    file = folder / "study.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(f"name: {name}\n")
    made = tuple(Arm(one, {"model.net.dropout": round(0.2 * i, 2)}, ("digits/lenet5",)) for i, one in enumerate(names))
    return Study(name, file, made, names[0], {}, "arms", tuple(range(seeds)), metric, goal,
                 Budget("epochs", epochs), margin, tuple(claims))  # fmt: skip


def make_results(study: Study, folder: Path, statuses: dict[tuple[str, int], str] | None = None,
                 *, effects: Sequence[float] | None = None, spread: float = 0.004) -> list[CellResult]:  # fmt: skip
    """Train nothing, and write what a training would have left. A status "missing" leaves nothing."""
    results = []
    for seed in study.seeds:
        shared = np.random.default_rng(1000 + seed)
        luck = spread * shared.standard_normal()  # what all arms have with a seed
        for index, arm in enumerate(study.arms):
            status = (statuses or {}).get((arm.name, seed), "completed")
            effect = effects[index] if effects else (0.0, 0.006, -0.02)[index % 3]
            run = RunDirectory(folder / f"{arm.slug}_seed{seed}_{index:04}{seed:08}")
            rows = [] if status == "missing" else _rows(study, 0.962 + effect + luck, index, seed, spread, status)
            summary = (
                {} if status == "missing" else {"status": status, "reason": None, "epochs": len(rows), "seed": seed}
            )
            if status == "failed":
                summary["reason"] = "RuntimeError: DataLoader worker (pid 4711) is killed by signal: Killed."
            if status != "missing":
                _write(run, arm, seed, rows, summary)
            results.append(CellResult(Cell(arm.name, seed, f"{index:04}{seed:08}", (), run), status, rows, summary))
    return results


def _rows(study: Study, level: float, index: int, seed: int, spread: float, status: str) -> list[dict[str, Any]]:
    random = np.random.default_rng(100 * seed + index)
    count = int(study.budget.amount)
    rows = []
    for epoch in range(1, (count if status in ("completed", "stopped_early") else max(1, count // 3)) + 1):
        reached = 1 - math.exp(-4.2 * epoch / count)
        noise = spread * random.standard_normal(4) * (1 + 3 * math.exp(-3 * epoch / count))
        acc = 0.12 + (level - 0.12) * reached + noise[0] * 0.4
        train = 0.12 + (level + 0.02 - 0.12) * reached + noise[1] * 0.3
        rows.append({
            "epoch": epoch, "step": 36 * epoch, "time_s": round(0.4 * epoch, 3), "lr": 0.03,
            "train/acc": train, "train/loss": 2.4 * (1 - reached) + 0.08 + 2 * abs(noise[2]),
            "val/acc": acc, "val/loss": 2.3 * (1 - reached) + 0.15 + 2 * abs(noise[3]) + 0.5 * (0.962 - level),
        })  # fmt: skip
    if status == "diverged":
        rows[-1] |= {"train/loss": 1e9, "val/loss": None, "val/acc": None}
    return rows


def _write(run: RunDirectory, arm: Arm, seed: int, rows: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    run.path.mkdir(parents=True, exist_ok=True)
    net = {"class_path": "lightning_lab.nets.LeNet5", "init_args": {"dropout": arm.overrides["model.net.dropout"]}}
    config = {"seed_everything": seed, "model": {"net": net}, "data": {"batch_size": 32}}
    run.config.write_text(json.dumps(config))
    environment = {"lightning_lab": "0.1.0", "commit": "ef8ca93dcd6e2574f4f2359daa43e111be0f9274", "dirty": False,
                   "python": "3.11.7", "versions": VERSIONS, "hardware": HARDWARE}  # fmt: skip
    run.environment.write_text(json.dumps(environment))
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run.summary.write_text(json.dumps(summary))
    if summary["status"] == "failed":
        log = run.path.parent / "output" / f"{run.path.name}.log"
        log.parent.mkdir(exist_ok=True)
        steps = "".join(f"\repoch 3: {share} %" for share in range(0, 101, 5))
        lines = [f"epoch {epoch}  val/acc 0.9{epoch:02}" for epoch in range(1, 30)] + [f"\x1b[31m{steps}\x1b[0m"]
        lines += ["Traceback (most recent call last):", '  File "<b>&", line 1', summary["reason"]]
        log.write_text("\n".join(lines) + "\n")


CLAIMS = (
    Claim("A9", "a little dropout raises the accuracy", "dropout=0.2", "dropout=0", "better", "val/acc", 0.01),
    Claim("A10", "dropout 0.5 is worse than none", "dropout=0.5", "dropout=0", "worse", "val/acc", 0.01),
    Claim(
        "A11", "dropout 0.2 makes no difference to the loss", "dropout=0.2", "dropout=0", "equivalent", "val/loss", 0.02
    ),
    Claim("A12", "dropout 0.5 is better than 0.2", "dropout=0.5", "dropout=0.2", "better", "val/acc", 0.01),
)
