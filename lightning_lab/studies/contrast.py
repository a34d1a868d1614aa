"""The t test of one difference: paired by seed or Welch's, its interval, and the test of equivalence.

Only `scipy.special` is imported, which takes a third of the time of `scipy.stats`: ``study plan`` answers at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, stdtr, stdtrit

#: Metrics are float32 numbers. Values that agree within four of their units in the last place differ by rounding only.
_ROUNDING = 2.0**-21


def checked(values: Mapping[int, float], name: str) -> dict[int, float]:
    """Check that every value is finite, for a mean with a NaN in it is no mean.

    Args:
        values: Values by seed.
        name: Whose values they are, for the message.

    Returns:
        The values, sorted by seed.

    Raises:
        ValueError: If a value is NaN or infinite.

    Example:
        >>> checked({1: 0.97, 0: 0.96}, "reference")
        {0: 0.96, 1: 0.97}
    """
    for seed, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"The value of {name!r} at seed {seed} is {value}. Diverged runs are to be left out.")
    return dict(sorted(values.items()))


@dataclass(frozen=True)
class Contrast:
    """A difference of means with its standard error: all that a t test needs.

    Where the values have no spread at all, t is 0/0 or infinite and says nothing. The exact test by exchange of labels
    takes its place, which needs no spread: n equal differences have the same sign by chance with p = 2^(1-n), so that
    six pairs are needed for 5 %. Such data have no interval.

    Args:
        n: Pairs; or values of the arm.
        n_reference: Pairs; or values of the reference.
        mean: Mean of the arm minus mean of the reference. NaN where either has no value.
        sd: Of the paired differences; or root of the mean of both variances. NaN for one pair or value.
        se: Standard error of `mean`.
        df: Degrees of freedom, not always whole.
        effect: Cohen's d_z (paired) or Hedges' g with the pooled standard deviation (unpaired), both corrected for
            small samples by the factor J. NaN without spread, and at one degree of freedom, where J is zero.
        paired: Whether the seeds are paired.
        exact_p: One-sided p of the exact test, used where there is no spread.

    Reference:
        Hedges, "Distribution Theory for Glass's Estimator of Effect Size and Related Estimators", Journal of
        Educational Statistics 6(2), 1981. Schuirmann, "A comparison of the two one-sided tests procedure and the power
        approach", Journal of Pharmacokinetics and Biopharmaceutics 15, 1987.
    """

    n: int
    n_reference: int
    mean: float
    sd: float
    se: float
    df: float
    effect: float
    paired: bool
    exact_p: float

    def interval(self, confidence: float) -> tuple[float, float]:
        """Compute the t interval; NaN without spread."""
        if not self.se > 0:
            return math.nan, math.nan
        half = float(stdtrit(self.df, 0.5 + confidence / 2)) * self.se
        return self.mean - half, self.mean + half

    def p(self) -> float:
        """Compute the two-sided p of no difference; NaN where there is no spread to be estimated (one seed)."""
        if self.se == 0:
            return 1.0 if self.mean == 0 else min(1.0, 2 * self.exact_p)
        return 2 * float(stdtr(self.df, -abs(self.mean) / self.se))

    def p_equivalence(self, margin: float) -> float:
        """Compute p of the two one-sided tests (TOST): small where the difference is shown to be within the margin.

        Args:
            margin: Above 0: the smallest difference that counts.
        """
        if self.se == 0:
            return self.exact_p if abs(self.mean) < margin else 1.0
        return float(stdtr(self.df, (abs(self.mean) - margin) / self.se))


def paired(arm: ArrayLike, reference: ArrayLike) -> Contrast:
    """Contrast two arms by the differences of their pairs.

    Args:
        arm: Values, in the order of the seeds.
        reference: As many, of the same seeds.

    Example:
        >>> contrast = paired([0.93, 0.95, 0.94], [0.92, 0.92, 0.92])
        >>> f"{contrast.mean:.4f} {contrast.p():.4f}"
        '0.0200 0.0742'
    """
    a, b = np.asarray(arm, np.float64), np.asarray(reference, np.float64)
    differences = a - b
    n = len(differences)
    if n == 0:
        return Contrast(0, 0, math.nan, math.nan, math.nan, math.nan, math.nan, True, math.nan)
    mean = _mean_without_rounding(float(differences.mean()), a, b)
    sd = _spread(differences, a, b)
    return Contrast(n, n, mean, sd, sd / math.sqrt(n), n - 1, _effect(mean, sd, n - 1), True, 2.0**-n)


def welch(arm: ArrayLike, reference: ArrayLike) -> Contrast:
    """Contrast two arms without pairs; their variances may differ.

    Args:
        arm: Values.
        reference: Values.

    Example:
        >>> contrast = welch([0.93, 0.95, 0.94], [0.92, 0.92, 0.91, 0.93])
        >>> f"{contrast.mean:.4f} {contrast.df:.3f} {contrast.p():.4f}"
        '0.0200 3.857 0.0495'

    Reference:
        Welch, "The generalization of 'Student's' problem when several different population variances are involved",
        Biometrika 34, 1947.
    """
    a, b = np.asarray(arm, np.float64), np.asarray(reference, np.float64)
    n_a, n_b = len(a), len(b)
    mean = _mean_without_rounding(float(a.mean() - b.mean()), a, b) if n_a and n_b else math.nan
    if min(n_a, n_b) < 2:
        return Contrast(n_a, n_b, mean, math.nan, math.nan, math.nan, math.nan, False, math.nan)
    variance_a, variance_b = _spread(a, a, b) ** 2, _spread(b, a, b) ** 2
    part_a, part_b = variance_a / n_a, variance_b / n_b
    se = math.sqrt(part_a + part_b)
    df = (part_a + part_b) ** 2 / (part_a**2 / (n_a - 1) + part_b**2 / (n_b - 1)) if se else n_a + n_b - 2.0
    pooled = math.sqrt(((n_a - 1) * variance_a + (n_b - 1) * variance_b) / (n_a + n_b - 2))
    sd = math.sqrt((variance_a + variance_b) / 2)
    effect = _effect(mean, pooled, n_a + n_b - 2)
    return Contrast(n_a, n_b, mean, sd, se, df, effect, False, 1 / math.comb(n_a + n_b, n_a))


def _spread(values: NDArray[np.float64], *measured: NDArray[np.float64]) -> float:
    if len(values) < 2:
        return math.nan
    sd = float(values.std(ddof=1))
    return sd if sd > _rounding(*measured) else 0.0


def _mean_without_rounding(mean: float, *measured: NDArray[np.float64]) -> float:
    return mean if abs(mean) > _rounding(*measured) else 0.0


def _rounding(*measured: NDArray[np.float64]) -> float:
    return _ROUNDING * max(float(np.abs(values).max(initial=0.0)) for values in measured)


def _effect(mean: float, sd: float, df: int) -> float:
    if not sd > 0 or df < 2:
        return math.nan
    # Hedges' J, exactly.
    correction = math.exp(float(gammaln(df / 2) - gammaln((df - 1) / 2))) / math.sqrt(df / 2)
    return correction * mean / sd
