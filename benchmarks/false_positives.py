"""How often the statistics of a study are wrong: coverage of the intervals, verdicts on arms without a difference.

Every study is drawn at random and judged by the project's own functions: the first table goes the whole way of a
report, from the rows of metrics.jsonl to the verdict, the others call what that way ends in. "Better or worse" said of
identical arms is a false positive; "equivalent" said of arms that differ by just the margin is a false equivalence.
Both are to be at most 5 %. A share stands with its exact 95 % interval (Clopper and Pearson), which tells of the number
of simulations.

    python benchmarks/false_positives.py            # 10 minutes on one core
    python benchmarks/false_positives.py --short    # 1000 studies a number
"""

from __future__ import annotations

import argparse
import math
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.special import betaincinv

from lightning_lab.runs.directory import RunDirectory
from lightning_lab.studies.cells import Arm, Budget, Cell, CellResult
from lightning_lab.studies.claims import judge
from lightning_lab.studies.design import Claim, Study
from lightning_lab.studies.report.results import compare
from lightning_lab.studies.statistics import compare_arms, estimate, interactions, main_effects

Values = NDArray[np.float64]
#: Studies of the first table.
STUDIES = 1000
IMAGES = 1000
SEEDS = (3, 5, 10)
CORRELATIONS = (0.0, 0.8)


def normal(random: np.random.Generator, shape: tuple[int, int, int], correlation: float) -> Values:
    """Draw (studies, arms, seeds): a part that the arms of one seed share, and one of each run's own."""
    studies, _, seeds = shape
    shared, own = random.normal(size=(studies, 1, seeds)), random.normal(size=shape)
    return math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own


def skewed(random: np.random.Generator, shape: tuple[int, int, int], correlation: float) -> Values:
    """Draw lognormal values (sigma 1, skewness 6.2), such as a loss; the correlation is that of the logarithms."""
    return np.exp(normal(random, shape, correlation))


def accuracy(share: float) -> Callable[[np.random.Generator, tuple[int, int, int], float], Values]:
    """Draw the share of 1000 test images that are right; of some of them, correlated arms share the result."""

    def draw(random: np.random.Generator, shape: tuple[int, int, int], correlation: float) -> Values:
        studies, _, seeds = shape
        common = round(correlation * IMAGES)
        right = random.binomial(common, share, (studies, 1, seeds)) + random.binomial(IMAGES - common, share, shape)
        return right / IMAGES

    return draw


# What is drawn, and the mean of the distribution.
DRAWS = {
    "normal": (normal, 0.0),
    "lognormal": (skewed, math.exp(0.5)),
    "95 % of 1000 images": (accuracy(0.95), 0.95),
    "99.7 % of 1000 images": (accuracy(0.997), 0.997),
}


def share_of(count: int, studies: int) -> str:
    """Word a share in per cent with its exact 95 % interval."""
    low = betaincinv(count, studies - count + 1, 0.025) if count else 0.0
    high = betaincinv(count + 1, studies - count, 0.975) if count < studies else 1.0
    return f"{100 * count / studies:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def report_verdict(values: Values, *, margin: float | None = None) -> str:
    """Judge the second of two arms (arms, seeds) as the report of a study does, from the rows of its runs."""
    arms = tuple(Arm(name, {}, ("digits/lenet5",)) for name in ("reference", "other"))
    seeds = tuple(range(values.shape[1]))
    budget = Budget("epochs", 1)
    study = Study("drawn", Path("drawn"), arms, "reference", {}, "arms", seeds, "val/acc", "max", budget, margin, ())
    results = [
        CellResult(
            Cell(arm.name, seed, "", (), RunDirectory(Path("drawn"))),
            "completed", [{"epoch": 1, "val/acc": float(values[index, seed])}], {},
        )
        for seed in seeds for index, arm in enumerate(arms)
    ]  # fmt: skip
    difference = compare(study, results).arms[1].difference
    assert difference is not None
    return difference.verdict


def count_covered(values: Values, mean: float) -> int:
    """Count the arms (rows) whose 95 % interval contains the true mean."""
    arms = [estimate(row) for row in values]
    return sum(arm.low <= mean <= arm.high for arm in arms)


def count_verdicts(values: Values, verdicts: set[str], *, pairs: bool = True, margin: float | None = None) -> int:
    """Count the studies (studies, arms, seeds) in which any arm gets one of the verdicts; arm 0 is the reference."""
    found = 0
    for reference, *arms in values:
        seeds = range(len(reference))
        compared = compare_arms(
            dict(enumerate(reference)),
            {
                str(i): dict(zip(seeds if pairs else (-1 - s for s in seeds), arm, strict=True))
                for i, arm in enumerate(arms)
            },
            goal="max",
            margin=margin,
        )
        found += any(arm.verdict in verdicts for arm in compared.values())
    return found


def count_claims(values: Values, expect: str, status: str, margin: float | None) -> int:
    """Count the studies (studies, 2, seeds) in which a claim on the second arm gets a status."""
    claim = Claim("", "", "other", "reference", expect, "val/acc", margin)  # type: ignore[arg-type]
    named = (dict(zip(("reference", "other"), (dict(enumerate(arm)) for arm in arms), strict=True)) for arms in values)
    return sum(judge(claim, one, goal="max").status == status for one in named)


def count_effects(values: Values, effects: Callable[..., list[object]]) -> int:
    """Count the studies (studies, 6, seeds) of a full design of 3 x 2 in which any effect has an adjusted p <= 5 %."""
    factors = {"a": [0, 1, 2], "b": [0, 1]}
    levels = {f"{a}{b}": {"a": a, "b": b} for a in factors["a"] for b in factors["b"]}
    named = (dict(zip(levels, (dict(enumerate(arm)) for arm in arms), strict=True)) for arms in values)
    return sum(any(effect.p_holm <= 0.05 for effect in effects(factors, levels, one)) for one in named)


def print_table(first: str, rows: list[tuple[str, list[str]]]) -> None:
    print(f"\n| {first} | " + " | ".join(f"n = {n}" for n in SEEDS) + " |\n|---|" + "---|" * len(SEEDS))
    for name, cells in rows:
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true")
    studies = 1000 if parser.parse_args().short else 10_000
    random = np.random.default_rng(0)
    print(f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, random seed 0;")
    print("per cent of the simulated studies, with the 95 % interval of the simulation")
    acceptance(random)
    coverage(random, studies)
    false_positives(random, studies)
    false_equivalences(random, studies)
    claims(random, studies)
    designs(random, studies // 2)


def acceptance(random: np.random.Generator) -> None:
    rows = []
    for correlation in CORRELATIONS:
        drawn = [normal(random, (STUDIES, 2, n), correlation) for n in SEEDS]
        counts = [sum(report_verdict(one) in {"better", "worse"} for one in values) for values in drawn]
        rows.append((f"normal, paired, correlation {correlation:g}", [share_of(count, STUDIES) for count in counts]))
    for name in ("95 % of 1000 images", "99.7 % of 1000 images"):
        drawn = [DRAWS[name][0](random, (STUDIES, 2, n), 0.8) for n in SEEDS]
        counts = [sum(report_verdict(one) in {"better", "worse"} for one in values) for values in drawn]
        rows.append((f"{name}, paired, correlation 0.8", [share_of(count, STUDIES) for count in counts]))
    print_table(f"two identical arms, by the report: better or worse ({STUDIES} studies)", rows)


def coverage(random: np.random.Generator, studies: int) -> None:
    rows = []
    for name, (draw, mean) in DRAWS.items():
        counts = [count_covered(draw(random, (studies, 1, n), 0.0)[:, 0], mean) for n in SEEDS]
        rows.append((name, [share_of(count, studies) for count in counts]))
    print_table(f"coverage of the 95 % interval of one arm ({studies} arms)", rows)


def false_positives(random: np.random.Generator, studies: int) -> None:
    wrong = {"better", "worse"}
    for arms, what in ((1, "one arm against a reference"), (5, "any of five arms against a reference, Holm")):
        rows = []
        repeats = studies if arms == 1 else studies // 2
        for name, (draw, _) in DRAWS.items():
            for correlation in CORRELATIONS:
                drawn = [draw(random, (repeats, arms + 1, n), correlation) for n in SEEDS]
                cells = [share_of(count_verdicts(values, wrong), repeats) for values in drawn]
                rows.append((f"{name}, paired, correlation {correlation:g}", cells))
            drawn = [draw(random, (repeats, arms + 1, n), 0.0) for n in SEEDS]
            cells = [share_of(count_verdicts(values, wrong, pairs=False), repeats) for values in drawn]
            rows.append((f"{name}, unpaired", cells))
        print_table(f"{what}, all identical: better or worse ({repeats} studies)", rows)


def false_equivalences(random: np.random.Generator, studies: int) -> None:
    for arms, what in ((1, "an arm that is better by the margin"), (5, "any of five arms, all better by it, Holm")):
        rows = []
        repeats = studies if arms == 1 else studies // 2
        for margin in (1.0, 3.0):
            shift = np.array([[0.0], *[[margin]] * arms])
            for correlation in (*CORRELATIONS, None):
                drawn = [normal(random, (repeats, arms + 1, n), correlation or 0.0) + shift for n in SEEDS]
                pairs = correlation is not None
                counts = [count_verdicts(one, {"equivalent"}, pairs=pairs, margin=margin) for one in drawn]
                how = f"paired, correlation {correlation:g}" if pairs else "unpaired"
                rows.append((f"normal, margin {margin:g} sd, {how}", [share_of(count, repeats) for count in counts]))
        print_table(f"{what}: equivalent ({repeats} studies)", rows)


def claims(random: np.random.Generator, studies: int) -> None:
    rows = []
    for expect, status, margin, shift in (
        ("better", "confirmed", None, 0.0), ("better", "refuted", None, 0.0), ("different", "confirmed", None, 0.0),
        ("equivalent", "confirmed", 3.0, 3.0), ("equivalent", "refuted", None, 0.0), ("better", "refuted", 3.0, 3.0),
    ):  # fmt: skip
        drawn = [normal(random, (studies, 2, n), 0.8) + np.array([[0.0], [shift]]) for n in SEEDS]
        counts = [count_claims(values, expect, status, margin) for values in drawn]
        where = "identical arms" if not shift else "better by the margin"
        rows.append((f"{where}, expected {expect}: {status}", [share_of(count, studies) for count in counts]))
    print_table(f"claims that are judged wrongly, normal, paired, correlation 0.8 ({studies} studies)", rows)


def designs(random: np.random.Generator, studies: int) -> None:
    rows = []
    for what, effects in (("main effects (3 of them)", main_effects), ("interactions (2 of them)", interactions)):
        for correlation in CORRELATIONS:
            drawn = [normal(random, (studies, 6, n), correlation) for n in SEEDS]
            cells = [share_of(count_effects(values, effects), studies) for values in drawn]  # type: ignore[arg-type]
            rows.append((f"{what}, correlation {correlation:g}", cells))
    print_table(f"a full design of 3 x 2 without effects: any with p (Holm) <= 5 % ({studies} studies)", rows)


if __name__ == "__main__":
    main()
