"""Verdicts in words: the difference with its interval, and what follows from it or what is missing."""

from __future__ import annotations

import math
from typing import Literal

from lightning_lab.studies.contrast import Contrast
from lightning_lab.studies.power import MOST_SEEDS

Decision = Literal["better", "worse", "equivalent", "not distinguishable"]


def amount(value: float, *, half: float = math.nan, points: bool = False, sign: bool = False) -> str:
    """Word a number with the digits that its uncertainty leaves: two of the interval's half width.

    Args:
        value: The number.
        half: Half the width of its interval; NaN or 0 for none: three significant digits.
        points: Whether it is a fraction, to be worded in percentage points.
        sign: Whether to write a plus.

    Example:
        >>> amount(0.00312, half=0.0051, points=True), amount(12.3456, half=2.4), amount(-2.97e-05)
        ('0.31', '12.3', '-2.97e-05')
    """
    scale = 100 if points else 1
    plus = "+" if sign else ""
    if not half > 0:
        return f"{value * scale:{plus}.3g}"
    decimals = 1 - math.floor(math.log10(half * scale))
    return f"{value * scale:{plus}.{max(0, decimals)}f}" if decimals <= 6 else f"{value * scale:{plus}.2e}"


def numbers(contrast: Contrast, *, alpha: float, points: bool, sign: bool = True) -> str:
    """Word a difference with its interval and the count of seeds.

    Args:
        contrast: The difference.
        alpha: 1 minus the confidence of the interval.
        points: Whether the metric is a fraction, to be worded in percentage points.
        sign: Whether to write a plus before a positive difference.

    Example:
        >>> from lightning_lab.studies.contrast import paired
        >>> numbers(paired([0.93, 0.95, 0.94], [0.92, 0.92, 0.92]), alpha=0.05, points=True)
        '+2.0 points (95 % -0.5 to 4.5, n = 3 pairs)'
    """
    low, high = contrast.interval(1 - alpha)
    half = (high - low) / 2
    mean = amount(contrast.mean, half=half, points=points, sign=sign and contrast.mean > 0)
    unit = _unit(mean, points)
    if contrast.paired:
        count = f"n = {contrast.n} pairs" if contrast.n > 1 else "n = 1 pair"
    else:
        count = f"n = {contrast.n} against {contrast.n_reference}, unpaired"
    if math.isnan(low):
        return f"{mean}{unit} ({count})"
    ends = " to ".join(amount(end, half=half, points=points) for end in (low, high))
    return f"{mean}{unit} ({100 * (1 - alpha):g} % {ends}, {count})"


def in_words(
    contrast: Contrast,
    verdict: Decision,
    p_adjusted: float,
    needed: int | None,
    for_equivalence: int | None,
    *,
    arms: int,
    margin: float | None,
    alpha: float,
    points: bool,
) -> str:
    """Word a verdict: what it is, a colon, and why.

    Args:
        contrast: The difference.
        verdict: What is concluded.
        p_adjusted: p of no difference, adjusted for the arms.
        needed: Seeds for the observed difference, None for too many.
        for_equivalence: Seeds to show equivalence, None for too many.
        arms: How many were compared.
        margin: The smallest difference that counts, if stated.
        alpha: Significance level.
        points: Whether the metric is a fraction, to be worded in percentage points.

    Returns:
        One line.
    """
    within = ""
    if margin is not None:
        told = amount(margin, points=points)
        within = f"within {told}{_unit(told, points)}"
    told = evidence(contrast, p_adjusted, arms, "arms", alpha, points)
    if verdict == "equivalent":
        # p is that of no difference, and not what shows equivalence.
        told = numbers(contrast, alpha=alpha, points=points)
        told += "" if contrast.se > 0 else "; no spread at all, so that only an exact test applies"
        real = f"; there is a difference ({_p(contrast.p())}), but a smaller one than the margin"
        return f"{verdict} {within}: {told}{real if p_adjusted <= alpha else ''}"
    if verdict != "not distinguishable" or not contrast.se > 0:
        return f"{verdict}: {told}"
    if for_equivalence is not None and (needed is None or for_equivalence < needed):
        return f"{verdict}: {told}; would need about {for_equivalence} seeds to be shown equivalent {within}"
    seeds = f"about {needed}" if needed is not None else f"more than {MOST_SEEDS}"
    return f"{verdict}: {told}; would need {seeds} seeds"


def evidence(contrast: Contrast, p_adjusted: float, tests: int, kind: str, alpha: float, points: bool) -> str:
    """Word a difference, its interval and its p, or why there are none.

    Args:
        contrast: The difference.
        p_adjusted: Its p, adjusted for the tests.
        tests: How many tests were made.
        kind: What they tested, in the plural.
        alpha: 1 minus the confidence of the interval.
        points: Whether the metric is a fraction, to be worded in percentage points.

    Returns:
        Part of a line.

    Example:
        >>> from lightning_lab.studies.contrast import paired
        >>> evidence(paired([0.93], [0.92]), float("nan"), 1, "arms", 0.05, True)
        '+1 point (n = 1 pair); one seed says nothing about the spread'
    """
    if min(contrast.n, contrast.n_reference) == 0:
        return "no values to compare"
    told = numbers(contrast, alpha=alpha, points=points)
    if math.isnan(contrast.se):
        return f"{told}; one seed says nothing about the spread"
    p = f"{_p(contrast.p())}" + (f", {_p(p_adjusted)} adjusted for {tests} {kind}" if tests > 1 else "")
    if contrast.se == 0:
        return f"{told}; no spread at all, so that only an exact test applies: {p}"
    return f"{told}, {p}"


def _p(p: float) -> str:
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _unit(told: str, points: bool) -> str:
    if not points:
        return ""
    return " point" if told.lstrip("+-") == "1" else " points"
