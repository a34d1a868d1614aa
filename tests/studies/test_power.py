"""Power, seeds needed and the smallest difference: against printed values, quadrature and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import ndtr

from lightning_lab.studies.contrast import paired
from lightning_lab.studies.power import (
    power_of,
    power_of_equivalence,
    seeds_for_equivalence,
    seeds_needed,
    smallest_difference,
)


def test_power_printed_by_r() -> None:
    # R, ?power.t.test: power.t.test(n = 20, delta = 1) prints power = 0.8689528.
    assert power_of(1.0, 1.0, 20, paired=False) == pytest.approx(0.8689528, abs=1e-6)


@pytest.mark.parametrize(
    ("difference", "power", "pairs", "expected"),
    [
        (1.0, 0.9, False, 23),  # R, ?power.t.test: power.t.test(power = .90, delta = 1) prints n = 22.02110
        (0.5, 0.8, False, 64),  # Cohen 1988, table 2.4.1: d = 0.5
        (0.8, 0.8, False, 26),  # the same, d = 0.8
        (-0.8, 0.8, False, 26),
        (0.5, 0.8, True, 34),  # G*Power 3.1: matched pairs, d_z = 0.5
        (100.0, 0.8, True, 2),
        (0.01, 0.8, True, None),
    ],
)
def test_seeds_needed(difference: float, power: float, pairs: bool, expected: int | None) -> None:
    assert seeds_needed(difference, 1.0, power=power, paired=pairs) == expected


def quadrature(df: int, noncentrality: float, t: float) -> float:
    # By definition: T = (Z + noncentrality) / sqrt(U / df), U of the chi-squared distribution.
    chi, scale = stats.chi(df), t / math.sqrt(df)
    low, high = chi.ppf(1e-12), chi.isf(1e-12)
    return float(
        integrate.quad(lambda u: ndtr(scale * u - noncentrality) * chi.pdf(u), low, high, points=[min(high, max(
            low, noncentrality / scale))], limit=300)[0]
    )  # fmt: skip


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("effect", [0.1, 1.0, 5.0, 20.0])
def test_power_against_quadrature(n: int, effect: float, alpha: float) -> None:
    # scipy's function gives NaN at some of these.
    critical, noncentrality = stats.t.isf(alpha / 2, n - 1), effect * math.sqrt(n)
    outside = 1 - quadrature(n - 1, noncentrality, critical) + quadrature(n - 1, noncentrality, -critical)
    assert power_of(effect, 1.0, n, alpha=alpha) == pytest.approx(outside, abs=1e-6)
    assert power_of(-effect, 1.0, n, alpha=alpha) == pytest.approx(outside, abs=1e-6)


@pytest.mark.parametrize(("n", "effect"), [(3, 2.0), (5, 1.0), (10, 1.0)])
def test_power_against_simulation(n: int, effect: float) -> None:
    studies = 40_000
    drawn = np.random.default_rng(n).normal(effect, 1.0, (studies, n))
    found = float((stats.ttest_1samp(drawn, 0.0, axis=1).pvalue <= 0.05).mean())
    assert power_of(effect, 1.0, n) == pytest.approx(found, abs=4 * math.sqrt(found * (1 - found) / studies))


@pytest.mark.parametrize(("n", "difference", "margin"), [(5, 0.0, 2.0), (10, 0.3, 1.5), (36, 0.0, 0.5)])
def test_power_of_equivalence_against_simulation(n: int, difference: float, margin: float) -> None:
    studies = 40_000
    drawn = np.random.default_rng(n).normal(difference, 1.0, (studies, n))
    half = stats.t.isf(0.05, n - 1) * drawn.std(axis=1, ddof=1) / math.sqrt(n)
    found = float((np.abs(drawn.mean(axis=1)) + half <= margin).mean())
    computed = power_of_equivalence(difference, 1.0, n, margin=margin)
    assert computed == pytest.approx(found, abs=4 * math.sqrt(found * (1 - found) / studies))


def test_seeds_for_equivalence() -> None:
    assert seeds_for_equivalence(0.0, 1.0, margin=0.5) == 36
    assert power_of_equivalence(0.0, 1.0, 35, margin=0.5) < 0.8 <= power_of_equivalence(0.0, 1.0, 36, margin=0.5)
    assert seeds_for_equivalence(-0.3, 1.0, margin=0.5) == seeds_for_equivalence(0.3, 1.0, margin=0.5)
    assert seeds_for_equivalence(0.5, 1.0, margin=0.5) is None


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("alpha", [0.05, 0.005])
@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_the_smallest_difference_has_the_power_asked_for(n: int, alpha: float, pairs: bool) -> None:
    smallest = smallest_difference(0.01, n, alpha=alpha, paired=pairs)
    assert power_of(smallest, 0.01, n, alpha=alpha, paired=pairs) == pytest.approx(0.8, abs=1e-9)


def test_the_smallest_difference_at_the_ends() -> None:
    assert smallest_difference(1.0, 1) == math.inf
    assert smallest_difference(0.0, 3) == 0.0
    # Hand-worked bound: at n = 2 the critical t is 12.71, and |Z| is below 1.2816 in 80 % of all draws.
    assert smallest_difference(1.0, 2) == pytest.approx(12.706 * 1.2816 / math.sqrt(2), rel=0.01)


@pytest.mark.parametrize("sd", [0.0, -1.0, math.nan])
def test_no_power_without_spread(sd: float) -> None:
    with pytest.raises(ValueError, match=r"`sd` must be above 0"):
        seeds_needed(1.0, sd)
    with pytest.raises(ValueError, match=r"`sd` must be above 0"):
        seeds_for_equivalence(0.0, sd, margin=1.0)


def test_a_negative_spread_is_refused() -> None:
    with pytest.raises(ValueError, match=rf"`sd` must be above 0, got {-1.0}"):
        smallest_difference(-1.0, 3)


def test_the_seeds_needed_are_those_of_the_observed_difference() -> None:
    contrast = paired([1.3, 0.9, 1.8, 1.1], [1.0, 1.0, 1.0, 1.0])
    needed = seeds_needed(contrast.mean, contrast.sd)
    assert needed is not None
    assert power_of(contrast.mean, contrast.sd, needed) >= 0.8 > power_of(contrast.mean, contrast.sd, needed - 1)
