"""Dropout's masks: the same after an interruption, others with another seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_lab.callbacks.checkpoint import Checkpoint
from lightning_lab.callbacks.epoch_so_far import EpochSoFar
from lightning_lab.callbacks.noise import NoiseStream
from lightning_lab.data.loader import TensorLoader
from lightning_lab.runs.errors import Stopped
from lightning_lab.tasks import Classification

Build = Callable[..., Trainer]
Loaders = Callable[..., TensorLoader]


def task(small_net: Any, dropout: float = 0.5) -> Classification:
    net = small_net(dropout=dropout)
    return Classification(net, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9))


def train(trainer: Build, classes: Loaders, small_net: Any, *callbacks: Any, **settings: Any) -> dict[str, Tensor]:
    module = task(small_net)
    fit = {name: settings.pop(name) for name in ("ckpt_path", "weights_only") if name in settings}
    built = trainer(EpochSoFar(), *callbacks, **{"max_epochs": 3} | settings)
    built.fit(module, classes(shuffle=True, seed=5), classes(9), **fit)
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("stop", [1, 5, 6, 8, 12, 15])  # an epoch has 6 steps
def test_a_run_that_continues_ends_with_the_weights_of_the_uninterrupted_one(
    trainer: Build, classes: Loaders, small_net: Any, stop_at: Any, tmp_path: Path, stop: int
) -> None:
    whole = train(trainer, classes, small_net, NoiseStream(3))
    stopper = stop_at(tmp_path / "checkpoints" / "last.ckpt", stop)
    with pytest.raises(Stopped):
        train(trainer, classes, small_net, NoiseStream(3), stopper)
    torch.rand(stop)  # another process has drawn other numbers before
    saves, last = Checkpoint().callbacks(tmp_path / "checkpoints"), tmp_path / "checkpoints" / "last.ckpt"
    resumed = train(trainer, classes, small_net, NoiseStream(3), *saves, ckpt_path=last, weights_only=True)
    assert equal(resumed, whole)


def test_draws_before_the_training_change_nothing(trainer: Build, classes: Loaders, small_net: Any) -> None:
    torch.manual_seed(0)
    first = train(trainer, classes, small_net, NoiseStream(3))
    torch.manual_seed(1)
    assert equal(train(trainer, classes, small_net, NoiseStream(3)), first)


def test_another_seed_has_other_masks(trainer: Build, classes: Loaders, small_net: Any) -> None:
    first = train(trainer, classes, small_net, NoiseStream(3), max_epochs=1)
    assert not equal(train(trainer, classes, small_net, NoiseStream(4), max_epochs=1), first)


class Masks(torch.nn.Module):
    """Note the mask of each call in training."""

    def __init__(self) -> None:
        super().__init__()
        self.num_classes = 2
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.seen: list[tuple[float, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.nn.functional.dropout(torch.ones(40), training=self.training)
        self.seen.append(tuple(mask.tolist()))
        logits: Tensor = x[:, :2] * self.weight
        return logits


def test_every_step_has_a_mask_of_its_own(trainer: Build, classes: Loaders) -> None:
    net = Masks()
    trainer(NoiseStream(3), max_epochs=2).fit(Classification(net), classes(num_classes=2))
    assert len(net.seen) == len(set(net.seen)) == 12


class Recorder(torch.nn.Module):
    """A net that notes a draw of the global generator for each batch it reads."""

    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.draws: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.draws.append(float(torch.rand(())))
        out: Tensor = self.layer(x)
        return out


def test_accumulated_batches_have_masks_of_their_own(trainer: Build, classes: Loaders) -> None:
    net = Recorder()
    trainer(NoiseStream(0), max_epochs=2, accumulate_grad_batches=3).fit(Classification(net), classes(), classes(9))
    assert len(net.draws) == 12
    assert len(set(net.draws)) == 12
