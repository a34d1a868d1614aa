"""The numbers as CSV, unrounded: a row for each cell, and a row for each arm."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from lightning_lab.studies.cells import CellResult
from lightning_lab.studies.report.results import ArmResult, Comparison
from lightning_lab.studies.statistics import Estimate
from lightning_lab.studies.table import last_value

#: Columns of metrics.jsonl that are no metric.
_COUNTS = ("epoch", "step", "time_s")


def cells_csv(comparison: Comparison) -> str:
    """Write a row for each cell: each metric in the last epoch, and in the one with the best value of the study's."""
    study, results = comparison.study, comparison.results
    names = sorted({name for result in results for row in result.rows for name in row if name not in _COUNTS})
    heading = ["arm", "seed", "status", "in_statistics", "epochs", "selected_epoch", "key", "directory"]
    heading += [f"{name} ({when})" for name in names for when in ("last", "selected")]
    rows = []
    for result in results:
        best = selected_row(result, study.metric, study.goal)
        cell = result.cell
        counted = "yes" if comparison.is_counted(result) else "no"
        rows.append(
            [cell.arm, cell.seed, result.status, counted, len(result.rows), best.get("epoch"), cell.key]
            + [cell.directory.path.as_posix()]
            + [value for name in names for value in (last_value(result, name), best.get(name))]
        )
    return csv_text(heading, rows)


def arms_csv(comparison: Comparison) -> str:
    """Write a row for each arm: all of its statistics."""
    heading = ["arm", "is_reference", "cells", "completed", "stopped_early", "diverged", "failed", "unfinished"]
    heading += [f"{when}_{part}" for when in ("last", "selected") for part in ("n", "mean", "sd", "low", "high")]
    heading += ["optimism", "difference_n", "difference", "difference_low", "difference_high", "paired", "effect"]
    heading += ["p", "p_holm", "verdict", "seeds_needed", "words"]
    return csv_text(heading, [_arm(arm, comparison) for arm in comparison.arms])


def selected_row(result: CellResult, metric: str, goal: str) -> dict[str, Any]:
    """Find the row of the epoch with the best value; empty if no epoch has one. Of equal ones the first is taken."""
    rows = [row for row in result.rows if _is_number(row.get(metric))]
    return (min if goal == "min" else max)(rows, key=lambda row: row[metric], default={})


def _arm(arm: ArmResult, comparison: Comparison) -> list[Any]:
    counts = [arm.counts.get(status, 0) for status in ("completed", "stopped_early", "diverged", "failed")]
    total = sum(arm.counts.values())
    row: list[Any] = [
        arm.name,
        "yes" if arm.name == comparison.study.reference else "no",
        total,
        *counts,
        total - sum(counts),
    ]
    row += [*_estimate(arm.last), *_estimate(arm.selected), arm.optimism]
    d = arm.difference
    if d is None:
        return [*row, *[None] * 11]
    row += [d.n, d.mean, d.low, d.high, "yes" if d.paired else "no", d.effect, d.p, d.p_holm]
    return [*row, d.verdict, d.seeds_needed, d.words]


def _estimate(estimate: Estimate | None) -> list[float | None]:
    if estimate is None:
        return [0, None, None, None, None]
    return [estimate.n, estimate.mean, estimate.sd, estimate.low, estimate.high]


def csv_text(heading: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Write a table; what is no number is left empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows([["" if _is_nothing(value) else value for value in row] for row in rows])
    return text.getvalue()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))
