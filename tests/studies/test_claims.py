"""Claims: every row of the table of rules, and what is said of it."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from lightning_lab.studies.claims import Verdict, fisher, judge, sign_test
from lightning_lab.studies.statements import Claim

REFERENCE = [0.910, 0.908, 0.920, 0.910, 0.915]
#: Added to the reference: clearly more, clearly less, more by far less than a point, and nothing to be seen.
CHANGES = {
    "more": [0.030, 0.031, 0.028, 0.033, 0.030],
    "less": [-0.030, -0.031, -0.028, -0.033, -0.030],
    "little more": [0.002, 0.003, 0.0025, 0.002, 0.003],
    "about 1.5 more": [0.012, 0.019, 0.008, 0.021, 0.015],
    "noise": [0.02, -0.03, 0.01, 0.02, -0.01],
    "same": [0.0005, -0.0005, 0.0004, -0.0004, 0.0001],
}


def judged(
    expect: str, change: str, margin: float | None = None, goal: str = "max", diverged: dict[str, int] | None = None
) -> Verdict:
    claim = Claim("C1", "as the lab says", "arm", "base", expect, "val/acc", margin)  # type: ignore[arg-type]
    arm = [value + step for value, step in zip(REFERENCE, CHANGES[change], strict=True)]
    values = {"base": dict(enumerate(REFERENCE)), "arm": dict(enumerate(arm))}
    return judge(claim, values, goal=goal, points=True, diverged=diverged)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("expect", "change", "margin", "status"),
    [
        ("better", "more", None, "confirmed"),
        ("better", "less", None, "refuted"),
        ("better", "noise", None, "open"),
        ("better", "same", None, "open"),
        ("better", "same", 0.01, "refuted"),
        ("better", "little more", None, "confirmed"),
        ("better", "little more", 0.01, "refuted"),
        ("better", "about 1.5 more", 0.01, "confirmed"),
        ("worse", "less", None, "confirmed"),
        ("worse", "more", 0.01, "refuted"),
        ("worse", "noise", 0.01, "open"),
        ("different", "more", None, "confirmed"),
        ("different", "less", 0.01, "confirmed"),
        ("different", "same", 0.01, "refuted"),
        ("different", "noise", 0.01, "open"),
        ("equivalent", "same", 0.01, "confirmed"),
        ("equivalent", "little more", 0.01, "confirmed"),
        ("equivalent", "more", 0.01, "refuted"),
        ("equivalent", "less", 0.01, "refuted"),
        ("equivalent", "about 1.5 more", 0.01, "open"),  # its interval reaches into the margin
        ("equivalent", "noise", 0.01, "open"),
        ("equivalent", "same", None, "open"),
        ("equivalent", "little more", None, "refuted"),
    ],
)
def test_the_rules(expect: str, change: str, margin: float | None, status: str) -> None:
    verdict = judged(expect, change, margin)
    assert verdict.status == status
    assert verdict.words.startswith(f"{status}: ")


@pytest.mark.parametrize(("expect", "status"), [("better", "refuted"), ("worse", "confirmed")])
def test_the_direction_follows_the_goal(expect: str, status: str) -> None:
    assert judged(expect, "more", goal="min").status == status


@pytest.mark.parametrize(
    ("expect", "change", "margin", "words"),
    [
        ("worse", "less", None, "confirmed: worse, -3.04 points (95 % -3.27 to -2.81, n = 5 pairs), p < 0.001"),
        (
            "better",
            "noise",
            None,
            "open: +0.2 points (95 % -2.5 to 2.9, n = 5 pairs), p = 0.85; would need about 925 seeds",
        ),
        (
            "better",
            "little more",
            0.01,
            "refuted: equivalent within 1 point, +0.250 points (95 % 0.188 to 0.312, n = 5 pairs); "
            "there is a difference (p < 0.001), but a smaller one than the margin",
        ),
        (
            "equivalent",
            "about 1.5 more",
            0.01,
            "open: better, +1.50 points (95 % 0.85 to 2.15, n = 5 pairs), p = 0.003; "
            "the interval reaches into the margin",
        ),
    ],
)
def test_the_words(expect: str, change: str, margin: float | None, words: str) -> None:
    assert judged(expect, change, margin).words == words


def test_an_arm_without_values_leaves_the_claim_open() -> None:
    claim = Claim("C1", "", "arm", "base", "better", "val/acc", None)
    verdict = judge(claim, {"base": {0: 0.9, 1: 0.9}}, goal="max")
    assert verdict.words == "open: no values to compare"
    assert math.isnan(verdict.difference.mean)


def test_a_value_that_is_no_number_is_refused() -> None:
    claim = Claim("C1", "", "arm", "base", "better", "val/acc", None)
    with pytest.raises(ValueError, match=r"'arm' at seed 1 is nan"):
        judge(claim, {"base": {0: 0.9, 1: 0.9}, "arm": {1: math.nan}}, goal="max")


@pytest.mark.parametrize(
    ("runs", "expect", "status", "words"),
    [
        (5, "worse", "confirmed", "worse, diverged: 5 of 5 against 0 of 5, p = 0.008 (Fisher's exact test)"),
        (5, "better", "refuted", "worse, diverged: 5 of 5"),
        (5, "different", "confirmed", "worse, diverged: 5 of 5"),
        (5, "equivalent", "refuted", "worse, diverged: 5 of 5"),
        (3, "worse", "open", "diverged: 3 of 3 against 0 of 3, p = 0.100 (Fisher's exact test)"),
    ],
)
def test_divergence_decides_where_no_values_are_left(runs: int, expect: str, status: str, words: str) -> None:
    claim = Claim("B8", "", "arm", "base", expect, "val/loss", 0.01)  # type: ignore[arg-type]
    values = {"base": dict(enumerate(REFERENCE[:runs]))}
    verdict = judge(claim, values, goal="min", diverged={"arm": runs})
    assert verdict.status == status
    assert verdict.words.startswith(f"{status}: {words}")
    # The same, seen from the other side.
    back = Claim("B8", "", "base", "arm", "better", "val/loss", None)
    assert judge(back, values, goal="min", diverged={"arm": runs}).status == ("confirmed" if runs == 5 else "open")


def test_the_arm_that_diverges_more_often_is_the_worse_one() -> None:
    claim = Claim("B8", "", "arm", "base", "better", "val/loss", None)
    verdict = judge(claim, {"arm": dict(enumerate(REFERENCE))}, goal="min", diverged={"arm": 1, "base": 6})
    assert verdict.words == "confirmed: better, diverged: 1 of 6 against 6 of 6, p = 0.015 (Fisher's exact test)"


@pytest.mark.parametrize(("step", "status"), [(0.5, "open"), (0.75, "refuted"), (0.25, "confirmed")])
def test_equal_differences_against_the_margin(step: float, status: str) -> None:
    claim = Claim("A8", "", "arm", "base", "equivalent", "val/loss", 0.5)
    values = {"base": dict.fromkeys(range(6), 1.0), "arm": dict.fromkeys(range(6), 1.0 + step)}
    assert judge(claim, values, goal="min").status == status


def test_diverged_runs_are_counted_where_others_ended() -> None:
    verdict = judged("better", "more", diverged={"arm": 2})
    assert verdict.status == "confirmed"
    assert verdict.words.endswith("; diverged: 2 of 7 against 0 of 5")


@pytest.mark.parametrize("table", [(3, 1, 1, 3), (5, 0, 0, 5), (2, 1, 0, 6), (0, 4, 0, 4), (1, 0, 7, 2)])
def test_the_exact_test_is_that_of_scipy(table: tuple[int, int, int, int]) -> None:
    a, b, c, d = table
    assert fisher(a, b, c, d) == pytest.approx(stats.fisher_exact([[a, b], [c, d]]).pvalue)


@pytest.mark.parametrize(
    ("lost", "ended", "words"),
    [
        (6, 0, "confirmed: diverged: 6 of 6, p = 0.031 (exact binomial test against one half)"),
        (0, 6, "refuted: diverged: 0 of 6, p = 0.031 (exact binomial test against one half)"),
        (5, 0, "open: diverged: 5 of 5, p = 0.062 (exact binomial test against one half)"),
        (9, 3, "open: diverged: 9 of 12, p = 0.146 (exact binomial test against one half)"),
        (20, 0, "confirmed: diverged: 20 of 20, p < 0.001 (exact binomial test against one half)"),
        (0, 0, "open: diverged: 0 of 0, p = 1.000 (exact binomial test against one half)"),
    ],
)
def test_a_claim_that_an_arm_diverges(lost: int, ended: int, words: str) -> None:
    claim = Claim("B8", "NaN", "arm", "base", "diverges", "val/loss", None)
    values = {"base": dict(enumerate(REFERENCE)), "arm": {seed: 0.5 + seed for seed in range(ended)}}
    verdict = judge(claim, values, goal="min", diverged={"arm": lost})
    assert (verdict.words, verdict.status) == (words, words.partition(":")[0])


@pytest.mark.parametrize(
    ("expect", "change", "margin", "status", "word"),
    [
        ("rises", "more", None, "confirmed", "rises, "),
        ("rises", "more", 0.01, "confirmed", "rises, "),
        ("rises", "less", None, "refuted", "falls, "),
        ("rises", "noise", None, "open", "+0.002 ("),
        ("rises", "little more", 0.01, "refuted", "equivalent within 0.01, "),
        ("falls", "less", None, "confirmed", "falls, "),
        ("falls", "more", None, "refuted", "rises, "),
    ],
)
@pytest.mark.parametrize("goal", ["max", "min"])
def test_a_claim_about_a_change_is_the_t_test_of_one_sample(
    expect: str, change: str, margin: float | None, status: str, word: str, goal: str
) -> None:
    claim = Claim("A6", "", "arm", "", expect, "val/loss@9 - val/loss@2", margin)  # type: ignore[arg-type]
    values = {"arm": dict(enumerate(CHANGES[change])), "base": dict(enumerate(REFERENCE))}
    verdict = judge(claim, values, goal=goal, diverged={"arm": 1, "base": 2})  # type: ignore[arg-type]
    assert verdict.status == status
    assert verdict.words.startswith(f"{status}: {word}")
    assert "n = 5 seeds)" in verdict.words
    assert verdict.words.endswith("; diverged: 1 of 6")
    oracle = stats.ttest_1samp(CHANGES[change], 0.0)
    assert verdict.difference.p == pytest.approx(oracle.pvalue)
    interval = oracle.confidence_interval()
    assert (verdict.difference.low, verdict.difference.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("ended", [0, 1])
def test_a_change_of_too_few_runs_is_open(ended: int) -> None:
    claim = Claim("A6", "", "arm", "", "rises", "val/loss@9 - val/loss@2", None)
    assert judge(claim, {"arm": dict.fromkeys(range(ended), 1.0)}, goal="max", diverged={"arm": 5}).status == "open"


@pytest.mark.parametrize(("count", "total"), [(0, 1), (1, 7), (3, 6), (5, 9), (12, 12), (40, 61)])
def test_the_sign_test_is_that_of_scipy(count: int, total: int) -> None:
    assert sign_test(count, total) == pytest.approx(stats.binomtest(count, total).pvalue)
