"""What a claim measures of a run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from lightning_lab.studies.quantity import quantity

ROWS: list[dict[str, Any]] = [
    {"epoch": 1, "train/loss": 2.0, "val/loss": 2.5, "val/acc": 0.2},
    {"epoch": 2, "train/loss": 1.0, "val/loss": 1.75, "val/acc": 0.5},
    {"epoch": 3, "train/loss": 0.5, "val/loss": 2.0, "val/acc": 0.4},
    {"epoch": 4, "train/loss": 0.25},  # not validated
]


@pytest.mark.parametrize(
    ("text", "value", "better"),
    [
        ("val/acc", 0.4, "max"),
        ("train/loss", 0.25, "min"),
        ("val/loss@2", 1.75, "min"),
        ("val/acc@1", 0.2, "max"),
        ("val/loss - train/loss", 1.75, "min"),
        ("val/loss@3 - val/loss@2", 0.25, "min"),
        ("val/acc - val/acc@1", 0.2, "min"),
        ("jitter(train/loss)", 0.25, "min"),
        ("log10(val/loss)", math.log10(2.0), "min"),
        ("log10(val/loss@1)", math.log10(2.5), "min"),
        ("log10(val/loss) - log10(train/loss)", math.log10(8.0), "min"),
        ("jitter(val/acc)", 0.1, "min"),
        ("jitter(train/loss) - train/loss@3", -0.25, "min"),
        ("val/acc@9", None, "max"),
        ("val/top5", None, "max"),
        ("val/loss - train/mae", None, "min"),
    ],
)
def test_of_a_run(text: str, value: float | None, better: str) -> None:
    assert quantity(text).of(ROWS) == (None if value is None else pytest.approx(value))
    assert quantity(text).better == better


def test_jitter_is_the_root_mean_square_of_the_changes_in_the_second_half() -> None:
    values = np.random.default_rng(0).normal(size=21)
    rows = [{"epoch": i + 1, "val/loss": float(value)} for i, value in enumerate(values)]
    expected = math.sqrt(np.mean(np.diff(values[10:]) ** 2))
    assert quantity("jitter(val/loss)").of(rows) == pytest.approx(expected)


@pytest.mark.parametrize("rows", [[], [{"epoch": 1, "val/loss": 1.0}], [{"val/loss": 1.0}, {"val/loss": None}]])
def test_jitter_needs_two_finite_values(rows: list[dict[str, Any]]) -> None:
    assert quantity("jitter(val/loss)").of(rows) is None


def test_a_value_that_was_not_finite_gives_none() -> None:
    assert quantity("val/loss - train/loss").of([{"epoch": 1, "val/loss": None, "train/loss": 1.0}]) is None


@pytest.mark.parametrize("text", ["", "loss", "acc", "test/acc", "val/acc@0", "val/acc@-1", "jitter(loss)", "a - b",
                                  "val/acc - val/acc - val/acc", "sd(val/acc)"])  # fmt: skip
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="must be a validation or training metric such as val/acc, in an epoch"):
        quantity(text)


def test_zero_has_no_logarithm() -> None:
    assert quantity("log10(val/loss)").of([{"epoch": 1, "val/loss": 0.0}]) is None
