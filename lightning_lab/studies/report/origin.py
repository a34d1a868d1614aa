"""Where the numbers come from: how configurations differ, what the runs ran on, and what failed cells said last."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_lab.runs.directory import RunDirectory
from lightning_lab.runs.errors import InputError
from lightning_lab.runs.listing import flatten
from lightning_lab.studies.cells import CellResult
from lightning_lab.studies.design import Study

#: How much of a failed cell's output is shown.
_TAIL_LINES = 20
_LONGEST_LINE = 400
#: What makes runs incomparable when it differs; a cluster has many hosts of one kind.
_SAME = ("lightning_lab", "commit", "dirty", "python", "versions.", "hardware.")
_MAY_DIFFER = ("hardware.host",)
#: Set for each cell by the study.
_OF_THE_CELL = ("seed_everything", "run.")
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07|[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class Change:
    """A setting in which an arm's configuration differs from the reference's; as text."""

    arm: str
    key: str
    reference: str
    value: str


@dataclass(frozen=True)
class Fact:
    """An entry of the environment with its values, each with the number of runs.

    Args:
        key: Dotted.
        values: The most frequent one first.
        matters: Whether results with different values should not be compared.
    """

    key: str
    values: Sequence[tuple[str, int]]
    matters: bool


@dataclass(frozen=True)
class Tail:
    """What a cell printed last."""

    arm: str
    seed: int
    reason: str
    text: str


def config_changes(study: Study, results: Sequence[CellResult]) -> tuple[list[Change], list[str]]:
    """Compare the resolved configuration of each arm with the reference's.

    Returns:
        The changes, and the arms of which no cell has begun: what those will set is taken from the study file.
    """
    configs = {arm.name: _config(results, arm.name) for arm in study.arms}
    reference, planned, changes = configs[study.reference], [], []
    of_reference = next(arm for arm in study.arms if arm.name == study.reference).overrides
    for arm in study.arms:
        if arm.name == study.reference:
            continue
        own, base = configs[arm.name], reference
        if own is None or base is None:
            planned.append(arm.name)
            own, base = arm.overrides, of_reference
        # Compared as written: 1 equals true in Python, and not in a configuration.
        keys = [key for key in {**base, **own} if repr(base.get(key, "–")) != repr(own.get(key, "–"))]
        changes += [Change(arm.name, key, _text(base.get(key, "–")), _text(own.get(key, "–"))) for key in keys]
    return changes, planned


def environment_facts(results: Sequence[CellResult]) -> list[Fact]:
    """Collect what the runs ran on and from, entry by entry."""
    known = [flatten(found) for result in results if (found := _environment(result.cell.directory))]
    keys = list(dict.fromkeys(key for one in known for key in one))
    facts = []
    for key in keys:
        if key.startswith(_SAME):
            values = Counter(_amount(key, one[key]) for one in known if key in one).most_common()
            facts.append(Fact(key, values, matters=key not in _MAY_DIFFER))
    return facts


def tails(results: Sequence[CellResult], folder: Path) -> list[Tail]:
    """Read the end of the output of each cell that failed."""
    found = []
    for result in results:
        log = folder / "output" / f"{result.cell.directory.path.name}.log"
        if result.status == "failed":
            reason = str(result.summary.get("reason") or "It ended before its training began.")
            source = log if log.exists() else result.cell.directory.traceback
            text = _tail(source) if source.exists() else "There is no output."
            found.append(Tail(result.cell.arm, result.cell.seed, reason, text))
    return found


def _config(results: Sequence[CellResult], arm: str) -> dict[str, Any] | None:
    for result in results:
        if result.cell.arm == arm and result.cell.directory.config.exists():
            config = flatten(result.cell.directory.read_config())
            return {key: value for key, value in config.items() if not key.startswith(_OF_THE_CELL)}
    return None


def _environment(run: RunDirectory) -> dict[str, Any]:
    try:
        return dict(json.loads(run.environment.read_text()))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{run.environment} is damaged ({error}). Delete it, or the run, and start again.") from error


def _amount(key: str, value: Any) -> str:
    if key.endswith("_bytes") and isinstance(value, int):
        return f"{value / 2**30:.0f} GiB"  # virtual machines of one kind differ by some pages
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, Mapping | list):
        return json.dumps(value, ensure_ascii=False) if value else "none"
    return {None: "null", True: "true", False: "false"}.get(value, str(value)) if _is_word(value) else str(value)


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 200_000))
        text = file.read().decode(errors="replace")
    # A progress bar writes over its line: the last state is what was to be seen.
    lines = [_ESCAPES.sub("", line.rstrip("\r").rpartition("\r")[2]).rstrip() for line in text.split("\n")]
    kept = [line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} ..." for line in lines if line]
    return "\n".join(kept[-_TAIL_LINES:]) or "The output is empty."
