"""What `study plan --calibrate` has measured of each arm, and what a cell will take by that. Free of torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lightning_lab.runs.errors import InputError
from lightning_lab.studies.cells import Arm, CellResult
from lightning_lab.studies.design import Study
from lightning_lab.studies.extent import Unit, extent
from lightning_lab.studies.values import canonical, merge_bases

FILE = "calibration.json"


@dataclass(frozen=True)
class Cost:
    """What a run of an arm takes.

    Args:
        start_s: Seconds from its process's start to its first step.
        step_s: Seconds of a training step: one batch, forward and backward.
        steps_per_epoch: Batches of an epoch.
        steps_per_update: Batches for each step of the optimiser.
        validation_s: Seconds of a whole validation.
        validations_per_epoch: How many of them an epoch has.
        epoch_end_s: Seconds between an epoch's last batch and the next epoch, without the validation.
        bytes: Size of the run's folder after an epoch.
        older_bytes: Size of the generations before of its checkpoints, which a run of several epochs has too.
    """

    start_s: float
    step_s: float
    steps_per_epoch: float
    steps_per_update: float
    validation_s: float
    validations_per_epoch: float
    epoch_end_s: float
    bytes: float
    older_bytes: float


@dataclass(frozen=True)
class Calibrated:
    """What the cells of a study will take, as far as it was calibrated.

    Args:
        seconds: Of training of one cell, by arm.
        bytes: Of one cell's folder, by arm.
        start_s: Seconds that a cell's start takes.
        where: The machine and the time of the measurement, in words.
    """

    seconds: Mapping[str, float]
    bytes: Mapping[str, float]
    start_s: float
    where: str


def training_s(cost: Cost, amount: float, unit: Unit) -> float:
    """Compute how long a run trains.

    Args:
        cost: What its parts take.
        amount: How long it is.
        unit: In what; steps are those of the optimiser.

    Returns:
        Seconds, without the start. A run that stops early takes less.

    Example:
        >>> cost = Cost(1.0, 0.01, 100, 1, 0.5, 1, 0.1, 0, 0)
        >>> training_s(cost, 2, "epochs"), training_s(cost, 150, "steps"), training_s(cost, 60, "seconds")
        (3.2, 2.7, 60)
    """
    if unit == "seconds":
        return amount
    batches = amount * (cost.steps_per_epoch if unit == "epochs" else cost.steps_per_update)
    epochs = batches / cost.steps_per_epoch
    # A budget of steps ends with a validation, even in mid-epoch.
    validations = epochs * cost.validations_per_epoch
    validations = math.floor(validations + 1e-9) if unit == "epochs" else math.ceil(validations - 1e-9)
    seconds = batches * cost.step_s + validations * cost.validation_s + math.ceil(epochs - 1e-9) * cost.epoch_end_s
    return round(seconds, 9)


def content_key(arm: Arm) -> str:
    """Name what an arm computes, whatever it is called and however long it trains."""
    content = {"base": merge_bases(arm.bases), "overrides": arm.overrides}
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:12]


def read_costs(folder: Path) -> dict[str, Any]:
    """Read what was measured: machine, time, and the costs by key of an arm; empty without a calibration.

    Raises:
        InputError: If the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        known = json.loads(path.read_text())
        for cost in known["arms"].values():
            if not all(isinstance(cost[field.name], int | float) for field in fields(Cost)):
                raise TypeError("a number is missing")
        if not all(isinstance(known[key], str) for key in ("machine", "time")):
            raise TypeError("machine or time is missing")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}). Delete it; `study plan --calibrate` measures anew.") from error
    return dict(known)


def read_calibration(study: Study, results: list[CellResult], folder: Path) -> Calibrated | None:
    """Read what the cells of a study will take.

    Args:
        study: The study.
        results: Its cells.
        folder: The study's folder.

    Returns:
        What is known; None if that is nothing.

    Raises:
        InputError: If the file is damaged.
    """
    known = read_costs(folder)
    if not known:
        return None
    costs = {}
    for arm in study.arms:
        found = known["arms"].get(content_key(arm))
        if found is not None:
            costs[arm.name] = Cost(**{field.name: found[field.name] for field in fields(Cost)})
    if not costs:
        return None
    cells = {result.cell.arm: result.cell for result in results}
    seconds = {arm: training_s(cost, *extent(cells[arm], study.budget)) for arm, cost in costs.items()}
    sizes = {arm: cost.bytes + cost.older_bytes for arm, cost in costs.items()}
    # What is decoded once and kept makes the first start a long one.
    start_s = min(cost.start_s for cost in costs.values())
    return Calibrated(seconds, sizes, start_s, f"{known['machine']}, {known['time'][:16].replace('T', ' ')} UTC")
