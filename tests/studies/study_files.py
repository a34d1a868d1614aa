"""Study files and records of cells for the tests of studies; nothing here trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from lightning_lab.studies.cells import Cell
from lightning_lab.studies.design import Study, read_study

#: A study without a fault.
GOOD: dict[str, Any] = {
    "name": "drop",
    "base": "digits/lenet5",
    "reference": {"model.net.dropout": 0.0},
    "factors": {"model.net.dropout": [0.0, 0.2, 0.5]},
    "seeds": 3,
    "metric": "val/acc",
    "goal": "max",
    "epochs": 2,
}


def write_study(folder: Path, *, without: tuple[str, ...] = (), **changes: Any) -> Path:
    """Write the good study with changes."""
    content = {key: value for key, value in (GOOD | changes).items() if key not in without}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def study_of(folder: Path, *, without: tuple[str, ...] = (), **changes: Any) -> Study:
    """Read the good study with changes."""
    return read_study(write_study(folder, without=without, **changes))


def leave(cell: Cell, status: str, values: list[float | None] | None = None, wall_s: float = 10.0) -> None:
    """Leave a record such as a run with that status would."""
    cell.directory.path.mkdir(parents=True, exist_ok=True)
    cell.directory.config.write_text("model: {}\n")
    cell.directory.summary.write_text(json.dumps({"status": status, "wall_s": wall_s}))
    rows = [{"epoch": i + 1, "val/acc": value} for i, value in enumerate(values or [])]
    cell.directory.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
