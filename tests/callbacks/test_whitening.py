"""The first layer comes from training images, once, and a run that continues keeps it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_lab.callbacks.whitening import Whitening
from lightning_lab.data.loader import Examples, TensorLoader
from lightning_lab.nets import MLP, SpeedNet
from lightning_lab.runs.errors import InputError
from lightning_lab.tasks import Classification

Build = Callable[..., Trainer]


def loader(count: int = 1200) -> TensorLoader:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 3, 18, 18, generator=generator)
    return TensorLoader(Examples(x, torch.arange(count) % 10), batch_size=300, shuffle=True)


def task() -> Classification:
    torch.manual_seed(0)
    net = SpeedNet(image_size=18, channels=(4, 4, 4))
    return Classification(net, optimizer=lambda p: torch.optim.SGD([w for w in p if w.requires_grad], lr=0.01))


def test_the_layer_is_that_of_a_sample_of_the_training_images(trainer: Build) -> None:
    module, reference = task(), SpeedNet(image_size=18)
    trainer(Whitening(1000)).fit(module, loader(), loader(300))
    reference.whiten(loader().sample(1000))
    assert torch.equal(module.net.whitening.weight, reference.whitening.weight)


def test_looking_at_the_images_changes_nothing_else(trainer: Build) -> None:
    module, other = task(), task()
    built = trainer(Whitening(1000))
    built.fit(module, loader(), loader(300))
    other.net.load_state_dict({"whitening.weight": module.net.whitening.weight}, strict=False)
    trainer().fit(other, loader(), loader(300))
    assert built.global_step == 4
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))


def test_a_run_that_continues_keeps_its_layer(trainer: Build, tmp_path: Path) -> None:
    first = task()
    built = trainer(Whitening(1000))
    built.fit(first, loader(), loader(300))
    built.save_checkpoint(tmp_path / "one.ckpt")
    second = task()
    other_images = TensorLoader(Examples(torch.rand(600, 3, 18, 18), torch.arange(600) % 10), batch_size=300)
    trainer(Whitening(1000), max_epochs=2).fit(
        second, other_images, loader(300), ckpt_path=tmp_path / "one.ckpt", weights_only=True
    )
    assert torch.equal(second.net.whitening.weight, first.net.whitening.weight)


def test_a_net_that_cannot_be_whitened_is_named(trainer: Build) -> None:
    module: Any = Classification(MLP(in_features=3 * 18 * 18))
    with pytest.raises(InputError, match=r"needs a net with a method `whiten`, as SpeedNet has; MLP has none\."):
        trainer(Whitening(1000)).fit(module, loader(), loader(300))


def test_a_loader_that_gives_no_sample_is_named(trainer: Build) -> None:
    pairs = [(torch.randn(3, 18, 18), 0)] * 4
    plain = torch.utils.data.DataLoader(pairs, batch_size=2)  # type: ignore[arg-type, var-annotated]
    with pytest.raises(InputError, match=r"needs a loader with a method `sample`; DataLoader has none\."):
        trainer(Whitening(1000)).fit(task(), plain, loader(300))


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^`num_images` must be at least 1000, got 999\.$"):
        Whitening(999)
