"""The section on the test set: how often it was read, and what it said of the selected arm."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_lab.studies.report.blocks import Block, Column, Table, Text
from lightning_lab.studies.report.formats import NOTHING, Format, plural
from lightning_lab.studies.statistics import estimate
from lightning_lab.studies.vault import SELECTION, read_ledger


def testing_blocks(folder: Path) -> list[Block]:
    """Word the ledger.

    Args:
        folder: The study's folder.
    """
    blocks: list[Block] = []
    selection = _selection(folder)
    if selection:
        means = selection.get("means", {})
        blocks.append(
            Text(f"Selected: {selection.get('arm')}, {selection.get('rule')}, from {plural(len(means), 'arm')}.")
        )
    readings = read_ledger(folder)
    if not readings:
        return [Text("The test set has not been opened."), *blocks]
    blocks.insert(0, Text(f"The test set was read {'once' if len(readings) == 1 else f'{len(readings)} times'}: "
                          f"{_per_run(readings)}."))  # fmt: skip
    return [*blocks, *_results(readings), _ledger(readings)]


def _per_run(readings: Sequence[Mapping[str, Any]]) -> str:
    runs = len({_run(reading) for reading in readings})
    again = len(readings) - runs
    told = f"{plural(runs, 'run')}" + (" once each" if runs > 1 and not again else "")
    return f"{told}, {plural(again, 'reading')} more than one for each" if again else told


def _results(readings: Sequence[Mapping[str, Any]]) -> list[Block]:
    # Of each run the first reading: a later one is no independent look.
    first: dict[tuple[str, Any], Mapping[str, Any]] = {}
    for reading in readings:
        first.setdefault(_run(reading), reading)
    tables: list[Block] = []
    for arm in dict.fromkeys(arm for arm, _ in first):
        results = [dict(one.get("result") or {}) for (name, _), one in first.items() if name == arm]
        rows = []
        for metric in sorted({name for result in results for name in result}):
            values = [float(v) for r in results if isinstance(v := r.get(metric), int | float) and math.isfinite(v)]
            if not values:
                continue
            found = estimate(values)
            write = Format([found.mean], [found.sd])
            rows.append(
                [metric, str(found.n), write(found.mean), write(found.sd), write.interval(found.low, found.high)]
            )
        columns = [Column("metric"), *(Column(title, "number") for title in ("n", "mean", "sd", "95 % interval"))]
        note = "Each run's best checkpoint; the first reading of each run."
        tables.append(Table(f"Test results of {arm}", columns, rows, note))
    return tables


def _ledger(readings: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [str(reading.get("when", NOTHING)), str(reading.get("arm", NOTHING)), str(reading.get("seed", NOTHING)),
         str(reading.get("reason") or reading.get("again") or NOTHING)]
        for reading in readings
    ]  # fmt: skip
    columns = [Column("when"), Column("arm"), Column("seed", "number"), Column("reason for another look")]
    return Table("Every reading of the test set", columns, rows)


def _run(reading: Mapping[str, Any]) -> tuple[str, Any]:
    return str(reading.get("arm")), reading.get("seed")


def _selection(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / SELECTION).read_text()))
    except (FileNotFoundError, ValueError):
        return {}  # `study test` says what is wrong with it
