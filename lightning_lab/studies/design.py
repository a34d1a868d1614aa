"""A study file as a `Study`: what is compared, with what seeds and budget, and what is claimed. Free of torch.

All that is wrong in the file is told at once, before anything runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lightning_lab.runs.errors import unknown
from lightning_lab.runs.listing import flatten
from lightning_lab.runs.metrics import better, is_known
from lightning_lab.studies.arms import REFERENCE, Draft, read_arms
from lightning_lab.studies.cells import Arm, Budget, Cell, folders_by_key, make_cell
from lightning_lab.studies.entries import (
    read_budget,
    read_choice,
    read_margin,
    read_metric,
    read_name,
    read_seeds,
    read_short,
)
from lightning_lab.studies.factors import (
    full_factorial,
    one_at_a_time,
    read_center,
    read_exclude,
    read_factors,
    read_overrides,
)
from lightning_lab.studies.reading import Faults, load_study
from lightning_lab.studies.settings import read_bases
from lightning_lab.studies.statements import Claim, read_claims
from lightning_lab.studies.values import canonical, merge_bases

__all__ = ["Budget", "Claim", "Study", "cells_of", "read_study"]

Goal = Literal["max", "min"]
_KEYS = (
    *("name", "base", "reference", "arms", "factors", "design", "overrides", "exclude"),
    *("seeds", "metric", "goal", "epochs", "steps", "samples", "seconds", "short", "margin", "claims"),
)


@dataclass(frozen=True)
class Study:
    """What a study file says.

    Args:
        name: The study's name and folder.
        file: The study file.
        arms: What is compared, the reference among them.
        reference: The name of the arm that the others are compared with.
        factors: The levels by key; empty in a study of `arms`.
        design: How the arms come about.
        seeds: The seeds of every arm: the replicates.
        metric: The validation metric that the arms are compared by.
        goal: Whether more or less of it is better.
        budget: What every arm gets.
        margin: The difference that does not matter.
        claims: What is to be judged.
        short: Whether these are the budget and seeds of ``short``.
    """

    name: str
    file: Path
    arms: tuple[Arm, ...]
    reference: str
    factors: dict[str, list[Any]]
    design: Literal["arms", "one-at-a-time", "full"]
    seeds: tuple[int, ...]
    metric: str
    goal: Goal
    budget: Budget
    margin: float | None
    claims: tuple[Claim, ...]
    short: bool = False


def read_study(path: Path, *, short: bool = False) -> Study:
    """Read a study file.

    Args:
        path: The file; `shipped.find_study` finds one by name.
        short: Take budget and seeds from the file's ``short``. It is a study of its own, ``<name>_short``.

    Raises:
        InputError: If the file cannot be read, or with a line for each fault in it.
    """
    faults = Faults(path)
    document = load_study(path, faults)
    for key in document:
        if key not in _KEYS:
            faults.add(str(key), unknown("key", str(key), _KEYS))
    get = document.get
    name = read_name(get("name"), faults)
    seeds = read_seeds(get("seeds"), faults)
    budget = read_budget(document, faults)
    if short or "short" in document:
        in_short = read_short(document.get("short"), seeds, faults)
        if short:
            name, (budget, seeds) = f"{name}_short", in_short
    metric = read_metric(get("metric"), "metric", faults)
    goal = read_choice(get("goal"), "goal", get_args(Goal), faults)
    if get("goal") in get_args(Goal) and is_known(metric) and goal != better(metric):
        faults.add("goal", f"{goal} would choose the worst: {metric} improves the other way. Write {better(metric)}.")
    margin = read_margin(get("margin"), "margin", faults)
    bases = read_bases(get("base"), "base", faults) if "base" in document else ()
    design, factors, drafts, reference = _read_design(document, faults)
    if "base" not in document and not (drafts and all("base" in draft.settings for draft in drafts)):
        faults.add(
            "base", "missing. Name what is varied, for example digits/lenet5; `lightning-lab configs` lists them."
        )
    arms = tuple(draft.build(bases, faults) for draft in drafts)
    _check_arms(arms, drafts, budget, faults)
    claims = read_claims(get("claims"), drafts, reference, metric=metric, margin=margin, faults=faults)
    faults.end()
    assert reference is not None  # else there was a fault
    assert budget is not None
    return Study(name, path, arms, reference.name, factors, design, seeds, metric, goal, budget, margin, claims, short)


def cells_of(study: Study, logs: Path) -> list[Cell]:
    """List the cells of a study, seeds as the outer loop, so that the table is complete early.

    Args:
        study: The study.
        logs: Where runs are.
    """
    folder = logs / "studies" / study.name
    known = folders_by_key(folder)
    bases = {arm.bases: merge_bases(arm.bases) for arm in study.arms}
    return [
        make_cell(arm, seed, study.budget, base=bases[arm.bases], folder=folder, known=known)
        for seed in study.seeds
        for arm in study.arms
    ]


def _read_design(
    document: dict[str, Any], faults: Faults
) -> tuple[Literal["arms", "one-at-a-time", "full"], dict[str, list[Any]], list[Draft], Draft | None]:
    get = document.get
    if ("arms" in document) == ("factors" in document):
        count = "both" if "arms" in document else "neither"
        faults.add("arms", f"give `arms` (name -> overrides) or `factors` (key -> levels), got {count}.")
    if "factors" not in document:
        for key in ("design", "exclude", "overrides"):
            if key in document:
                faults.add(key, "goes with `factors`; an arm of `arms` says itself what it sets. Leave it out.")
        if "arms" not in document:
            return "arms", {}, [], None
        drafts, reference = read_arms(get("arms"), get("reference"), faults)
        return "arms", {}, drafts, reference
    factors = read_factors(get("factors"), faults)
    if not factors:
        return "one-at-a-time", {}, [], None
    design = read_choice(get("design"), "design", ("one-at-a-time", "full"), faults, default="one-at-a-time")
    center = read_center(get("reference"), factors, faults)
    exclude = read_exclude(get("exclude"), factors, faults) if "exclude" in document else []
    if "exclude" in document and design != "full":
        faults.add("exclude", "goes with `design: full`; here no factors are combined. Leave it out.")
    drafts = full_factorial(factors, center, exclude, faults) if design == "full" else one_at_a_time(factors, center)
    read_overrides(get("overrides"), drafts, factors, faults)
    return design, factors, drafts, next((draft for draft in drafts if REFERENCE in draft.names), None)


def _check_arms(arms: tuple[Arm, ...], drafts: list[Draft], budget: Budget | None, faults: Faults) -> None:
    """Find arms of one name, arms that are the same runs, and arms that the budget cannot be computed for."""
    names: set[str] = set()
    contents: dict[str, str] = {}
    for arm, draft in zip(arms, drafts, strict=True):
        if arm.name in names:
            faults.add(draft.path, f"there are two arms {arm.name}. Give each a name of its own.")
        names.add(arm.name)
        if not arm.bases:
            continue  # told already
        settings = flatten(merge_bases(arm.bases)) | arm.overrides
        other = contents.setdefault(canonical(settings), arm.name)
        if other != arm.name:
            faults.add(
                draft.path, f"{arm.name} sets nothing but what {other} does, so they are the same runs. Leave one."
            )
        size = settings.get("data.batch_size")
        if budget is not None and budget.unit == "samples" and not (isinstance(size, int) and size >= 1):
            faults.add(
                "samples",
                f"needs the batch size, and neither the base nor the arm {arm.name} says it. Add data.batch_size to "
                "them, or give the budget in epochs or steps.",
            )
