"""Cells: an arm with a seed, which is one ``fit`` with a folder of its own. Free of torch.

A cell's key is the hash of what it computes: a cell that was trained is found again, whatever its arm is called.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightning_lab.runs.directory import RunDirectory
from lightning_lab.runs.listing import flatten, status_of
from lightning_lab.runs.lock import is_locked
from lightning_lab.studies.orders import read_outcome
from lightning_lab.studies.values import argument, canonical

#: A cell with one of these has a result: it is not run again.
DONE = ("completed", "stopped_early", "diverged")
_KEY = re.compile(r".*_([0-9a-f]{12})")
#: Longer names of folders are cut; the key tells them apart.
_MOST_LETTERS = 60


Unit = Literal["epochs", "steps", "samples", "seconds"]


@dataclass(frozen=True)
class Arm:
    """One of the things compared.

    Args:
        name: As in the tables, for example ``dropout=0.3``.
        overrides: Dotted keys as on the command line, sorted, which puts a class before its arguments.
        bases: The configurations below them, later ones over earlier ones: names of shipped ones or paths.
        point: Its level of each factor, as written, in a full design.
    """

    name: str
    overrides: dict[str, Any]
    bases: tuple[str, ...]
    point: Mapping[str, Any] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """The name as part of a folder's name.

        Example:
            >>> Arm("net=VGG,lr=0.1", {}, ()).slug
            'net-VGG-lr-0.1'
        """
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", self.name)
        return plain[:_MOST_LETTERS].strip(".-") or "arm"


@dataclass(frozen=True)
class Budget:
    """How long each arm is trained.

    Args:
        unit: What is counted.
        amount: How many, at least 1.
    """

    unit: Unit
    amount: float

    def arguments(self, settings: dict[str, Any]) -> list[str]:
        """Word the budget for ``fit``.

        Args:
            settings: What the cell sets beside it, dotted: what limits the training in another unit is switched off.

        Example:
            >>> Budget("samples", 1000).arguments({"data.batch_size": 64})
            ['--trainer.max_epochs=-1', '--trainer.max_steps=16']
        """
        amount = round(self.amount)
        if self.unit == "samples":
            in_a_step = settings["data.batch_size"] * (settings.get("trainer.accumulate_grad_batches") or 1)
            amount = math.ceil(self.amount / in_a_step)
        length = f"{amount // 86400:02}:{amount // 3600 % 24:02}:{amount // 60 % 60:02}:{amount % 60:02}"
        limits: dict[str, Any] = {"max_epochs": -1}  # this project's default is ten epochs
        limits |= {
            f"max_{unit}": off for unit, off in (("steps", -1), ("time", "null")) if f"trainer.max_{unit}" in settings
        }
        own = {"epochs": ("max_epochs", amount), "seconds": ("max_time", length)}
        name, value = own.get(self.unit, ("max_steps", amount))
        return [f"--trainer.{key}={limit}" for key, limit in (limits | {name: value}).items()]


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Args:
        arm: The arm's name.
        seed: The run's seed.
        key: 12 hexadecimal digits, the hash of base, overrides, seed and budget.
        arguments: What follows ``fit`` on the command line.
        directory: Where the run is recorded.
    """

    arm: str
    seed: int
    key: str
    arguments: tuple[str, ...]
    directory: RunDirectory


@dataclass(frozen=True)
class CellResult:
    """What a cell has come to.

    Args:
        cell: The cell.
        status: ``missing``, or as in `runs.listing`: running, killed, interrupted, failed, completed, stopped_early,
            diverged.
        rows: One mapping for each epoch, from metrics.jsonl.
        summary: From summary.json; empty without one.
    """

    cell: Cell
    status: str
    rows: list[dict[str, Any]]
    summary: dict[str, Any]

    @property
    def done(self) -> bool:
        """Whether there is a result: running it again would change nothing."""
        return self.status in DONE


def read_result(cell: Cell) -> CellResult:
    """Read what a cell has come to. One that ended before it could say so itself has failed by its outcome.

    Raises:
        InputError: If its record is damaged.
    """
    run = cell.directory
    summary = run.read_summary()
    if summary:
        status = status_of(run)
    elif is_locked(run.path):  # between its start and its first words a run has its lock and no summary
        status = "running"
    else:
        status = "killed" if run.config.exists() else "missing"
    if status in ("killed", "missing"):
        outcome = read_outcome(run)
        status = "failed" if outcome is not None and outcome.failure else status
    return CellResult(cell, status, run.read_metrics() if summary else [], summary)


def make_cell(
    arm: Arm, seed: int, budget: Budget, *, base: dict[str, Any], folder: Path, known: dict[str, str]
) -> Cell:
    """Make the cell of an arm and a seed.

    Args:
        arm: The arm.
        seed: The seed.
        budget: The study's budget.
        base: The content of the arm's configurations, merged.
        folder: The study's folder, ``<logs>/studies/<name>``.
        known: The folders that are there, by key.
    """
    content = {"base": base, "overrides": arm.overrides, "seed": seed, "budget": [budget.unit, budget.amount]}
    key = hashlib.sha256(canonical(content).encode()).hexdigest()[:12]
    name = f"{arm.slug}_seed{seed}_{key}"
    if not (folder / name).is_dir():
        name = known.get(key, name)  # the arm was called otherwise when it was trained
    arguments = (
        *(f"--config={name}" for name in arm.bases),
        *budget.arguments(flatten(base) | arm.overrides),
        *(f"--{key}={argument(value)}" for key, value in arm.overrides.items()),
        f"--seed_everything={seed}",
        f"--run.logs={folder.parent}",
        f"--run.experiment={folder.name}",
        f"--run.name={name}",
    )
    return Cell(arm.name, seed, key, arguments, RunDirectory(folder / name))


def folders_by_key(folder: Path) -> dict[str, str]:
    """Find the cells that have a folder, by key."""
    if not folder.is_dir():
        return {}
    matches = (_KEY.fullmatch(path.name) for path in sorted(folder.iterdir(), reverse=True) if path.is_dir())
    return {match[1]: match[0] for match in matches if match}
