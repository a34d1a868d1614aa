"""Main effects and interactions: against a printed analysis of variance and scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from lightning_lab.studies.statistics import compare_arms, interactions, main_effects

#: Montgomery, "Design and Analysis of Experiments", example 5.6 (a factorial in blocks): intensity at which a target is
#: detected, by ground clutter and filter, for four operators (the blocks, here the seeds). The sums of squares that the
#: book prints are 335.58 (clutter), 1066.67 (filter) and 77.08 (both).
FACTORS = {"clutter": ["low", "medium", "high"], "filter": [1, 2]}
VALUES = {
    "low1": [90, 96, 100, 92],
    "low2": [86, 84, 92, 81],
    "medium1": [102, 106, 105, 96],
    "medium2": [87, 90, 97, 80],
    "high1": [114, 112, 108, 98],
    "high2": [93, 91, 95, 83],
}
LEVELS = {f"{c}{f}": {"clutter": c, "filter": f} for c, f in itertools.product(*FACTORS.values())}
DATA = {arm: {seed: float(value) for seed, value in enumerate(row)} for arm, row in VALUES.items()}


def test_the_effects_have_the_printed_sums_of_squares() -> None:
    effects = {effect.levels: effect.mean for effect in main_effects(FACTORS, LEVELS, DATA)}
    # 24 values, 12 at each filter: SS = 24 / 4 * effect^2.
    assert 6 * effects[(2,)] ** 2 == pytest.approx(1066.67, abs=0.01)
    # 8 values at each clutter; the deviations from the grand mean follow from the effects against the first level.
    clutter = np.array([0.0, effects[("medium",)], effects[("high",)]])
    assert 8 * np.square(clutter - clutter.mean()).sum() == pytest.approx(335.58, abs=0.01)
    both = {effect.levels: effect.mean for effect in interactions(FACTORS, LEVELS, DATA)}
    # Deviations of a 3 x 2 table whose differences of differences are 0, a, b: half of them in each column.
    parts = np.array([0.0, both[("medium", 2)], both[("high", 2)]])
    assert 4 * 2 * np.square((parts - parts.mean()) / 2).sum() == pytest.approx(77.08, abs=0.01)


def test_a_main_effect_is_the_paired_test_of_the_means_of_the_seeds() -> None:
    table = np.array(list(VALUES.values()), float)
    expected = stats.ttest_rel(table[1::2].mean(axis=0), table[::2].mean(axis=0))
    effect = main_effects(FACTORS, LEVELS, DATA)[-1]
    assert (effect.factors, effect.levels, effect.against, effect.n) == (("filter",), (2,), (1,), 4)
    assert effect.p == pytest.approx(expected.pvalue)
    assert (effect.low, effect.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_an_interaction_is_the_test_of_differences_of_differences() -> None:
    table = np.array(list(VALUES.values()), float)
    expected = stats.ttest_1samp(table[5] - table[4] - table[1] + table[0], 0.0)
    effect = interactions(FACTORS, LEVELS, DATA)[-1]
    assert (effect.factors, effect.levels, effect.against) == (("clutter", "filter"), ("high", 2), ("low", 1))
    assert effect.p == pytest.approx(expected.pvalue)
    assert effect.words.startswith("clutter high x filter 2 against low x 1: -8.8 (95 % ")
    assert effect.words.endswith("adjusted for 2 effects")


def test_holm_goes_over_all_main_effects() -> None:
    effects = sorted(main_effects(FACTORS, LEVELS, DATA), key=lambda effect: effect.p)
    assert effects[0].p_holm == pytest.approx(3 * effects[0].p)
    assert effects[-1].p_holm >= effects[-1].p


def test_a_factor_of_two_levels_alone_is_the_comparison_of_two_arms() -> None:
    factors, levels = {"filter": [1, 2]}, {"low1": {"filter": 1}, "low2": {"filter": 2}}
    (effect,) = main_effects(factors, levels, DATA)
    arm = compare_arms(DATA["low1"], {"low2": DATA["low2"]}, goal="min")["low2"]
    assert (effect.mean, effect.low, effect.high, effect.p) == (arm.mean, arm.low, arm.high, arm.p)
    assert interactions(factors, levels, DATA) == []


def test_the_levels_of_the_reference_are_what_is_compared_with() -> None:
    reference = {"clutter": "high", "filter": 2, "other": 0}
    effects = {effect.levels: effect for effect in main_effects(FACTORS, LEVELS, DATA, reference=reference)}
    assert list(effects) == [("low",), ("medium",), (1,)]
    plain = {effect.levels: effect for effect in main_effects(FACTORS, LEVELS, DATA)}
    assert effects[("low",)].mean == -plain[("high",)].mean
    assert effects[(1,)].against == (2,)
    both = interactions(FACTORS, LEVELS, DATA, reference=reference)
    assert both[0].levels == ("low", 1)
    assert both[0].mean == interactions(FACTORS, LEVELS, DATA)[-1].mean


def test_three_factors_against_the_effects_they_were_made_of() -> None:
    factors = {"a": [False, True], "b": [0, 1], "c": [[16], [16, 16], [32]]}
    random = np.random.default_rng(0)
    levels, data = {}, {}
    for a, b, c in itertools.product(range(2), range(2), range(3)):
        name = f"{a}{b}{c}"
        levels[name] = {"a": bool(a), "b": b, "c": factors["c"][c]}
        # The seed's own shift, however large, leaves every contrast.
        data[name] = {s: 5 * a + 2 * b - c + 3 * a * b + 1000.0 * s + random.normal(0, 1e-3) for s in range(5)}
    main = [effect.mean for effect in main_effects(factors, levels, data)]
    assert main == pytest.approx([6.5, 3.5, -1.0, -2.0], abs=0.01)
    both = {(e.factors, str(e.levels)): e.mean for e in interactions(factors, levels, data)}
    assert len(both) == 1 + 2 + 2
    assert both[("a", "b"), "(True, 1)"] == pytest.approx(3.0, abs=0.01)
    assert both[("b", "c"), "(1, [32])"] == pytest.approx(0.0, abs=0.01)


def test_seeds_that_lack_an_arm_are_left_out() -> None:
    data = {**DATA, "high2": {1: 91.0, 2: 95.0, 9: 1.0}}
    assert {effect.n for effect in main_effects(FACTORS, LEVELS, data)} == {2}


@pytest.mark.parametrize(
    ("seeds", "words"), [(0, "no values to compare"), (1, "one seed says nothing about the spread")]
)
def test_too_few_seeds(seeds: int, words: str) -> None:
    data = {arm: {seed: values[seed] for seed in range(seeds)} for arm, values in DATA.items()}
    effects = main_effects(FACTORS, LEVELS, data) + interactions(FACTORS, LEVELS, data)
    assert all(effect.words.endswith(words) and math.isnan(effect.low) for effect in effects)


def test_a_design_that_is_not_full_is_refused() -> None:
    levels = {arm: own for arm, own in LEVELS.items() if arm != "medium2"}
    with pytest.raises(ValueError, match=r"not full: no arm has clutter = medium, filter = 2"):
        main_effects(FACTORS, levels, DATA)


def test_rounding_is_no_spread() -> None:
    # Differences of float32 metrics, equal but for rounding, in an interaction that is exactly zero.
    table = np.float32([[0.91, 0.93, 0.92], [0.92, 0.94, 0.93], [0.95, 0.97, 0.96], [0.96, 0.98, 0.97]])
    levels = {str(i): {"a": i // 2, "b": i % 2} for i in range(4)}
    data = {str(i): {seed: float(value) for seed, value in enumerate(row)} for i, row in enumerate(table)}
    (effect,) = interactions({"a": [0, 1], "b": [0, 1]}, levels, data)
    assert (effect.mean, effect.p) == (0.0, 1.0)


def test_of_designs_without_effects_one_in_twenty_is_found_significant() -> None:
    random = np.random.default_rng(5)
    factors, levels = {"a": [0, 1], "b": [0, 1]}, {str(i): {"a": i // 2, "b": i % 2} for i in range(4)}
    studies, found = 400, 0
    for table in random.normal(size=(studies, 1, 5)) + random.normal(size=(studies, 4, 5)):
        data = {str(i): dict(enumerate(row)) for i, row in enumerate(table)}
        found += any(effect.p_holm <= 0.05 for effect in main_effects(factors, levels, data))
    assert found / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)
