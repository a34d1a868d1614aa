"""The arms of a study against its reference: differences, and a verdict on each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lightning_lab.studies.contrast import Contrast, checked, paired, welch
from lightning_lab.studies.holm import holm
from lightning_lab.studies.power import seeds_for_equivalence, seeds_needed
from lightning_lab.studies.wording import Decision, in_words


@dataclass(frozen=True)
class Difference:
    """An arm against the reference.

    Args:
        n: Pairs; if unpaired, values of the arm.
        n_reference: Pairs; if unpaired, values of the reference.
        mean: Mean of the arm minus mean of the reference: positive is a larger metric. NaN without any value.
        low: Lower end of the 95 % t interval (1 - alpha, not adjusted for other arms); NaN for one seed or no spread.
        high: Upper end.
        p: Two-sided p of no difference; NaN for one seed.
        p_holm: The same adjusted by Holm's method for the arms of the study.
        p_equivalence: p of the two one-sided tests within the margin, adjusted likewise; NaN without a margin.
        effect: Hedges' g (unpaired) or d_z (paired), corrected for small samples; NaN for fewer than two degrees of
            freedom and without spread.
        paired: Whether the seeds are paired.
        verdict: "equivalent" if shown to be within the margin, even if there is a difference; else by `p_holm`.
        seeds_needed: Of each arm, for the observed difference at 80 % power; None where the verdict stands, where
            nothing is known of the spread, or where a thousand would not do.
        words: The verdict with its numbers.
    """

    n: int
    n_reference: int
    mean: float
    low: float
    high: float
    p: float
    p_holm: float
    p_equivalence: float
    effect: float
    paired: bool
    verdict: Decision
    seeds_needed: int | None
    words: str


def compare_arms(
    reference: Mapping[int, float],
    arms: Mapping[str, Mapping[int, float]],
    *,
    goal: Literal["max", "min"],
    margin: float | None = None,
    alpha: float = 0.05,
    points: bool = False,
) -> dict[str, Difference]:
    """Compare each arm with the reference.

    Paired over the seeds that both have, for these share split, order and augmentation; values of other seeds are then
    left out. With fewer than two such seeds Welch's unpaired test takes all values. Holm's method keeps the probability
    that any arm without a difference is called better or worse at or below `alpha`, and likewise, among arms that
    differ by the margin or more, that any is called equivalent.

    Args:
        reference: Metric by seed of the reference. Diverged runs are left out, and are to be reported beside.
        arms: The same of each other arm, by its name.
        goal: Whether a larger or a smaller metric is better.
        margin: Above 0: the smallest difference that counts, in the metric's own unit (0.01 is a point of accuracy).
            Without it nothing is called equivalent.
        alpha: Significance level.
        points: Whether the metric is a fraction that the words give in percentage points.

    Returns:
        A `Difference` for each arm.

    Raises:
        ValueError: If a value is not finite, or if `margin` is not above 0.

    Example:
        >>> reference = {0: 0.921, 1: 0.917, 2: 0.925, 3: 0.919}
        >>> arms = {"dropout": {0: 0.929, 1: 0.927, 2: 0.931, 3: 0.928}}
        >>> compare_arms(reference, arms, goal="max", points=True)["dropout"].words
        'better: +0.83 points (95 % 0.55 to 1.10, n = 4 pairs), p = 0.002'

    Reference:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    if margin is not None and not margin > 0:
        raise ValueError(f"`margin` must be above 0, got {margin}.")
    base = checked(reference, "the reference")
    contrasts = {name: _contrast(checked(values, name), base) for name, values in arms.items()}
    p_holm = holm({name: contrast.p() for name, contrast in contrasts.items()})
    p_equivalence = dict.fromkeys(contrasts, math.nan)
    if margin is not None:
        p_equivalence = holm({name: contrast.p_equivalence(margin) for name, contrast in contrasts.items()})
    # What Holm's method asks of the next arm.
    level, level_of_equivalence = (
        alpha / max(1, sum(p > alpha for p in adjusted.values())) for adjusted in (p_holm, p_equivalence)
    )
    differences = {}
    for name, contrast in contrasts.items():
        low, high = contrast.interval(1 - alpha)
        verdict: Decision = "not distinguishable"
        if p_equivalence[name] <= alpha:
            verdict = "equivalent"
        elif p_holm[name] <= alpha:
            verdict = "better" if (contrast.mean > 0) == (goal == "max") else "worse"
        needed, for_equivalence = None, None
        if verdict == "not distinguishable" and contrast.sd > 0:
            needed = seeds_needed(contrast.mean, contrast.sd, alpha=level, paired=contrast.paired)
            if margin is not None:
                for_equivalence = seeds_for_equivalence(
                    contrast.mean, contrast.sd, margin=margin, alpha=level_of_equivalence, paired=contrast.paired
                )
        words = in_words(
            contrast, verdict, p_holm[name], needed, for_equivalence,
            arms=len(arms), margin=margin, alpha=alpha, points=points,
        )  # fmt: skip
        differences[name] = Difference(
            contrast.n, contrast.n_reference, contrast.mean, low, high, contrast.p(), p_holm[name],
            p_equivalence[name], contrast.effect, contrast.paired, verdict, needed, words,
        )  # fmt: skip
    return differences


def _contrast(arm: dict[int, float], reference: dict[int, float]) -> Contrast:
    common = [seed for seed in arm if seed in reference]
    if len(common) >= 2 or (common and min(len(arm), len(reference)) < 2):
        return paired([arm[seed] for seed in common], [reference[seed] for seed in common])
    return welch(list(arm.values()), list(reference.values()))
