"""``study plan --calibrate``: train each arm for seconds, in a scratch folder, and note what that took.

Each arm is an ordinary ``fit`` with one more callback, forked from a process that has imported everything, as the cells
of ``study run`` are: what is measured is what will be run.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightning_lab.runs.directory import RunDirectory, previous
from lightning_lab.runs.environment import hardware
from lightning_lab.runs.errors import InputError
from lightning_lab.runs.files import write_json
from lightning_lab.runs.lock import is_locked, owner_of
from lightning_lab.runs.terminal import say
from lightning_lab.studies.calibration import FILE, content_key, read_costs
from lightning_lab.studies.cells import Cell, CellResult
from lightning_lab.studies.design import Study
from lightning_lab.studies.table import MEASURED
from lightning_lab.studies.warm import WarmProcess

#: When an arm is given up. It takes seconds, but for images that are decoded for the first time.
_MOST_S = 300.0


def calibrate(study: Study, results: list[CellResult], folder: Path, *, threads: int = 1) -> int:
    """Measure the arms of which no cell is done, and keep it in the study's folder.

    Args:
        study: The study.
        results: What its cells have come to.
        folder: The study's folder.
        threads: Threads of each cell.

    Returns:
        How many arms could not be measured; each was told.

    Raises:
        InputError: If the study is running, which would be measured too; if an earlier calibration is damaged.
        NotWrittenError: If the folder cannot be written.
    """
    if is_locked(folder):
        raise InputError(f"The study {study.name} is running: {owner_of(folder)}. Calibrate when it is not.")
    known = read_costs(folder)
    measured = {result.cell.arm for result in results if result.status in MEASURED}
    todo = {result.cell.arm: result.cell for result in reversed(results) if result.cell.arm not in measured}
    arms = [arm for arm in study.arms if arm.name in todo]
    if not arms:
        say("Nothing to calibrate: each arm has a cell that is done.", sys.stderr)
        return 0
    machine = _machine(threads)
    costs = known["arms"] if known.get("machine") == machine else {}
    failed = 0
    with tempfile.TemporaryDirectory(prefix="lightning-lab-calibration-") as scratch:
        warm = WarmProcess()
        try:
            for number, arm in enumerate(arms, start=1):
                say(f"calibrating {number} of {len(arms)}: {arm.name}", sys.stderr)
                if not warm.lives:
                    warm = WarmProcess()
                found = _measure(todo[arm.name], Path(scratch) / str(number), warm, threads)
                if isinstance(found, str):
                    say(f"  not calibrated: {found}", sys.stderr)
                    failed += 1
                else:
                    costs[content_key(arm)] = {"arm": arm.name, **found}
        finally:
            warm.close()
    if costs:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(folder / FILE, {"machine": machine, "time": now, "arms": costs})
    return failed


def _measure(cell: Cell, scratch: Path, warm: WarmProcess, threads: int) -> dict[str, Any] | str:
    """Measure one arm; a text says why that was not possible."""
    scratch.mkdir()
    file, log, run = scratch / "found.json", scratch / "log", RunDirectory(scratch / "runs" / "run")
    callback = {"class_path": "lightning_lab.callbacks.calibration.Calibration", "init_args": {"file": str(file)}}
    command = [
        "fit",
        *cell.arguments,
        *(f"--run.logs={scratch}", "--run.experiment=runs", "--run.name=run", f"--run.threads={threads}"),
        "--progress.style=lines",
        f"--trainer.callbacks+={json.dumps(callback)}",
    ]
    try:
        warm.start(command, folder=Path.cwd(), log=log, variables={})
        began = time.time()  # not before: the process that it is forked from imports everything first
        code = warm.wait(lambda: time.time() > began + _MOST_S)
    except (BrokenPipeError, json.JSONDecodeError):
        return "its process was lost"
    if not file.exists():
        if time.time() > began + _MOST_S:
            return f"it did not come to its first steps within {_MOST_S:.0f} s"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return next((line for line in reversed(lines) if line.strip()), f"it ended with exit code {code}")
    found: dict[str, Any] = json.loads(file.read_text())
    start_s = found.pop("started") - began
    # The run may have been long enough for a second generation of checkpoints, or not: the cells are.
    older = [previous(path) for path in (run.best, run.last)]
    files = [path for path in run.path.rglob("*") if path.is_file() and path not in older]
    checkpoints = [path for path in (run.best, run.last) if path in files]
    return {
        "start_s": start_s,
        **found,
        "bytes": sum(path.stat().st_size for path in files),
        "older_bytes": sum(path.stat().st_size for path in checkpoints),
    }


def _machine(threads: int) -> str:
    known = hardware()
    count = f"{threads} thread{'s' if threads > 1 else ''}"
    return f"{platform.node()} ({known['processor']}, {known['cores']} cores, {count} a cell)"
