"""How often a verdict is wrong, by simulation. `benchmarks/false_positives.py` has more distributions and studies."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lightning_lab.runs.directory import RunDirectory
from lightning_lab.studies.cells import Arm, Budget, Cell, CellResult
from lightning_lab.studies.design import Study
from lightning_lab.studies.report.results import compare
from lightning_lab.studies.statistics import compare_arms, estimate

STUDIES = 1000
#: A test of exactly 5 % gives 50 of 1000 with a standard error of 6.9; 66 are passed by chance in one of 100.
MOST = 50 + 2.33 * math.sqrt(STUDIES * 0.05 * 0.95)


def normal(seed: int, arms: int, n: int, correlation: float, studies: int = STUDIES) -> NDArray[np.float64]:
    # (studies, arms, seeds): runs of one seed share a part.
    random = np.random.default_rng(seed)
    shared, own = random.normal(size=(studies, 1, n)), random.normal(size=(studies, arms, n))
    return math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own


def count(drawn: NDArray[np.float64], verdicts: set[str], margin: float | None = None) -> int:
    found = 0
    for reference, *arms in drawn:
        named = {str(index): dict(enumerate(arm)) for index, arm in enumerate(arms)}
        compared = compare_arms(dict(enumerate(reference)), named, goal="max", margin=margin)
        found += any(arm.verdict in verdicts for arm in compared.values())
    return found


def reported(drawn: NDArray[np.float64], goal: str) -> list[str]:
    """Judge studies of two arms as the report does, from the rows of their runs to the verdict in its table."""
    arms = tuple(Arm(name, {}, ("digits/lenet5",)) for name in ("reference", "other"))
    seeds = tuple(range(drawn.shape[2]))
    study = Study(
        "drawn", Path("drawn"), arms, "reference", {}, "arms", seeds, "val/acc", goal, Budget("epochs", 2), None, ()
    )  # fmt: skip
    cells = [
        (Cell(arm.name, seed, "", (), RunDirectory(Path("drawn"))), i) for seed in seeds for i, arm in enumerate(arms)
    ]
    verdicts = []
    for values in drawn:
        # The last epoch counts; the first is better in both arms, and would show a report that took the best one.
        rows = ([{"val/acc": 9.0}, {"val/acc": float(values[i, cell.seed])}] for cell, i in cells)
        results = [CellResult(cell, "completed", one, {}) for (cell, _), one in zip(cells, rows, strict=True)]
        difference = compare(study, results).arms[1].difference
        assert difference is not None
        assert difference.n == len(seeds)
        verdicts.append(difference.verdict)
    return verdicts


@pytest.mark.parametrize("correlation", [0.0, 0.8])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_report_tells_identical_arms_apart_in_at_most_5_percent(n: int, correlation: float) -> None:
    verdicts = reported(normal(n, 2, n, correlation), "max")
    better, worse = verdicts.count("better"), verdicts.count("worse")
    assert 25 <= better + worse <= MOST
    assert min(better, worse) >= 8  # neither side is preferred
    assert better + worse + verdicts.count("not distinguishable") == STUDIES


def test_smaller_may_be_better() -> None:
    drawn = normal(5, 2, 5, 0.8)
    swapped = {"better": "worse", "worse": "better"}
    assert reported(drawn, "min") == [swapped.get(verdict, verdict) for verdict in reported(drawn, "max")]


@pytest.mark.parametrize("n", [3, 5, 10])
def test_unpaired_seeds_too(n: int) -> None:
    drawn = normal(n, 2, n, 0.0)
    found = 0
    for reference, arm in drawn:
        others = {-1 - seed: value for seed, value in enumerate(arm)}
        difference = compare_arms(dict(enumerate(reference)), {"other": others}, goal="max")["other"]
        assert not difference.paired
        found += difference.verdict in ("better", "worse")
    assert found <= MOST


@pytest.mark.parametrize("n", [3, 5, 10])
def test_identical_accuracies_with_ties_too(n: int) -> None:
    # Of 1000 images; 997 are right, so that equal differences are common.
    drawn = np.random.default_rng(n).binomial(1000, 0.997, (STUDIES, 2, n)) / 1000
    assert count(drawn, {"better", "worse"}) <= MOST


def test_any_of_five_identical_arms_in_at_most_5_percent() -> None:
    studies = 300
    found = count(normal(1, 6, 5, 0.8, studies), {"better", "worse"})
    assert found <= studies * 0.05 + 2.33 * math.sqrt(studies * 0.05 * 0.95)


@pytest.mark.parametrize("n", [3, 10])
def test_an_arm_that_differs_by_the_margin_is_called_equivalent_in_at_most_5_percent(n: int) -> None:
    found = count(normal(n, 2, n, 0.8) + np.array([[0.0], [3.0]]), {"equivalent"}, margin=3.0)
    assert 25 <= found <= MOST


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_the_interval_contains_the_mean_in_95_percent(n: int) -> None:
    arms = [estimate(values) for values in normal(n, 1, n, 0.0)[:, 0]]
    covered = sum(arm.low <= 0.0 <= arm.high for arm in arms)
    assert STUDIES - MOST <= covered <= STUDIES - 30
