"""Gradient clipping against torch's functions by hand, and what it logs against NumPy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from lightning_lab.callbacks.checkpoint import Checkpoint
from lightning_lab.callbacks.gradient_clipping import MEASURE_EVERY_STEPS, GradientClipping
from lightning_lab.data.loader import TensorLoader
from lightning_lab.runs.errors import InputError, Stopped
from lightning_lab.tasks import Classification

Build = Callable[..., Trainer]
Loaders = Callable[..., TensorLoader]


def task(net: nn.Module, lr: float = 0.1) -> Classification:
    return Classification(net, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=lr))


def nothing(parameters: Any, bound: float) -> None:
    """Clip nothing."""


def by_hand(net: nn.Module, loader: TensorLoader, clip: Callable[[Any, float], Any], bound: float) -> nn.Module:
    """Train one epoch without Lightning."""
    net = copy.deepcopy(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for batch in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(batch.x), batch.y).backward()
        clip(net.parameters(), bound)
        optimizer.step()
    return net


def gradients(net: nn.Module, loader: TensorLoader) -> list[np.ndarray]:
    """Compute the gradient of softmax regression in every batch, weights and bias in one vector, in closed form."""
    weight, bias = (parameter.detach().numpy().astype(np.float64) for parameter in net.parameters())
    result = []
    for batch in loader:
        x, y = batch.x.numpy().astype(np.float64), batch.y.numpy()
        logits = x @ weight.T + bias
        excess = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) - np.eye(len(bias))[y]
        result.append(np.concatenate([(excess.T @ x).ravel(), excess.sum(axis=0)]) / len(y))
    return result


# --- the step ---


@pytest.mark.parametrize(
    ("arguments", "clip", "bound"),
    [({"max_norm": 0.3}, clip_grad_norm_, 0.3), ({"max_value": 0.05}, clip_grad_value_, 0.05), ({}, nothing, 0.0)],
)
def test_steps_are_those_done_by_hand_with_torch(
    trainer: Build,
    classes: Loaders,
    small_net: Any,
    arguments: dict[str, float],
    clip: Callable[[Any, float], Any],
    bound: float,
) -> None:
    net, loader = small_net(), classes()
    expected = by_hand(net, loader, clip, bound).state_dict()
    trainer(GradientClipping(**arguments)).fit(task(net), loader)
    assert all(torch.equal(value, expected[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("arguments", [{"max_norm": 0.3}, {"max_value": 0.05}])
def test_a_bound_that_is_reached_changes_the_weights(
    trainer: Build, classes: Loaders, small_net: Any, arguments: dict[str, float]
) -> None:
    net, plain = small_net(), small_net()
    trainer(GradientClipping(**arguments)).fit(task(net), classes())
    trainer().fit(task(plain), classes())
    assert not torch.equal(net.layers[1].weight, plain.layers[1].weight)


@pytest.mark.parametrize("arguments", [{"max_norm": 1e6}, {"max_value": 1e6}])
def test_a_bound_out_of_reach_changes_no_weight(
    trainer: Build, classes: Loaders, small_net: Any, arguments: dict[str, float]
) -> None:
    net, plain = small_net(), small_net()
    with pytest.warns(UserWarning, match="`gradient_clipping` had no effect"):
        trainer(GradientClipping(**arguments)).fit(task(net), classes())
    trainer().fit(task(plain), classes())
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in net.state_dict().items())


def in_half(**arguments: Any) -> tuple[dict[str, Any], Any]:
    scaler: Any = torch.amp.GradScaler("cpu", init_scale=1024.0)  # type: ignore[attr-defined]
    optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.1, **arguments)  # noqa: E731
    return {"plugins": MixedPrecision("16-mixed", "cpu", scaler=scaler)}, optimizer


def test_the_scale_of_16_bits_is_no_part_of_the_norm(trainer: Build, classes: Loaders, small_net: Any) -> None:
    norms = {}
    for fused in (False, True):
        settings, optimizer = in_half(fused=fused)
        run = trainer(GradientClipping(), **settings)
        run.fit(Classification(small_net(), optimizer=optimizer), classes())
        norms[fused] = run.callback_metrics["grad_norm"].item()
    assert norms[True] == pytest.approx(norms[False], rel=1e-2)


@pytest.mark.parametrize("bound", [{"max_norm": 0.3}, {"max_value": 0.05}])
def test_clipping_what_is_still_scaled_is_refused(
    trainer: Build, classes: Loaders, small_net: Any, bound: dict[str, float]
) -> None:
    settings, optimizer = in_half(fused=True)
    message = "`gradient_clipping` cannot act in `trainer.precision` 16-mixed with a fused optimiser"
    with pytest.raises(InputError, match=message):
        trainer(GradientClipping(**bound), **settings).fit(Classification(small_net(), optimizer=optimizer), classes())


# --- what is logged ---


def test_norms_and_share_with_a_bound_on_the_norm(trainer: Build, classes: Loaders, small_net: Any, watch: Any) -> None:
    net, loader = small_net(hidden=0), classes()
    before = np.array([np.linalg.norm(g) for g in gradients(net, loader)])
    bound = float(np.median(before[:-1]) * 1.0001)
    after = before * np.minimum(1, bound / before)
    # At a rate of 0 the gradients of both epochs are those of the initial weights.
    trainer(GradientClipping(max_norm=bound), watch, max_epochs=2).fit(task(net, lr=0.0), loader)
    expected = {
        "grad_norm": before.mean(),
        "grad_norm_clipped": after.mean(),
        "clipped_frac": (before > bound).mean(),
    }
    assert 0 < expected["clipped_frac"] < 1
    assert [{name: epoch[name] for name in expected} for epoch in watch.metrics] == [
        pytest.approx(expected, rel=1e-5)
    ] * 2


def test_norms_and_share_with_a_bound_on_the_components(
    trainer: Build, classes: Loaders, small_net: Any, watch: Any
) -> None:
    net, loader = small_net(hidden=0), classes()
    steps = gradients(net, loader)
    largest = np.array([np.abs(g).max() for g in steps])
    bound = float(np.median(largest[:-1]) * 1.0001)
    trainer(GradientClipping(max_value=bound), watch, max_epochs=2).fit(task(net, lr=0.0), loader)
    expected = {
        "grad_norm": np.mean([np.linalg.norm(g) for g in steps]),
        "grad_norm_clipped": np.mean([np.linalg.norm(np.clip(g, -bound, bound)) for g in steps]),
        "clipped_frac": (largest > bound).mean(),
    }
    assert 0 < expected["clipped_frac"] < 1
    assert [{name: epoch[name] for name in expected} for epoch in watch.metrics] == [
        pytest.approx(expected, rel=1e-5)
    ] * 2


def test_without_a_bound_the_norm_of_some_steps_is_logged_and_nothing_else(
    trainer: Build, classes: Loaders, small_net: Any, watch: Any
) -> None:
    net, loader = small_net(hidden=0), classes(2 * MEASURE_EVERY_STEPS + 3, batch_size=1)
    before = [np.linalg.norm(g) for g in gradients(net, loader)]
    trainer(GradientClipping(), watch).fit(task(net, lr=0.0), loader)
    assert watch.metrics[0]["grad_norm"] == pytest.approx(np.mean(before[::MEASURE_EVERY_STEPS]), rel=1e-5)
    assert set(watch.metrics[0]) == {"train/loss", "train/acc", "grad_norm"}


def test_a_run_that_continues_in_mid_epoch_logs_what_the_uninterrupted_one_logs(
    trainer: Build, classes: Loaders, small_net: Any, tmp_path: Path, new_watch: Any, stop_at: Any
) -> None:
    def callbacks() -> list[Any]:
        return [GradientClipping(max_norm=2.5), *Checkpoint().callbacks(tmp_path / "checkpoints")]

    whole, rest = new_watch(), new_watch()
    trainer(GradientClipping(max_norm=2.5), whole).fit(task(small_net()), classes(), classes())
    with pytest.raises(Stopped):
        trainer(stop_at(tmp_path / "checkpoints/last.ckpt", 3), *callbacks()).fit(
            task(small_net()), classes(), classes()
        )
    trainer(rest, *callbacks()).fit(
        task(small_net()), classes(), classes(), ckpt_path=tmp_path / "checkpoints/last.ckpt", weights_only=True
    )
    names = ("grad_norm", "grad_norm_clipped", "clipped_frac")
    assert 0 < whole.metrics[0]["clipped_frac"] < 1
    assert [rest.metrics[0][name] for name in names] == [whole.metrics[0][name] for name in names]


# --- what it says ---


@pytest.mark.parametrize(("arguments", "bound"), [({"max_norm": 1e6}, "1000000.0"), ({"max_value": 50.0}, "50.0")])
def test_a_bound_never_reached_is_a_warning(
    trainer: Build, classes: Loaders, small_net: Any, arguments: dict[str, float], bound: str
) -> None:
    message = f"`gradient_clipping` had no effect: no gradient reached the bound {bound}."
    with pytest.warns(UserWarning, match=message):
        trainer(GradientClipping(**arguments)).fit(task(small_net()), classes())


def test_clipping_twice_is_refused(trainer: Build, classes: Loaders, small_net: Any) -> None:
    message = r"`trainer.gradient_clip_val` 0.5 and the slot `gradient_clipping` both handle the gradient. Use --grad"
    with pytest.raises(ValueError, match=message):
        trainer(GradientClipping(), gradient_clip_val=0.5).fit(task(small_net()), classes())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_norm": 0.0}, "`max_norm` must be above 0, got 0.0. Null switches it off."),
        ({"max_norm": float("nan")}, "`max_norm` must be above 0, got nan. Null switches it off."),
        ({"max_value": -1.0}, "`max_value` must be above 0, got -1.0. Null switches it off."),
        ({"max_norm": 1.0, "max_value": 2.0}, "Give `max_norm` or `max_value`, not both, got 1.0 and 2.0."),
    ],
)
def test_bounds_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GradientClipping(**arguments)
