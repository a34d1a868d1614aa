"""The tests and adjustments beneath the statistics, against scipy, a printed table and by hand; and the examples."""

from __future__ import annotations

import doctest
import importlib
import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from lightning_lab.studies.contrast import paired, welch
from lightning_lab.studies.holm import holm
from lightning_lab.studies.wording import amount


@pytest.mark.parametrize(
    "module", ["claims", "comparison", "contrast", "estimate", "factorial", "holm", "power", "wording"]
)
def test_the_examples_hold(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"lightning_lab.studies.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_both_tests_against_scipy(n: int) -> None:
    random = np.random.default_rng(n)
    a, b = random.normal(0.5, 1, n), random.normal(0, 3, n + 2)
    together, apart = stats.ttest_rel(a, b[:n]), stats.ttest_ind(a, b, equal_var=False)
    assert paired(a, b[:n]).p() == pytest.approx(together.pvalue, rel=1e-9)
    assert paired(a, b[:n]).interval(0.9) == pytest.approx(tuple(together.confidence_interval(0.9)), rel=1e-9)
    assert welch(a, b).p() == pytest.approx(apart.pvalue, rel=1e-9)
    assert welch(a, b).interval(0.95) == pytest.approx(tuple(apart.confidence_interval(0.95)), rel=1e-9)


@pytest.mark.parametrize("shift", [-0.4, 0.0, 0.3, 2.0])
def test_equivalence_is_two_one_sided_tests(shift: float) -> None:
    random = np.random.default_rng(7)
    a, b, margin = random.normal(shift, 0.4, 8), random.normal(0, 0.4, 8), 0.5
    lower = stats.ttest_rel(a + margin, b, alternative="greater").pvalue
    upper = stats.ttest_rel(a - margin, b, alternative="less").pvalue
    assert paired(a, b).p_equivalence(margin) == pytest.approx(max(lower, upper), rel=1e-9)
    # The same as: the 90 % interval lies within the margin.
    low, high = paired(a, b).interval(0.9)
    assert (paired(a, b).p_equivalence(margin) < 0.05) == (-margin < low and high < margin)


@pytest.mark.parametrize(("df", "correction"), [(2, 0.5642), (3, 0.7236), (4, 0.7979), (5, 0.8408), (10, 0.9228)])
def test_the_small_sample_correction_is_that_of_the_printed_table(df: int, correction: float) -> None:
    # Hedges 1981, table 1. Differences of mean 2 and standard deviation 1 have d_z = 2.
    normal = np.array(NormalDist().samples(df + 1, seed=df))
    differences = 2 + (normal - normal.mean()) / normal.std(ddof=1)
    assert paired(differences, np.zeros(df + 1)).effect == pytest.approx(2 * correction, abs=2e-4)


def test_the_unpaired_effect_is_hedges_g() -> None:
    # By hand: means 5 and 3, variances 1 and 8 (n = 3 and 2), pooled variance (2 x 1 + 1 x 8) / 3, df 3.
    assert welch([4.0, 5, 6], [1.0, 5]).effect == pytest.approx(0.7236 * 2 / math.sqrt(10 / 3), abs=1e-4)
    assert math.isnan(paired([1.0, 2], [0.0, 0]).effect)  # one degree of freedom


def test_holm_by_hand() -> None:
    # Sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04; the last may not be below the one before it.
    expected = {"a": 0.03, "b": 0.06, "none": math.nan, "c": 0.06, "d": 0.02}
    adjusted = holm({"a": 0.01, "b": 0.04, "none": math.nan, "c": 0.03, "d": 0.005})
    assert list(adjusted) == list(expected)
    assert adjusted == pytest.approx(expected, nan_ok=True)
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}


def test_the_exact_p_is_that_of_exchanged_labels() -> None:
    result = stats.permutation_test(([1.0] * 4, [0.0] * 4), lambda x, y: np.mean(x) - np.mean(y), n_resamples=np.inf)
    assert welch([1.0] * 4, [0.0] * 4).p() == pytest.approx(result.pvalue)


@pytest.mark.parametrize(
    ("value", "half", "text"),
    [(0.01234, 0.05, "0.012"), (123.4, 56.0, "123"), (2.97e-5, 1e-6, "2.97e-05"), (0.5, 0.0, "0.5")],
)
def test_as_many_digits_as_the_interval_leaves(value: float, half: float, text: str) -> None:
    assert amount(value, half=half) == text
