"""The results of a study as numbers by arm and seed. Free of torch.

Each run has two numbers: the metric after the last epoch, and that of the epoch where it is best. The second one is
chosen on the data that it is measured on, and so looks a little too good.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

from lightning_lab.studies.cells import CellResult
from lightning_lab.studies.quantity import quantity

Goal = Literal["max", "min"]
How = Literal["last", "selected"]
#: A cell with one of these has a number; one that diverged has none, but is a result too.
MEASURED = ("completed", "stopped_early")


def last_value(result: CellResult, metric: str) -> float | None:
    """Tell a metric after the last epoch that it was measured in.

    Args:
        result: What the cell has come to.
        metric: A metric of metrics.jsonl, for example ``val/acc``, or another `quantity`.

    Returns:
        The value, or None if it was never measured or not finite.
    """
    return quantity(metric).of(result.rows)


def selected_value(result: CellResult, metric: str, goal: Goal) -> float | None:
    """Tell a metric in the epoch where it is best.

    Args:
        result: What the cell has come to.
        metric: A metric of metrics.jsonl.
        goal: Whether more or less of it is better.

    Returns:
        The value, or None if it was never measured or never finite.
    """
    values = [float(row[metric]) for row in result.rows if row.get(metric) is not None]
    return (max if goal == "max" else min)(values) if values else None


def values_by_arm(
    results: list[CellResult], metric: str, how: How, *, goal: Goal = "max"
) -> dict[str, dict[int, float]]:
    """Sort the values of the measured cells by arm and seed.

    Args:
        results: The cells of a study.
        metric: A metric of metrics.jsonl.
        how: Whether after the last epoch or in the best one.
        goal: Which epoch is the best one; without effect on ``last``.

    Returns:
        For every arm, the value by seed. What has no value is left out here and counted by `left_out`.
    """
    table: dict[str, dict[int, float]] = {result.cell.arm: {} for result in results}
    for result in results:
        value = last_value(result, metric) if how == "last" else selected_value(result, metric, goal)
        if result.status in MEASURED and value is not None:
            table[result.cell.arm][result.cell.seed] = value
    return table


def left_out(results: list[CellResult], metric: str) -> dict[str, dict[str, int]]:
    """Count, by arm, the cells that `values_by_arm` has no value of.

    Args:
        results: The cells of a study.
        metric: A metric of metrics.jsonl.

    Returns:
        For every arm, how many cells by status; ``without value`` counts those that ended well but did not measure it.
    """
    counts: dict[str, Counter[str]] = {result.cell.arm: Counter() for result in results}
    for result in results:
        if result.status not in MEASURED:
            counts[result.cell.arm][result.status] += 1
        elif last_value(result, metric) is None:
            counts[result.cell.arm]["without value"] += 1
    return {arm: dict(count) for arm, count in counts.items()}
