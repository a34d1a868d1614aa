"""docs/results: every row of the labs has a file and a command, and the pages say what their numbers say."""

from __future__ import annotations

import csv
import importlib.util
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from scipy.stats import ttest_1samp

from lightning_lab import shipped
from lightning_lab.studies.design import read_study

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
LABS: list[dict[str, Any]] = yaml.safe_load((RESULTS / "labs.yaml").read_text())
ROWS: list[dict[str, Any]] = [row for lab in LABS for row in lab["rows"]]
#: The experiments of the four write-ups.
EXPERIMENTS = {
    *(f"A{i}" for i in range(1, 15)),
    *(f"B{i}" for i in range(1, 9)),
    *(f"C{i}" for i in range(1, 19)),
    "C12b",
    *(f"D{i}" for i in range(1, 6)),
}


def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_results", RESULTS / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_no_row_of_the_labs_is_missing() -> None:
    rows = [row["row"] for row in ROWS]
    assert EXPERIMENTS - set(rows) == set()
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize("row", ROWS, ids=[row["row"] for row in ROWS])
def test_each_row_has_a_file_and_a_command(row: dict[str, Any]) -> None:
    if "study" in row:
        assert shipped.find_study(row["study"]).is_file()
    else:
        assert (ROOT / row["file"]).is_file()
        assert row["command"]


def test_every_claim_of_a_lab_study_stands_in_one_row_and_no_other_does() -> None:
    told = [(row["study"], claim["id"]) for row in ROWS for claim in row.get("claims", []) if "study" in row]
    studies = [name for name in shipped.study_names() if name.startswith("lab_")]
    known = [(name, claim.id) for name in studies for claim in read_study(shipped.find_study(name)).claims]
    assert sorted(told) == sorted(known)


def test_the_pages_say_what_the_numbers_say() -> None:
    pages = build().render()
    assert {path.name for path in pages} == {path.name for path in RESULTS.glob("*.md")}
    assert [path.name for path, text in pages.items() if path.read_text() != text] == []


def measured(cell: dict[str, str], metric: str) -> float:
    """Compute a claim's metric after the last epoch from a row of cells.csv."""
    if metric.startswith("log10("):
        return math.log10(measured(cell, metric[6:-1]))
    first, _, second = metric.partition(" - ")
    return float(cell[f"{first} (last)"]) - (float(cell[f"{second} (last)"]) if second else 0.0)


#: Those of two arms that the last epochs in cells.csv decide.
CLAIMS = [
    (path, claim)
    for path in sorted(RESULTS.rglob("claims.csv"))
    for claim in read(path)
    if claim["against"]
    and not any(part in claim["metric"] for part in ("@", "jitter"))
    and claim["expect"] != "diverges"
]


@pytest.mark.parametrize(("path", "claim"), CLAIMS, ids=[claim["id"] for _, claim in CLAIMS])
def test_verdicts_are_those_of_scipys_t_tests(path: Path, claim: dict[str, str]) -> None:
    values: dict[str, dict[str, float]] = {}
    for cell in read(path.with_name("cells.csv")):
        if cell["in_statistics"] == "yes":
            values.setdefault(cell["arm"], {})[cell["seed"]] = measured(cell, claim["metric"])
    arm, against = (values.get(claim[name], {}) for name in ("arm", "against"))
    changes = [arm[seed] - against[seed] for seed in sorted(arm.keys() & against.keys())]
    if len(changes) < 2:
        assert "Fisher" in claim["words"] or claim["status"] == "open"
        return
    margin = float(claim["margin"] or 0)
    if len(set(changes)) == 1:  # no spread: no test
        assert (claim["expect"], changes[0], claim["status"]) == ("equivalent", 0.0, "confirmed")
        return
    test = ttest_1samp(changes, 0.0)
    above = ttest_1samp(changes, -margin, alternative="greater").pvalue
    below = ttest_1samp(changes, margin, alternative="less").pvalue
    within = margin > 0 and max(above, below) <= 0.05
    if claim["expect"] == "equivalent":
        low, high = test.confidence_interval()
        beyond = low > margin or high < -margin
        expected = "confirmed" if within else "refuted" if beyond else "open"
    else:
        better = (test.statistic > 0) == (claim["metric"] == "val/acc")
        shown = test.pvalue <= 0.05 and not within
        as_expected = better == (claim["expect"] == "better")
        expected = "confirmed" if shown and as_expected else "refuted" if shown or within else "open"
    assert claim["status"] == expected


#: What the labs' data allow, and what was asked of it: the mean over seeds, on test data opened once.
TARGETS = {
    "lab_a/best_mlp": ("test/acc", 0.975),
    "lab_a/best_conv": ("test/acc", 0.993),
    "lab_b/best": ("test/loss", 1e-5),
    "lab_c/best_wide": ("test/acc", 0.72),
    "lab_c/best_classic": ("test/acc", 0.70),
}


@pytest.mark.parametrize("name", TARGETS)
def test_the_tested_arm_is_the_best_on_validation_and_was_tested_once_a_seed(name: str) -> None:
    metric, target = TARGETS[name]
    read_once = read(RESULTS / name / "tested.csv")
    assert len({one["seed"] for one in read_once}) == len(read_once) == len(read_study(shipped.find_study(name)).seeds)
    means = {arm["arm"]: float(arm["selected_mean"]) for arm in read(RESULTS / name / "arms.csv")}
    best = (max if metric == "test/acc" else min)(means, key=lambda arm: means[arm])
    assert {one["arm"] for one in read_once} == {best}
    mean = sum(float(one[metric]) for one in read_once) / len(read_once)
    assert mean >= target if metric == "test/acc" else mean < target
