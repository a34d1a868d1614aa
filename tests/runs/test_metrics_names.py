"""Which way a metric improves."""

from __future__ import annotations

import pytest

from lightning_lab.runs.metrics import better


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        ("train/acc", "max"),
        ("val/acc", "max"),
        ("test/top5", "max"),
        ("val/r2", "max"),
        ("train/loss", "min"),
        ("val/loss", "min"),
        ("val/mae", "min"),
        ("train/penalty", "min"),
        ("grad_norm", "min"),
        ("lr", "min"),
    ],
)
def test_the_direction_of_every_metric(metric: str, mode: str) -> None:
    assert better(metric) == mode
