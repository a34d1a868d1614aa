"""Full factorial designs: main effects and two-way interactions, with the seed as block.

Every effect is a contrast computed within each seed and tested by its own spread over the seeds (a paired t test). The
pooled residual of an analysis of variance would have more degrees of freedom, and would be wrong wherever one level
trains less steadily than another, which is common.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_lab.studies.contrast import Contrast, checked, paired
from lightning_lab.studies.holm import holm
from lightning_lab.studies.wording import evidence

#: Factors, levels, the levels they are compared with, and the difference.
_Named = tuple[tuple[str, ...], tuple[Any, ...], tuple[Any, ...], Contrast]


@dataclass(frozen=True)
class Effect:
    """A main effect or an interaction of two factors: one contrast.

    Args:
        factors: One name, or two.
        levels: The level of each factor.
        against: The level of each factor that it is compared with.
        n: Seeds for which every cell of the design has a value.
        mean: Main effect: mean at the level minus mean at the other one, over all levels of the other factors.
            Interaction: the difference that the first factor makes at the level of the second, minus the difference it
            makes at the other level of the second.
        low: Lower end of the 95 % t interval (1 - alpha, not adjusted); NaN for fewer than two seeds or no spread.
        high: Upper end.
        p: Two-sided p; NaN for fewer than two seeds.
        p_holm: The same, adjusted for all main effects, or for all interactions.
        words: The effect with its numbers.
    """

    factors: tuple[str, ...]
    levels: tuple[Any, ...]
    against: tuple[Any, ...]
    n: int
    mean: float
    low: float
    high: float
    p: float
    p_holm: float
    words: str


def main_effects(
    factors: Mapping[str, Sequence[Any]],
    levels: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, Mapping[int, float]],
    *,
    reference: Mapping[str, Any] | None = None,
    alpha: float = 0.05,
    points: bool = False,
) -> list[Effect]:
    """Compute what each level of each factor changes against the level of the reference.

    Args:
        factors: The levels of each factor.
        levels: The level of each factor in each arm, by the arm's name.
        values: Metric by seed of each arm. Seeds for which any arm has no value are left out.
        reference: The level of each factor that its others are compared with; without it, the first ones.
        alpha: 1 minus the confidence of the intervals, and the level of the words.
        points: Whether the metric is a fraction that the words give in percentage points.

    Returns:
        An effect for each other level of each factor.

    Raises:
        ValueError: If the design is not full (a combination without an arm), or if a value is not finite.

    Example:
        >>> factors = {"width": [10, 50], "depth": [1, 2]}
        >>> levels = {f"{w}-{d}": {"width": w, "depth": d} for w in (10, 50) for d in (1, 2)}
        >>> values = {"10-1": {0: 1.0, 1: 2.0}, "10-2": {0: 1.5, 1: 2.5}, "50-1": {0: 3.0, 1: 4.5},
        ...           "50-2": {0: 3.5, 1: 4.5}}
        >>> for effect in main_effects(factors, levels, values):
        ...     print(effect.words)
        width 50 against 10: +2.1 (95 % 0.5 to 3.7, n = 2 pairs), p = 0.037, p = 0.075 adjusted for 2 effects
        depth 2 against 1: +0.4 (95 % -1.2 to 2.0, n = 2 pairs), p = 0.20, p = 0.20 adjusted for 2 effects
    """
    factors = _reference_first(factors, reference)
    array = _array(factors, levels, values)
    found: list[_Named] = []
    for axis, (factor, (first, *others)) in enumerate(factors.items()):
        # Averaged over the other factors: (levels of this one, seeds)
        means = array.mean(axis=tuple(other for other in range(len(factors)) if other != axis))
        found += [
            ((factor,), (level,), (first,), paired(mean, means[0]))
            for level, mean in zip(others, means[1:], strict=True)
        ]
    return _effects(found, alpha, points)


def interactions(
    factors: Mapping[str, Sequence[Any]],
    levels: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, Mapping[int, float]],
    *,
    reference: Mapping[str, Any] | None = None,
    alpha: float = 0.05,
    points: bool = False,
) -> list[Effect]:
    """Compute by how much the effect of one factor differs between two levels of another.

    Args:
        factors: As for `main_effects`.
        levels: As for `main_effects`.
        values: As for `main_effects`.
        reference: As for `main_effects`.
        alpha: 1 minus the confidence of the intervals, and the level of the words.
        points: Whether the metric is a fraction that the words give in percentage points.

    Returns:
        An effect for each pair of factors and each pair of their other levels; none for a single factor.

    Raises:
        ValueError: If the design is not full (a combination without an arm), or if a value is not finite.

    Example:
        >>> factors = {"width": [10, 50], "depth": [1, 2]}
        >>> levels = {f"{w}-{d}": {"width": w, "depth": d} for w in (10, 50) for d in (1, 2)}
        >>> values = {"10-1": {0: 1.0, 1: 2.0}, "10-2": {0: 1.5, 1: 2.5}, "50-1": {0: 3.0, 1: 4.5},
        ...           "50-2": {0: 3.5, 1: 4.5}}
        >>> [effect.mean for effect in interactions(factors, levels, values)]
        [-0.25]
    """
    factors = _reference_first(factors, reference)
    array = _array(factors, levels, values)
    found: list[_Named] = []
    for (a, (a_name, a_levels)), (b, (b_name, b_levels)) in itertools.combinations(enumerate(factors.items()), 2):
        # (levels of the first, levels of the second, seeds)
        means = array.mean(axis=tuple(other for other in range(len(factors)) if other not in (a, b)))
        found += [
            (
                (a_name, b_name),
                (a_levels[i], b_levels[j]),
                (a_levels[0], b_levels[0]),
                # (at both levels, minus at the first of a) minus the same at the first of b, in a form in which the
                # numbers keep their size: what counts as rounding is judged by it.
                paired(means[i, j] + means[0, 0], means[0, j] + means[i, 0]),
            )
            for i in range(1, len(a_levels))
            for j in range(1, len(b_levels))
        ]
    return _effects(found, alpha, points)


def _reference_first(factors: Mapping[str, Sequence[Any]], reference: Mapping[str, Any] | None) -> dict[str, list[Any]]:
    # Levels are compared as written: 1 equals true in Python.
    first = reference or {factor: levels[0] for factor, levels in factors.items()}
    return {
        factor: sorted(levels, key=lambda level: repr(level) != repr(first[factor]))
        for factor, levels in factors.items()
    }


def _array(
    factors: Mapping[str, Sequence[Any]],
    levels: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, Mapping[int, float]],
) -> NDArray[np.float64]:
    # Axes: the factors, then the seeds.
    arms = {tuple(repr(own[factor]) for factor in factors): arm for arm, own in levels.items()}
    cells = list(itertools.product(*factors.values()))
    for cell in cells:
        if tuple(map(repr, cell)) not in arms:
            wanted = ", ".join(f"{factor} = {level}" for factor, level in zip(factors, cell, strict=True))
            raise ValueError(f"The design is not full: no arm has {wanted}. Its arms can only be compared one by one.")
    names = [arms[tuple(map(repr, cell))] for cell in cells]
    known = [checked(values.get(name, {}), name) for name in names]
    seeds = sorted(set.intersection(*(set(own) for own in known)))
    table = np.array([[own[seed] for seed in seeds] for own in known], np.float64)
    return table.reshape(*(len(factors[factor]) for factor in factors), len(seeds))


def _effects(found: list[_Named], alpha: float, points: bool) -> list[Effect]:
    adjusted = holm({index: contrast.p() for index, (*_, contrast) in enumerate(found)})
    effects = []
    for index, (factors, levels, against, contrast) in enumerate(found):
        low, high = contrast.interval(1 - alpha)
        of = " x ".join(f"{factor} {level}" for factor, level in zip(factors, levels, strict=True))
        base = " x ".join(map(str, against))
        words = f"{of} against {base}: {evidence(contrast, adjusted[index], len(found), 'effects', alpha, points)}"
        p = contrast.p()
        effects.append(
            Effect(factors, levels, against, contrast.n, contrast.mean, low, high, p, adjusted[index], words)
        )
    return effects
