"""Holm's adjustment of several p values."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """Adjust p values by Holm's step-down method: the family-wise error stays at the level, whatever their dependence.

    Args:
        p_values: By name. NaN (nothing was tested) stays and does not count.

    Returns:
        The adjusted p values, in the order given.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
        {'a': 0.03, 'b': 0.06, 'c': 0.06, 'd': 0.02}

    Reference:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    tested = sorted((name for name in p_values if not math.isnan(p_values[name])), key=lambda name: p_values[name])
    adjusted = dict(p_values)
    largest = 0.0
    for rank, name in enumerate(tested):
        # No p may end below that of a smaller one.
        largest = max(largest, min(1.0, (len(tested) - rank) * p_values[name]))
        adjusted[name] = largest
    return adjusted
