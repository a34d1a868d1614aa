"""How long a cell is, and how much of that is done. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from lightning_lab.studies.cells import Budget, Cell

Unit = Literal["epochs", "steps", "seconds"]
_STEPS = "--trainer.max_steps="


def extent(cell: Cell, budget: Budget) -> tuple[float, Unit]:
    """Tell how long a cell is at the most.

    Args:
        cell: The cell.
        budget: Its study's.

    Returns:
        How many, and of what. A budget of samples is as many steps as the cell's batches need for it.
    """
    if budget.unit == "samples":
        return next(float(arg.removeprefix(_STEPS)) for arg in cell.arguments if arg.startswith(_STEPS)), "steps"
    return budget.amount, budget.unit


def reached(summary: Mapping[str, Any], unit: Unit) -> float:
    """Tell how much a run has done, by its summary.

    Args:
        summary: From summary.json; empty without one.
        unit: What is counted.
    """
    return float(summary.get({"epochs": "epochs", "steps": "steps", "seconds": "wall_s"}[unit]) or 0.0)
