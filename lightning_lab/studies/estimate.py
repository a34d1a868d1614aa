"""What the seeds say about one arm: mean, spread, interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from lightning_lab.studies.contrast import checked


@dataclass(frozen=True)
class Estimate:
    """What the seeds say about one arm.

    Args:
        n: Values.
        mean: Their mean.
        sd: Their standard deviation (n - 1); NaN for one value.
        low: Lower end of the 95 % t interval of the mean; NaN for one value, the mean where all values are equal.
        high: Upper end.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


def estimate(values: Iterable[float]) -> Estimate:
    """Estimate the mean of an arm over its seeds.

    The interval holds for values that are about normally distributed, as accuracies are. Of strongly skewed ones, such
    as losses of which a few are ten times the others, it contains the mean in 82 to 84 % only (lognormal with sigma 1,
    three to ten seeds; `benchmarks/false_positives.py`).

    Args:
        values: One for each seed; at least one.

    Returns:
        n, mean, standard deviation and 95 % t interval.

    Raises:
        ValueError: If there is no value, or if one is not finite.

    Example:
        >>> arm = estimate([0.92, 0.94, 0.93])
        >>> f"{arm.mean:.3f} ({arm.low:.3f} to {arm.high:.3f}, n = {arm.n})"
        '0.930 (0.905 to 0.955, n = 3)'
    """
    known = np.array(list(checked(dict(enumerate(values)), "values").values()))
    n = len(known)
    if n == 0:
        raise ValueError("An estimate needs at least one value.")
    if n == 1 or np.ptp(known) == 0:
        # The sum of equal numbers is rounded, so that the formulas would give a spread that is none.
        value = float(known[0])
        return Estimate(n, value, math.nan, math.nan, math.nan) if n == 1 else Estimate(n, value, 0.0, value, value)
    mean, sd = float(known.mean()), float(known.std(ddof=1))
    half = float(stdtrit(n - 1, 0.975)) * sd / math.sqrt(n)
    return Estimate(n, mean, sd, mean - half, mean + half)
