"""The mean over examples against numpy.average with weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from lightning_lab.tasks.metrics import MeanLoss, TopOneAccuracy

NAN, INF = float("nan"), float("inf")


def mean(batches: list[tuple[float, int]]) -> float:
    metric = MeanLoss()
    for loss, count in batches:
        metric.update(torch.tensor(loss), count)
    return float(metric.compute())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("batches", [1, 2, 17])
def test_each_batch_is_weighed_by_its_examples(seed: int, batches: int) -> None:
    generator = np.random.default_rng(seed)
    losses, counts = generator.gamma(2.0, size=batches), generator.integers(1, 100, batches)
    assert mean(list(zip(losses.tolist(), counts.tolist(), strict=True))) == pytest.approx(
        np.average(losses, weights=counts), rel=1e-6
    )


@pytest.mark.parametrize("batches", [[(NAN, 1), (1.0, 9)], [(1.0, 9), (NAN, 1)], [(INF, 1), (-INF, 1)]])
def test_nan_is_kept(batches: list[tuple[float, int]]) -> None:
    assert math.isnan(mean(batches))


def test_infinity_is_kept() -> None:
    assert mean([(1.0, 3), (INF, 1)]) == INF


@pytest.mark.parametrize("filler", [NAN, INF, 1e30, 0.0])
@pytest.mark.parametrize("first", [True, False])
def test_a_batch_without_an_example_adds_nothing(filler: float, first: bool) -> None:
    batches = [(1.0, 3), (5.0, 1)]
    assert mean([(filler, 0), *batches] if first else [*batches, (filler, 0)]) == 2.0


def test_processes_are_summed_before_the_division() -> None:
    ranks = [MeanLoss(), MeanLoss()]
    reductions: dict[str, Any] = ranks[0]._reductions
    ranks[0].update(torch.tensor(1.0), 3)
    ranks[0].update(torch.tensor(2.0), 4)
    ranks[1].update(torch.tensor(9.0), 1)
    # What torchmetrics does after it has gathered the states of all processes.
    sums = {name: reduce(torch.stack([getattr(rank, name) for rank in ranks])) for name, reduce in reductions.items()}
    ranks[0].total, ranks[0].count = sums["total"], sums["count"]
    assert float(ranks[0].compute()) == np.average([1.0, 2.0, 9.0], weights=[3, 4, 1])


def test_a_process_without_an_example_does_not_change_the_mean() -> None:
    ranks = [MeanLoss(), MeanLoss()]
    ranks[0].update(torch.tensor(1.5), 4)
    ranks[1].update(torch.tensor(NAN), 0)
    total = sum(rank.total for rank in ranks)
    count = sum(rank.count for rank in ranks)
    assert float(total / count) == 1.5


def test_a_reset_forgets() -> None:
    metric = MeanLoss()
    metric.update(torch.tensor(NAN), 2)
    metric.reset()
    metric.update(torch.tensor(3.0), 2)
    assert float(metric.compute()) == 3.0


# --- the short way of adding ---


def added(metric: Any, batches: list[tuple[Any, ...]], how: str) -> float:
    for batch in batches:
        getattr(metric, how)(*batch)
    return float(metric.compute())


LOSSES = [(torch.tensor(1.5), 3), (torch.tensor(0.25), 0), (torch.tensor(2.0), 8)]
LOGITS = [(torch.eye(3), torch.tensor([0, 1, 1])), (torch.eye(3)[:1], torch.tensor([0]))]


@pytest.mark.parametrize(("make", "batches"), [(MeanLoss, LOSSES), (TopOneAccuracy, LOGITS)])
@pytest.mark.filterwarnings("error")  # torchmetrics warns where it thinks that nothing was added
def test_adding_is_updating(make: type[Any], batches: list[tuple[Any, ...]]) -> None:
    metric = make()
    first = added(metric, batches, "add")
    assert first == added(make(), batches, "update")
    metric.reset()
    assert added(metric, batches[:1], "add") == added(make(), batches[:1], "update") != first
    assert float(metric.compute()) == added(make(), batches[:1], "update")
