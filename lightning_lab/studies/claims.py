"""Claims: is what was stated confirmed, refuted or still open?

A claim compares two arms, or says of one how it changes. It was stated before the study and is judged on its own: one
two-sided test at alpha = 0.05, not adjusted for the other claims, so that of many claims without any difference one in
twenty is confirmed or refuted. The margin is the smallest difference that counts.

====================  ===========================================  ====================================================
expect                confirmed                                    refuted
====================  ===========================================  ====================================================
better, worse         a significant difference that way            a significant difference the other way; or shown to
                                                                   be within the margin
different             a significant difference                     shown to be within the margin
equivalent            shown to be within the margin (TOST)         a significant difference, its 95 % interval wholly
                                                                   beyond the margin (without a margin: beyond 0)
rises, falls          the arm's metric, itself a difference        a significant one the other way; or shown to be
                      (val/loss@9 - val/loss@2), is significantly  within the margin of zero
                      above zero, or below it
diverges              the arm's runs diverge more often than not   less often than not (the same test; six of six, or
                      (two-sided exact binomial test)              none of six)
====================  ===========================================  ====================================================

All else is open. A difference that is significant and yet shown to be within the margin counts as within: "better" and
"equivalent" are never both confirmed by the same data. Without a margin a claim of equivalence cannot be confirmed, and
one of a difference cannot be refuted as too small.

Diverged runs have no value. Where they leave an arm fewer than two values, Fisher's exact test of the counts of
diverged runs decides in place of the t test (three of three against none of three are p = 0.10; four and four, 0.03):
the arm that diverges more often is the worse one. Otherwise the runs that ended are compared, and the words say how
many did not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lightning_lab.studies.comparison import Difference, compare_arms
from lightning_lab.studies.statements import ABOUT_A_CHANGE, Claim

Status = Literal["confirmed", "refuted", "open"]


@dataclass(frozen=True)
class Verdict:
    """What became of a claim.

    Args:
        status: Confirmed, refuted or open.
        words: The status with the numbers.
        difference: The claim's arm against the other one.
    """

    status: Status
    words: str
    difference: Difference


def judge(
    claim: Claim,
    values: Mapping[str, Mapping[int, float]],
    *,
    goal: Literal["max", "min"],
    diverged: Mapping[str, int] | None = None,
    alpha: float = 0.05,
    points: bool = False,
) -> Verdict:
    """Judge a claim by the rules above.

    Args:
        claim: The claim.
        values: Its metric by seed of each arm, diverged runs left out. An arm without an entry has no values.
        goal: Whether a larger or a smaller value of the claim's metric is better.
        diverged: How many runs of an arm diverged; none if it is not named.
        alpha: Significance level.
        points: Whether the metric is a fraction that the words give in percentage points.

    Returns:
        The status, the words and the difference.

    Raises:
        ValueError: If a value is not finite.

    Example:
        >>> claim = Claim("C12", "dropout 0.5 is worse", "0.5", "0.1", "worse", "val/acc", None)
        >>> values = {"0.1": {0: 0.84, 1: 0.83, 2: 0.84}, "0.5": {0: 0.83, 1: 0.83, 2: 0.82}}
        >>> judge(claim, values, goal="max", points=True).words
        'open: -1.0 points (95 % -3.5 to 1.5, n = 3 pairs), p = 0.23; would need about 10 seeds'

    Reference:
        Fisher, "The Logic of Inductive Inference", Journal of the Royal Statistical Society 98, 1935.
    """
    arm, against = values.get(claim.arm, {}), values.get(claim.against, {})
    lost, lost_against = ((diverged or {}).get(name, 0) for name in (claim.arm, claim.against))
    if claim.expect in ABOUT_A_CHANGE:
        return _changes(claim, arm, lost, alpha=alpha, points=points)
    difference = compare_arms(
        against, {claim.arm: arm}, goal=goal, margin=claim.margin, alpha=alpha, points=points
    )[claim.arm]  # fmt: skip
    if claim.expect == "diverges":
        status, words = _diverges(lost, lost + len(arm), alpha)
        return Verdict(status, words, difference)
    counts = f"diverged: {lost} of {lost + len(arm)} against {lost_against} of {lost_against + len(against)}"
    if lost + lost_against and min(len(arm), len(against)) < 2:
        p = fisher(lost, len(arm), lost_against, len(against))
        apart = "worse" if lost * len(against) > lost_against * len(arm) else "better"
        found, beyond = apart if p <= alpha else "not distinguishable", True
        told = f"{found}, {counts}, {_p_text(p)} (Fisher's exact test)"
    else:
        found, beyond = difference.verdict, _is_beyond(difference, claim.margin or 0.0)
        told = difference.words.replace(": ", ", ", 1) + (f"; {counts}" if lost + lost_against else "")
    status = _status(claim.expect, found, beyond)
    told = told.removeprefix("not distinguishable, ")
    if status == "open" and found != "not distinguishable":
        told += "; the interval reaches into the margin"
    return Verdict(status, f"{status}: {told}", difference)


def fisher(a: int, b: int, c: int, d: int) -> float:
    """Compute the two-sided p of Fisher's exact test of the table [[a, b], [c, d]].

    Args:
        a: Of the first group, how many have the property.
        b: How many do not.
        c: The same of the second group.
        d: How many do not.

    Example:
        >>> round(fisher(3, 1, 1, 3), 4)
        0.4857
    """
    row, column, total = a + b, a + c, a + b + c + d

    def ways(count: int) -> int:
        return math.comb(column, count) * math.comb(total - column, row - count)

    possible = range(max(0, row + column - total), min(row, column) + 1)
    return sum(ways(count) for count in possible if ways(count) <= ways(a)) / math.comb(total, row)


def sign_test(count: int, total: int) -> float:
    """Compute the two-sided p of the exact binomial test of a share against one half.

    Args:
        count: How many of them.
        total: How many there are.

    Example:
        >>> sign_test(6, 6), sign_test(1, 2)
        (0.03125, 1.0)
    """
    tail = sum(math.comb(total, one) for one in range(min(count, total - count) + 1))
    return min(1.0, tail / 2 ** (total - 1)) if total else 1.0


def _diverges(lost: int, total: int, alpha: float) -> tuple[Status, str]:
    p = sign_test(lost, total)
    status: Status = "open" if p > alpha else "confirmed" if 2 * lost > total else "refuted"
    return status, f"{status}: diverged: {lost} of {total}, {_p_text(p)} (exact binomial test against one half)"


def _changes(claim: Claim, arm: Mapping[int, float], lost: int, *, alpha: float, points: bool) -> Verdict:
    zero = dict.fromkeys(arm, 0.0)
    difference = compare_arms(
        zero, {claim.arm: arm}, goal="max", margin=claim.margin, alpha=alpha, points=points
    )[claim.arm]  # fmt: skip
    found = {"better": "rises", "worse": "falls"}.get(difference.verdict, difference.verdict)
    status = _status(claim.expect, found, beyond=True)
    numbers = difference.words.removeprefix(difference.verdict).replace(": ", ", ", 1).replace(" pairs)", " seeds)")
    told = f"{found}{numbers}".removeprefix("not distinguishable, ")
    counts = f"; diverged: {lost} of {lost + len(arm)}" if lost else ""
    return Verdict(status, f"{status}: {told}{counts}", difference)


def _p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _status(expect: str, found: str, beyond: bool) -> Status:
    if found == "not distinguishable":
        return "open"
    if found == expect or (expect == "different" and found != "equivalent"):
        return "confirmed"
    return "refuted" if expect != "equivalent" or beyond else "open"


def _is_beyond(difference: Difference, margin: float) -> bool:
    if math.isnan(difference.low):  # no spread, no interval
        return abs(difference.mean) > margin
    return difference.low > margin or difference.high < -margin
