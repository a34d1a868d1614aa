"""The test set, opened once: an arm is chosen on validation results alone, then tested, and every reading is kept."""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from lightning_lab.runs.errors import InputError
from lightning_lab.runs.files import write_json
from lightning_lab.runs.vault import OPEN_VARIABLE
from lightning_lab.studies.warm import WarmProcess

#: The file that says which arm was chosen, by which rule, on which results; and the one that keeps every reading.
SELECTION, LEDGER = "selection.json", "test_ledger.jsonl"

Values = Mapping[str, Mapping[int, float]]


def select(
    folder: Path, values: Values, *, metric: str, goal: Literal["min", "max"], seeds: Sequence[int]
) -> dict[str, Any]:
    """Choose the arm with the best mean over the seeds, and write down why.

    Args:
        folder: The study's folder.
        values: The validation metric of each arm, by seed; a run that diverged has none.
        metric: Its name.
        goal: Whether it is better when small or when large.
        seeds: All seeds of the study. An arm that lacks one of them is not chosen.

    Returns:
        What selection.json holds.

    Raises:
        InputError: If the test set was opened already, or no arm has all its seeds.
    """
    if count_openings(folder):
        raise InputError(
            f"The test set of {folder.name} was opened already ({folder / LEDGER}): an arm that is chosen now is "
            "chosen knowing test results. Start a new study for another choice."
        )
    means = {arm: statistics.fmean(of.values()) for arm, of in values.items() if set(of) == set(seeds)}
    if not means:
        raise InputError("No arm has a result for each of its seeds: finish the study first (`study run`).")
    arm = (min if goal == "min" else max)(means, key=lambda name: means[name])
    selection = {
        "arm": arm,
        "rule": f"the {'smallest' if goal == 'min' else 'largest'} mean of {metric} over {len(seeds)} seeds",
        "metric": metric,
        "means": means,
        "left_out": sorted(set(values) - set(means)),
        "validation_sha256": digest(values),
        "when": _now(),
    }
    write_json(folder / SELECTION, selection)
    return selection


def check_open(folder: Path, values: Values, *, again: str | None) -> dict[str, Any]:
    """Say whether the test set may be read now.

    Args:
        folder: The study's folder.
        values: As :func:`select` takes them, read anew.
        again: Why it is read once more; None the first time.

    Returns:
        What selection.json holds.

    Raises:
        InputError: If nothing was selected, the validation results are no longer those of the selection, or the test
            set was read before and no reason is given.
    """
    try:
        selection = dict(json.loads((folder / SELECTION).read_text()))
    except FileNotFoundError:
        raise InputError(
            f"No arm of {folder.name} was selected yet: the test set is read for one arm, chosen on validation "
            "results. Use `lightning-lab study select` first."
        ) from None
    except ValueError as error:
        raise InputError(f"{folder / SELECTION} is damaged ({error}). Select again.") from error
    if selection["validation_sha256"] != digest(values):
        raise InputError(
            f"The validation results of {folder.name} have changed since {selection['arm']} was selected. Select again."
        )
    openings = count_openings(folder)
    if openings and not (again or "").strip():
        raise InputError(
            f"The test set of {folder.name} was read already ({openings} readings in {folder / LEDGER}). A second look "
            "is no independent one; if it has to be, say why: --again REASON."
        )
    return selection


def read_once(folder: Path, run: Path, entry: Mapping[str, Any], warm: WarmProcess | None) -> dict[str, float]:
    """Test one run's best checkpoint, and enter it into the ledger before and after.

    Args:
        folder: The study's folder.
        run: The run's folder.
        entry: What the ledger says of it: arm, seed, selection, reason.
        warm: Forks the process that tests, which saves the imports; None for a run on several devices.

    Returns:
        The test metrics.

    Raises:
        InputError: If the test failed; with its message.
    """
    _append(folder, {**entry, "event": "opened", "when": _now()})
    code, output = _test(["test", f"--config={run / 'config.yaml'}"], str(folder.absolute()), warm)
    if code != 0:
        _append(folder, {**entry, "event": "failed", "when": _now(), "message": output[-500:]})
        raise InputError(f"The test of {run} failed: {output}")
    result = dict(json.loads((run / "summary.json").read_text())["test"])
    _append(folder, {**entry, "event": "read", "when": _now(), "result": result})
    return result


def read_ledger(folder: Path) -> list[dict[str, Any]]:
    """Read the completed readings of the test set, oldest first."""
    return [entry for entry in _entries(folder) if entry.get("event") == "read"]


def count_openings(folder: Path) -> int:
    """Count the readings of the test set, and those that a crash ended before they could be entered as such."""
    events = [entry.get("event") for entry in _entries(folder)]
    return events.count("opened") - events.count("failed")


def digest(values: Values) -> str:
    """Compute a hash of validation results that the order of arms and seeds does not change."""
    rows = sorted((arm, int(seed), repr(float(value))) for arm, of in values.items() for seed, value in of.items())
    assert all(not math.isnan(float(value)) for *_, value in rows)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _entries(folder: Path) -> list[dict[str, Any]]:
    path = folder / LEDGER
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()] if path.exists() else []


def _test(command: list[str], study: str, warm: WarmProcess | None) -> tuple[int, str]:
    with tempfile.NamedTemporaryFile("r+") as log:
        if warm is None:
            code = subprocess.run(
                [sys.executable, "-m", "lightning_lab", *command],
                env={**os.environ, OPEN_VARIABLE: study}, stdout=log, stderr=log, check=False,
            ).returncode  # fmt: skip
        else:
            try:
                warm.start(command, folder=Path.cwd(), log=Path(log.name), variables={OPEN_VARIABLE: study})
                code = warm.wait()
            except BrokenPipeError as error:  # killed for its memory, perhaps
                return 1, str(error)
        return code, Path(log.name).read_text().strip()


def _append(folder: Path, entry: Mapping[str, Any]) -> None:
    # Appended and forced to disk, never rewritten.
    with (folder / LEDGER).open("a") as ledger:
        ledger.write(json.dumps(dict(entry)) + "\n")
        ledger.flush()
        os.fsync(ledger.fileno())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
