"""Estimates and differences against scipy, printed examples and hand-worked ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lightning_lab.studies.contrast import paired, welch
from lightning_lab.studies.statistics import (
    Difference,
    compare_arms,
    estimate,
    seeds_for_equivalence,
    seeds_needed,
)

#: Student, "The Probable Error of a Mean", Biometrika 6, 1908: hours of sleep gained by ten patients with two drugs.
#: The expected numbers are those that R prints for its data set `sleep`, in the examples of `?sleep` and `?t.test`.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def seeded(values: list[float], first: int = 0) -> dict[int, float]:
    return dict(enumerate(values, start=first))


def compare(arm: list[float], reference: list[float], *, pairs: bool = True, **options: object) -> Difference:
    own = seeded(arm, 0 if pairs else 100)
    return compare_arms(seeded(reference), {"arm": own}, **{"goal": "max", **options})["arm"]  # type: ignore[arg-type]


def test_mean_and_spread_of_an_ill_conditioned_set() -> None:
    # NIST Statistical Reference Datasets, NumAcc4: mean 10000000.2, standard deviation 0.1, both exact.
    arm = estimate([10000000.2, *[10000000.1, 10000000.3] * 500])
    assert arm.n == 1001
    assert arm.mean == pytest.approx(10000000.2, rel=1e-14)
    assert arm.sd == pytest.approx(0.1, rel=1e-7)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_the_interval_is_that_of_scipy(n: int) -> None:
    values = np.random.default_rng(n).normal(0.9, 0.02, n)
    arm, theirs = estimate(values), stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (arm.low, arm.high) == pytest.approx(tuple(theirs), rel=1e-10)


def test_one_value_has_no_interval() -> None:
    arm = estimate([0.93])
    assert (arm.n, arm.mean) == (1, 0.93)
    assert all(map(math.isnan, (arm.sd, arm.low, arm.high)))


def test_equal_values_have_no_spread_from_rounding() -> None:
    arm = estimate([0.1] * 3)
    assert (arm.mean, arm.sd, arm.low, arm.high) == (0.1, 0.0, 0.1, 0.1)


def test_no_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs at least one value"):
        estimate([])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_no_number_is_refused_by_name(value: float) -> None:
    with pytest.raises(ValueError, match=rf"'dropout' at seed 3 is {value}"):
        compare_arms({1: 0.9, 3: 0.9}, {"dropout": {1: 0.9, 3: value}}, goal="max")
    with pytest.raises(ValueError, match=rf"'the reference' at seed 1 is {value}"):
        compare_arms({1: value}, {}, goal="max")
    with pytest.raises(ValueError, match=rf"'values' at seed 0 is {value}"):
        estimate([value])


def test_paired_against_the_printed_example() -> None:
    difference = compare(FIRST, SECOND)
    assert difference.paired
    assert (difference.n, difference.n_reference) == (10, 10)
    assert difference.mean == pytest.approx(-1.58)
    assert (difference.low, difference.high) == pytest.approx((-2.4598858, -0.7001142), abs=1e-6)
    assert difference.p == pytest.approx(0.002833, abs=1e-6)
    assert difference.p_holm == difference.p
    assert difference.verdict == "worse"


def test_unpaired_against_the_printed_example() -> None:
    difference = compare(FIRST, SECOND, pairs=False)
    assert not difference.paired
    assert welch(FIRST, SECOND).df == pytest.approx(17.776, abs=1e-3)
    assert (difference.low, difference.high) == pytest.approx((-3.3654832, 0.2054832), abs=1e-6)
    assert difference.p == pytest.approx(0.07939, abs=1e-5)
    assert difference.verdict == "not distinguishable"


def test_several_arms_are_adjusted_and_the_words_say_so() -> None:
    reference = seeded([0.90, 0.91, 0.90, 0.92, 0.91])
    far = {seed: value + 0.05 + 0.001 * (seed % 2) for seed, value in reference.items()}
    near = {seed: value + step for (seed, value), step in zip(reference.items(), [0, 9, 5, 9, 4], strict=True)}
    found = compare_arms(reference, {"far": far, "near": near, "none": {}, "one": {2: 0.95}}, goal="max")
    assert found["far"].p_holm == pytest.approx(2 * found["far"].p)
    assert found["far"].verdict == "better"
    assert "p < 0.001, p < 0.001 adjusted for 4 arms" in found["far"].words
    assert found["near"].p_holm == found["near"].p
    assert found["none"].words == "not distinguishable: no values to compare"
    assert math.isnan(found["none"].mean)
    assert found["one"].words == "not distinguishable: +0.05 (n = 1 pair); one seed says nothing about the spread"
    assert found["one"].seeds_needed is None


def test_the_seeds_needed_are_those_that_holm_asks_of_the_undecided_arms() -> None:
    random = np.random.default_rng(3)
    reference, margin = seeded(list(random.normal(size=6))), 2.0
    arms = {name: seeded(list(random.normal(shift, 1, 6))) for name, shift in (("a", 0.6), ("b", -0.1), ("far", 40))}
    found = compare_arms(reference, arms, goal="max", margin=margin)
    contrasts = {name: paired(list(arms[name].values()), list(reference.values())) for name in arms}
    for_difference = {name: seeds_needed(c.mean, c.sd, alpha=0.05 / 2) for name, c in contrasts.items()}
    assert [found[name].verdict for name in arms] == ["not distinguishable", "not distinguishable", "better"]
    assert [found[name].seeds_needed for name in arms] == [for_difference["a"], for_difference["b"], None]
    # Three are not shown to be equivalent.
    c = contrasts["b"]
    needed = seeds_for_equivalence(c.mean, c.sd, margin=margin, alpha=0.05 / 3)
    assert found["b"].words.endswith(f"; would need about {needed} seeds to be shown equivalent within 2")


@pytest.mark.parametrize(("goal", "verdict"), [("max", "worse"), ("min", "better")])
def test_better_depends_on_the_goal(goal: str, verdict: str) -> None:
    assert compare([0.30, 0.31, 0.29], [0.50, 0.52, 0.50], goal=goal).verdict == verdict


def test_seeds_in_common_are_paired_and_the_others_left_out() -> None:
    found = compare_arms({0: 1.0, 1: 3.0, 2: 9.0}, {"a": {0: 2.0, 1: 5.0, 7: 100.0}}, goal="max")["a"]
    assert (found.n, found.mean, found.paired) == (2, 1.5, True)


@pytest.mark.parametrize(
    ("arm", "pairs", "count"),
    [({2: 2.0, 7: 5.0}, False, "n = 2 against 3, unpaired"), ({7: 5.0}, False, "n = 1 against 3, unpaired"),
     ({2: 5.0}, True, "n = 1 pair")],
)  # fmt: skip
def test_fewer_than_two_seeds_in_common(arm: dict[int, float], pairs: bool, count: str) -> None:
    found = compare_arms({0: 1.0, 1: 3.0, 2: 9.0}, {"a": arm}, goal="max")["a"]
    assert found.paired is pairs
    assert count in found.words


@pytest.mark.parametrize(
    ("n", "step", "verdict", "p"),
    [
        (3, 1 / 360, "not distinguishable", 0.25),
        (5, 1 / 360, "not distinguishable", 0.0625),
        (6, 1 / 360, "better", 0.03125),
        (6, 0.0, "not distinguishable", 1.0),
    ],
)
def test_differences_without_spread_get_the_exact_test(n: int, step: float, verdict: str, p: float) -> None:
    # As the record has them: float32 numbers, whose differences agree to rounding only.
    reference = [float(np.float32(value)) for value in np.linspace(0.9, 0.97, n)]
    found = compare([float(np.float32(value + step)) for value in reference], reference)
    assert found.verdict == verdict
    assert found.p == p
    assert math.isnan(found.low)
    assert "no spread at all" in found.words or verdict == "better"


@pytest.mark.parametrize(("n", "verdict"), [(3, "not distinguishable"), (5, "equivalent")])
def test_equal_results_are_equivalent_from_five_pairs_on(n: int, verdict: str) -> None:
    assert compare([0.9] * n, [0.9] * n, margin=0.01).verdict == verdict


@pytest.mark.parametrize(
    ("arm", "margin", "words"),
    [
        (
            [0.912, 0.911, 0.920, 0.919],
            None,
            "not distinguishable: +0.35 points (95 % -0.27 to 0.97, n = 4 pairs), p = 0.17; would need about 12 seeds",
        ),
        (
            [0.920, 0.909, 0.922, 0.901],
            0.01,
            "not distinguishable: +0.1 points (95 % -1.1 to 1.3, n = 4 pairs), p = 0.81; "
            "would need about 7 seeds to be shown equivalent within 1 point",
        ),
        (
            [0.911, 0.907, 0.921, 0.909],
            0.01,
            "equivalent within 1 point: 0.00 points (95 % -0.18 to 0.18, n = 4 pairs)",
        ),
        (
            [0.911, 0.912, 0.922, 0.912],
            0.01,
            "equivalent within 1 point: +0.23 points (95 % 0.02 to 0.43, n = 4 pairs); "
            "there is a difference (p = 0.037), but a smaller one than the margin",
        ),
    ],
)
def test_the_words(arm: list[float], margin: float | None, words: str) -> None:
    found = compare(arm, [0.910, 0.908, 0.920, 0.910], margin=margin, points=True)
    assert found.words == words


def test_too_many_seeds_are_not_counted() -> None:
    found = compare([1.0, 2.0, 3.0, 4.001], [2.0, 1.0, 4.0, 3.0])
    assert found.seeds_needed is None
    assert found.words.endswith("would need more than 1000 seeds")


@pytest.mark.parametrize("margin", [0.0, -0.1, math.nan])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match=rf"`margin` must be above 0, got {margin}"):
        compare([1.0, 2.0], [1.0, 2.0], margin=margin)
