"""The one table that page, Markdown and CSV are views of: what the seeds say of every arm, and of every claim."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lightning_lab.studies.cells import CellResult
from lightning_lab.studies.claims import Verdict, judge
from lightning_lab.studies.design import Claim, Study
from lightning_lab.studies.quantity import quantity
from lightning_lab.studies.statistics import Difference, Effect, Estimate, compare_arms, estimate
from lightning_lab.studies.statistics import interactions as interactions_of
from lightning_lab.studies.statistics import main_effects as main_effects_of
from lightning_lab.studies.table import How, values_by_arm

#: What the arms are compared by. The best epoch of a run is chosen knowing its validation results, so that its value
#: is too good; the last one was fixed beforehand.
COMPARED: How = "last"


@dataclass(frozen=True)
class ArmResult:
    """What the seeds say of one arm.

    Args:
        name: The arm.
        counts: Its cells by status.
        last: The metric in the last epoch; None without a run that has it.
        selected: The metric in each run's best epoch.
        optimism: Mean of the selected values minus mean of the last ones; NaN without values.
        difference: Against the reference; None for the reference itself, and without values.
    """

    name: str
    counts: Mapping[str, int]
    last: Estimate | None
    selected: Estimate | None
    optimism: float
    difference: Difference | None


@dataclass(frozen=True)
class Comparison:
    """A study's results.

    Args:
        study: The study.
        results: Its cells, in their order.
        values: The metric in the last epoch by arm and seed: the runs that are in the statistics.
        arms: In the order of the study file.
        claims: Each with its verdict.
        effects: Main effects, then interactions, of a full design.
        effects_fault: Why a full design has no effects; empty if it has.
    """

    study: Study
    results: Sequence[CellResult]
    values: Mapping[str, Mapping[int, float]]
    arms: Sequence[ArmResult]
    claims: Sequence[tuple[Claim, Verdict]]
    effects: Sequence[Effect]
    effects_fault: str

    @property
    def reference(self) -> ArmResult:
        """The arm that the others are compared with."""
        return next(arm for arm in self.arms if arm.name == self.study.reference)

    def of(self, arm: str) -> list[CellResult]:
        """The cells of an arm."""
        return [result for result in self.results if result.cell.arm == arm]

    def is_counted(self, result: CellResult) -> bool:
        """Whether a cell is in the statistics."""
        return result.cell.seed in self.values.get(result.cell.arm, {})


def compare(study: Study, results: Sequence[CellResult]) -> Comparison:
    """Compute every number of a report.

    Args:
        study: The study.
        results: What is there of each of its cells.
    """
    last = values_by_arm(list(results), study.metric, COMPARED)
    selected = values_by_arm(list(results), study.metric, "selected", goal=study.goal)
    # An arm without values is not tested: it must not count in Holm's adjustment.
    others = {arm.name: last[arm.name] for arm in study.arms if arm.name != study.reference and last.get(arm.name)}
    reference = last.get(study.reference, {})
    differences = compare_arms(reference, others, goal=study.goal, margin=study.margin) if reference else {}
    arms = []
    for arm in study.arms:
        counts = Counter(result.status for result in results if result.cell.arm == arm.name)
        at_end, at_best = _estimate(last.get(arm.name)), _estimate(selected.get(arm.name))
        optimism = at_best.mean - at_end.mean if at_best and at_end else math.nan
        arms.append(ArmResult(arm.name, counts, at_end, at_best, optimism, differences.get(arm.name)))
    diverged = Counter(result.cell.arm for result in results if result.status == "diverged")
    claims = [
        (
            claim,
            judge(
                claim, values_by_arm(list(results), claim.metric, COMPARED), goal=_goal(claim, study), diverged=diverged
            ),
        )
        for claim in study.claims
    ]
    effects, fault = _effects(study, last)
    return Comparison(study, results, last, arms, claims, effects, fault)


def _estimate(values: Mapping[int, float] | None) -> Estimate | None:
    return estimate(values.values()) if values else None


def _goal(claim: Claim, study: Study) -> Literal["min", "max"]:
    return study.goal if claim.metric == study.metric else quantity(claim.metric).better


def _effects(study: Study, values: Mapping[str, Mapping[int, float]]) -> tuple[list[Effect], str]:
    if study.design != "full":
        return [], ""
    levels = {arm.name: arm.point for arm in study.arms}
    if not set.intersection(*(set(values.get(arm.name, {})) for arm in study.arms)):
        return [], "No seed has a value in every arm yet."
    reference = levels[study.reference]
    try:
        return [
            *main_effects_of(study.factors, levels, values, reference=reference),
            *interactions_of(study.factors, levels, values, reference=reference),
        ], ""
    except ValueError as error:  # combinations were excluded
        return [], str(error)
