"""Learning curves of an arm: each run's, their mean, and its 95 % band; raw and exponentially smoothed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

#: Weight of the past, as TensorBoard's slider is set at first.
SMOOTHING = 0.6

Line = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Band:
    """Mean and 95 % t interval by epoch; the interval is NaN where fewer than two runs go on."""

    epochs: NDArray[np.int64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def line_of(rows: Sequence[Mapping[str, Any]], metric: str) -> list[tuple[int, float]]:
    """Collect a metric by epoch; epochs without a finite value are left out."""
    values = ((row.get("epoch"), row.get(metric)) for row in rows)
    return [
        (int(epoch), float(value))
        for epoch, value in values
        if isinstance(epoch, int) and isinstance(value, int | float) and math.isfinite(value)
    ]


def smooth(line: Line, weight: float = SMOOTHING) -> list[tuple[int, float]]:
    """Take the exponential moving average, corrected for its start as in Adam, so that it begins at the first value.

    Args:
        line: A curve.
        weight: In [0, 1): the weight of the past.

    Example:
        >>> smooth([(1, 1.0), (2, 2.0)], weight=0.5)
        [(1, 1.0), (2, 1.6666666666666667)]
    """
    total, smoothed = 0.0, []
    for count, (epoch, value) in enumerate(line, 1):
        total = weight * total + (1 - weight) * value
        smoothed.append((epoch, total / (1 - weight**count)))
    return smoothed


def band_of(lines: Sequence[Line]) -> Band:
    """Average curves, at each epoch over those that have it."""
    epochs = np.asarray(sorted({epoch for line in lines for epoch, _ in line}), np.int64)
    values = np.full((len(lines), len(epochs)), np.nan)
    for row, line in zip(values, lines, strict=True):
        if line:
            row[np.searchsorted(epochs, [epoch for epoch, _ in line])] = [value for _, value in line]
    n = np.isfinite(values).sum(axis=0)  # at least 1
    mean = np.nansum(values, axis=0) / n
    freedom = np.where(n > 1, n - 1, np.nan)
    variance = np.nansum((values - mean) ** 2, axis=0) / freedom
    half = stdtrit(freedom, 0.975) * np.sqrt(variance / n)
    return Band(epochs, mean, mean - half, mean + half)


def thin(count: int, most: int) -> list[int]:
    """Choose at most `most` of `count` points, evenly, the first and the last among them.

    Example:
        >>> thin(5, 10), thin(9, 3)
        ([0, 1, 2, 3, 4], [0, 4, 8])
    """
    if count <= most:
        return list(range(count))
    return sorted({round(index * (count - 1) / (most - 1)) for index in range(most)})
