"""How often the statistics of a study are wrong: coverage of the intervals, verdicts on arms without a difference.

Every study is drawn at random and judged by `compare_arms` itself. "Better or worse" said of identical arms is a false
positive; "equivalent" said of arms that differ by just the margin is a false equivalence. Both are to be at most 5 %.

    python benchmarks/false_positives.py            # 3 minutes on one idle core
    python benchmarks/false_positives.py --short    # 1000 studies a number
"""

from __future__ import annotations

import argparse
import math
import platform
from collections.abc import Callable

import numpy as np
import scipy
from numpy.typing import NDArray

from lightning_lab.studies.statistics import compare_arms, estimate

Values = NDArray[np.float64]
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
    """Word a share in per cent with its standard error."""
    share = count / studies
    return f"{100 * share:.1f} ± {100 * math.sqrt(share * (1 - share) / studies):.1f}"


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


def print_table(first: str, rows: list[tuple[str, list[str]]]) -> None:
    print(f"\n| {first} | " + " | ".join(f"n = {n}" for n in SEEDS) + " |\n|---|" + "---|" * len(SEEDS))
    for name, cells in rows:
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true")
    studies = 1000 if parser.parse_args().short else 10_000
    random = np.random.default_rng(0)
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, random seed 0; ",
        end="",
    )
    print(f"{studies} simulated studies a number; per cent ± standard error of the simulation")

    rows = []
    for name, (draw, mean) in DRAWS.items():
        counts = [count_covered(draw(random, (studies, 1, n), 0.0)[:, 0], mean) for n in SEEDS]
        rows.append((name, [share_of(count, studies) for count in counts]))
    print_table("coverage of the 95 % interval of one arm", rows)

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

    rows = []
    for margin in (1.0, 3.0):
        for correlation in CORRELATIONS:
            drawn = [normal(random, (studies, 2, n), correlation) for n in SEEDS]
            shifted = [values + np.array([[0.0], [margin]]) for values in drawn]
            cells = [share_of(count_verdicts(values, {"equivalent"}, margin=margin), studies) for values in shifted]
            rows.append((f"normal, margin {margin:g} sd, paired, correlation {correlation:g}", cells))
    print_table("an arm that is better by the margin: equivalent", rows)


if __name__ == "__main__":
    main()
