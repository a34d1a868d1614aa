"""How many examples go into a batch, and for which process they are."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningDataModule

from lightning_lab.data import Digits, Regression
from lightning_lab.data.batching import evaluation_batch_size, placement


def test_placement_without_a_trainer_is_one_process_on_the_cpu() -> None:
    assert placement(LightningDataModule()) == {"rank": 0, "world_size": 1, "device": torch.device("cpu")}


def test_placement_is_the_trainers() -> None:
    module = LightningDataModule()
    strategy = SimpleNamespace(root_device=torch.device("meta"))
    module.trainer = SimpleNamespace(global_rank=2, world_size=4, strategy=strategy)  # type: ignore[assignment]
    assert placement(module) == {"rank": 2, "world_size": 4, "device": torch.device("meta")}


@pytest.mark.parametrize(
    ("batch_size", "shape", "expected"),
    [
        (1, (3, 32, 32), 256),
        (100, (1,), 200),
        (96, (3, 32, 32), 192),
        (128, (3, 32, 32), 256),
        (500, (1,), 500),
        (4, (3, 224, 224), 4),
        (2, (3, 224, 224), 6),
        (1, (3, 1024, 1024), 1),
    ],
)
def test_small_batches_are_evaluated_together(batch_size: int, shape: tuple[int, ...], expected: int) -> None:
    assert evaluation_batch_size(batch_size, torch.zeros(1, *shape)) == expected


@pytest.mark.parametrize("data", [Digits(batch_size=3), Regression(batch_size=3)], ids=["Digits", "Regression"])
def test_validation_and_test_do_not_take_one_step_for_each_training_batch(data: Digits | Regression) -> None:
    data.setup("fit")
    data.setup("test")
    assert data.train_dataloader().batch_size == 3
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert loader.batch_size == 255
        assert len(torch.cat([batch.indices for batch in loader])) == len(loader.examples)
