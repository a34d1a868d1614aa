"""How many seeds a difference needs, and how small a difference a number of seeds can show: power of the t test.

The spread these are computed from is itself an estimate, and from few seeds a rough one: with three its 95 % interval
goes from half to six times it. Read "about".
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.special import nctdtr, stdtrit

#: Nobody trains more seeds than this to settle a question.
MOST_SEEDS = 1000


def power_of(difference: float, sd: float, n: int, *, alpha: float = 0.05, paired: bool = True) -> float:
    """Compute the probability that the two-sided t test finds a difference.

    Args:
        difference: The true one.
        sd: Standard deviation of the paired differences; unpaired, of the values of an arm. Above 0.
        n: Pairs; unpaired, values of each arm. From 2.
        alpha: Significance level.
        paired: Whether the seeds are paired.

    Returns:
        The power, `alpha` for no difference.

    Example:
        >>> round(power_of(0.5, 1.0, 34), 4)
        0.8078

    Reference:
        Cohen, "Statistical Power Analysis for the Behavioral Sciences", 2nd edition, 1988, chapter 2.
    """
    df, critical, noncentrality = _distribution(difference, sd, n, alpha / 2, paired)
    return 1 - _cumulative(df, noncentrality, critical) + _cumulative(df, noncentrality, -critical)


def power_of_equivalence(
    difference: float, sd: float, n: int, *, margin: float, alpha: float = 0.05, paired: bool = True
) -> float:
    """Compute the probability that the two one-sided tests show equivalence.

    The two tests share one standard error; their joint distribution is approximated by the difference of two noncentral
    t distributions, which is close wherever the power is worth having.

    Args:
        difference: The true one.
        sd: As for `power_of`.
        n: As for `power_of`.
        margin: Above 0.
        alpha: Level of each one-sided test.
        paired: Whether the seeds are paired.

    Example:
        >>> round(power_of_equivalence(0.0, 1.0, 36, margin=0.5), 3)
        0.805
    """
    df, critical, above = _distribution(difference + margin, sd, n, alpha, paired)
    below = _distribution(difference - margin, sd, n, alpha, paired)[2]
    return max(0.0, _cumulative(df, below, -critical) - _cumulative(df, above, critical))


def seeds_needed(
    difference: float, sd: float, *, alpha: float = 0.05, power: float = 0.8, paired: bool = True
) -> int | None:
    """Count the seeds that show a difference with the given power.

    Args:
        difference: The true one; either sign.
        sd: As for `power_of`.
        alpha: Significance level, two-sided.
        power: In (0, 1).
        paired: Whether the seeds are paired.

    Returns:
        Seeds of each arm, from 2; None if `MOST_SEEDS` are not enough.

    Raises:
        ValueError: If `sd` is not above 0.

    Example:
        >>> seeds_needed(0.5, 1.0), seeds_needed(0.5, 1.0, paired=False), seeds_needed(0.0, 1.0)
        (34, 64, None)
    """
    _check(sd)
    return _least(lambda n: power_of(difference, sd, n, alpha=alpha, paired=paired) >= power)


def seeds_for_equivalence(
    difference: float, sd: float, *, margin: float, alpha: float = 0.05, power: float = 0.8, paired: bool = True
) -> int | None:
    """Count the seeds that show, with the given power, that a difference is within the margin.

    Args:
        difference: The true one.
        sd: As for `power_of`.
        margin: Above 0.
        alpha: Level of each one-sided test.
        power: In (0, 1).
        paired: Whether the seeds are paired.

    Returns:
        Seeds of each arm, from 2; None if `MOST_SEEDS` are not enough.

    Raises:
        ValueError: If `sd` is not above 0.

    Example:
        >>> seeds_for_equivalence(0.0, 1.0, margin=0.5), seeds_for_equivalence(0.6, 1.0, margin=0.5)
        (36, None)
    """
    _check(sd)
    return _least(lambda n: power_of_equivalence(difference, sd, n, margin=margin, alpha=alpha, paired=paired) >= power)


def smallest_difference(sd: float, n: int, *, alpha: float = 0.05, power: float = 0.8, paired: bool = True) -> float:
    """Compute the smallest difference that a number of seeds shows with the given power.

    Args:
        sd: As for `power_of`; 0 is allowed.
        n: Seeds of each arm, from 1.
        alpha: Significance level, two-sided; divide it by the number of arms for what Holm's method is sure to leave.
        power: Above `alpha`, below 1.
        paired: Whether the seeds are paired.

    Returns:
        The difference; infinite for one seed, which shows none.

    Example:
        >>> round(smallest_difference(1.0, 34), 3), round(smallest_difference(0.003, 5), 5), smallest_difference(1.0, 1)
        (0.495, 0.00505, inf)
    """
    if n < 2:
        return math.inf
    if sd == 0:
        return 0.0
    _check(sd)
    low, high = 0.0, sd
    while power_of(high, sd, n, alpha=alpha, paired=paired) < power:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        if power_of(middle, sd, n, alpha=alpha, paired=paired) < power:
            low = middle
        else:
            high = middle
    return high


def _distribution(difference: float, sd: float, n: int, tail: float, paired: bool) -> tuple[int, float, float]:
    # Degrees of freedom, critical t, noncentrality.
    df, se = (n - 1, sd / math.sqrt(n)) if paired else (2 * n - 2, sd * math.sqrt(2 / n))
    return df, float(stdtrit(df, 1 - tail)), difference / se


def _cumulative(df: int, noncentrality: float, t: float) -> float:
    if noncentrality < 0:
        return 1 - _cumulative(df, -noncentrality, -t)
    probability = float(nctdtr(df, noncentrality, t))
    # scipy 1.17 answers NaN far out in a tail, where 0 is right to 1e-9.
    return 0.0 if math.isnan(probability) else probability


def _check(sd: float) -> None:
    if not sd > 0:
        raise ValueError(f"`sd` must be above 0, got {sd}. Without spread the t test has no power to compute.")


def _least(enough: Callable[[int], bool]) -> int | None:
    # Power rises with n.
    low, high = 1, 2
    while not enough(high):
        if high >= MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
