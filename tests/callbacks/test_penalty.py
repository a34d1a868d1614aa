"""The penalty against autograd of loss + penalty, steps by hand in NumPy, and weight decay."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from lightning_lab.callbacks.checkpoint import Checkpoint
from lightning_lab.callbacks.gradient_clipping import GradientClipping
from lightning_lab.callbacks.penalty import Penalty
from lightning_lab.data.loader import TensorLoader
from lightning_lab.runs.errors import InputError, Stopped
from lightning_lab.tasks import Classification

Build = Callable[..., Trainer]
Loaders = Callable[..., TensorLoader]
KINDS = ("l1", "l2", "norm")
NAMES = ["net.layers.1.weight", "net.layers.1.bias", "net.layers.4.weight", "net.layers.4.bias"]
CHOSEN: dict[str, tuple[Any, list[str]]] = {
    "weights": ("weights", [NAMES[0], NAMES[2]]),
    "all": ("all", NAMES),
    "a name": ([NAMES[2]], [NAMES[2]]),
    "patterns": (["*.1.*", "*.4.bias"], [NAMES[0], NAMES[1], NAMES[3]]),
}


def task(net: nn.Module, lr: float = 0.1, **settings: Any) -> Classification:
    return Classification(net, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=lr, **settings))


def penalty_of(parameters: list[Tensor], kind: str) -> Tensor:
    """The formulas of the labs, for autograd."""
    terms = {
        "l1": lambda p: p.abs().sum(),
        "l2": lambda p: (p**2).sum(),
        "norm": lambda p: torch.linalg.vector_norm(p),
    }
    return torch.stack([terms[kind](p) for p in parameters]).sum()


class Gradients(Callback):
    """Keep the gradients of every step as the optimiser gets them."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.steps.append({name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None})


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def close(one: nn.Module, other: nn.Module, tolerance: float = 1e-6) -> bool:
    pairs = [(value, other.state_dict()[name]) for name, value in one.state_dict().items()]
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in pairs)


# --- the gradient ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("parameters", "names"), CHOSEN.values(), ids=list(CHOSEN))
def test_the_gradient_is_that_of_loss_and_penalty(
    trainer: Build, classes: Loaders, small_net: Any, kind: Any, parameters: Any, names: list[str]
) -> None:
    module, loader, seen = task(small_net()), classes(4), Gradients()
    with torch.no_grad():
        module.net.layers[4].bias.zero_()  # type: ignore[union-attr, index, operator]
        module.net.layers[1].weight[0, 0] = 0.0  # type: ignore[union-attr, index]
    oracle = copy.deepcopy(module)
    (batch,) = loader
    chosen = [p for name, p in oracle.named_parameters() if name in names]
    loss = nn.functional.cross_entropy(oracle(batch.x), batch.y) + 0.3 * penalty_of(chosen, kind)
    expected = torch.autograd.grad(loss, list(oracle.parameters()))
    trainer(Penalty(kind=kind, weight=0.3, parameters=parameters), seen).fit(module, loader)
    for name, gradient in zip(NAMES, expected, strict=True):
        assert seen.steps[0][name].numpy() == pytest.approx(gradient.numpy(), abs=1e-6), name


@pytest.mark.parametrize("kind", KINDS)
def test_two_steps_by_hand(trainer: Build, classes: Loaders, small_net: Any, kind: Any) -> None:
    net, loader = small_net(hidden=0), classes(8)
    weight, bias = (p.detach().numpy().astype(np.float64) for p in net.parameters())
    losses, penalties = [], []
    for batch in loader:
        x, y = batch.x.numpy().astype(np.float64), batch.y.numpy()
        logits = x @ weight.T + bias
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        losses.append(-np.log(p[np.arange(len(y)), y]).mean())
        excess = (p - np.eye(3)[y]) / len(y)
        norm = np.sqrt((weight**2).sum())
        value, slope = {
            "l1": (np.abs(weight).sum(), np.sign(weight)),
            "l2": ((weight**2).sum(), 2 * weight),
            "norm": (norm, weight / norm),
        }[kind]
        penalties.append(0.2 * value)
        weight, bias = weight - 0.1 * (excess.T @ x + 0.2 * slope), bias - 0.1 * excess.sum(axis=0)
    built = trainer(Penalty(kind=kind, weight=0.2))
    built.fit(task(net), loader)
    assert net.layers[1].weight.detach().numpy() == pytest.approx(weight, abs=1e-6)
    assert net.layers[1].bias.detach().numpy() == pytest.approx(bias, abs=1e-6)
    assert float(built.callback_metrics["train/penalty"]) == pytest.approx(np.mean(penalties), rel=1e-6)
    assert float(built.callback_metrics["train/loss"]) == pytest.approx(np.mean(losses), rel=1e-6)  # without it


def test_l2_is_half_of_weight_decay(trainer: Build, classes: Loaders, small_net: Any) -> None:
    ours, decayed, plain = small_net(), small_net(), small_net()
    trainer(Penalty(weight=0.05, parameters="all"), max_epochs=3).fit(task(ours, momentum=0.9), classes())
    trainer(max_epochs=3).fit(task(decayed, momentum=0.9, weight_decay=0.1), classes())
    trainer(max_epochs=3).fit(task(plain, momentum=0.9), classes())
    assert close(ours, decayed)
    assert not close(ours, plain, 1e-2)


def test_the_clipping_behind_it_bounds_the_sum(trainer: Build, classes: Loaders, small_net: Any) -> None:
    net, loader = small_net(), classes()
    expected = copy.deepcopy(net)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1)
    for batch in loader:
        optimizer.zero_grad()
        penalty = penalty_of([p for p in expected.parameters() if p.ndim == 2], "l2")
        (nn.functional.cross_entropy(expected(batch.x), batch.y) + 0.5 * penalty).backward()
        clip_grad_norm_(expected.parameters(), 0.3)
        optimizer.step()
    trainer(Penalty(weight=0.5), GradientClipping(max_norm=0.3)).fit(task(net), loader)
    assert close(net, expected)


class Unused(Classification):
    """Has a parameter that its loss does not depend on, and one that is not trained."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
        self.unused = nn.Parameter(torch.full((2, 2), 3.0))
        self.frozen = nn.Parameter(torch.full((2, 2), 3.0), requires_grad=False)


def test_what_the_loss_does_not_depend_on_is_penalised_and_what_is_frozen_is_not(
    trainer: Build, classes: Loaders, small_net: Any
) -> None:
    module = Unused(small_net())
    trainer(Penalty(weight=0.5, parameters=["unused", "frozen"])).fit(module, classes(8))
    assert module.unused.detach().numpy() == pytest.approx(3.0 * 0.9**2)  # 1 - 0.1 * 2 * 0.5, twice
    assert (module.frozen == 3.0).all()


def test_a_parameter_that_is_frozen_on_the_way_is_left_alone(trainer: Build, classes: Loaders, small_net: Any) -> None:
    class Freeze(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
            pl_module.unused.requires_grad_(trainer.current_epoch == 0)
            pl_module.unused.grad = None

    module = Unused(small_net())
    trainer(Freeze(), Penalty(weight=0.5, parameters=["unused"]), max_epochs=2).fit(module, classes(4))
    assert module.unused.detach().numpy() == pytest.approx(3.0 * 0.9)


class SometimesNothing(Classification):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx else super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_step_without_a_loss_has_no_penalty(trainer: Build, classes: Loaders, small_net: Any) -> None:
    sgd: Any = lambda parameters: torch.optim.SGD(parameters, lr=0.1)  # noqa: E731
    skips, once = SometimesNothing(small_net(), optimizer=sgd), Classification(small_net(), optimizer=sgd)
    trainer(Penalty(weight=0.5)).fit(skips, classes(8))
    trainer(Penalty(weight=0.5), limit_train_batches=1).fit(once, classes(8))
    assert same(skips.net, once.net)


# --- ways of training ---


@pytest.mark.parametrize("kind", KINDS)
def test_accumulated_batches_have_it_once(trainer: Build, classes: Loaders, small_net: Any, kind: Any) -> None:
    parts, whole = small_net(), small_net()
    trainer(Penalty(kind=kind, weight=0.1), accumulate_grad_batches=2).fit(task(parts), classes(16, batch_size=4))
    trainer(Penalty(kind=kind, weight=0.1)).fit(task(whole), classes(16, batch_size=8))
    assert close(parts, whole)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fused_step_and_lightnings_own_loop_do_the_same(
    trainer: Build, classes: Loaders, small_net: Any, kind: Any
) -> None:
    fused, plain, slow = small_net(), small_net(), small_net()
    trainer(Penalty(kind=kind, weight=0.1)).fit(task(fused, fused=True), classes())
    trainer(Penalty(kind=kind, weight=0.1)).fit(task(plain), classes())
    built = trainer(Penalty(kind=kind, weight=0.1))
    built.fit_loop.epoch_loop._prepare = lambda: None  # type: ignore[attr-defined]
    built.fit_loop.epoch_loop.advance = super(type(built.fit_loop.epoch_loop), built.fit_loop.epoch_loop).advance  # type: ignore[method-assign]
    built.fit(task(slow), classes())
    assert close(fused, plain)
    assert same(slow, plain)


def test_in_half_precision_it_is_as_exact_as_the_weights(trainer: Build, classes: Loaders, small_net: Any) -> None:
    ours, plain, start = small_net(), small_net(), small_net()
    trainer(Penalty(weight=1.0), precision="bf16-mixed").fit(task(ours), classes(4))
    trainer(precision="bf16-mixed").fit(task(plain), classes(4))
    moved = plain.layers[1].weight - ours.layers[1].weight
    assert moved.detach().numpy() == pytest.approx(0.2 * start.layers[1].weight.detach().numpy(), abs=1e-6)


def in_half(fused: bool) -> Any:
    scaler: Any = torch.amp.GradScaler("cpu", init_scale=1024.0)
    return {"plugins": MixedPrecision("16-mixed", "cpu", scaler=scaler)}, {"fused": fused}


def test_the_scale_of_16_bits_is_taken_off_first(trainer: Build, classes: Loaders, small_net: Any) -> None:
    scaled, plain = small_net(), small_net()
    settings, optimizer = in_half(fused=False)
    trainer(Penalty(weight=1.0), **settings).fit(task(scaled, **optimizer), classes(4))
    trainer(Penalty(weight=1.0)).fit(task(plain), classes(4))
    assert close(scaled, plain, 1e-2)


def test_a_fused_step_that_takes_the_scale_off_itself_is_refused(
    trainer: Build, classes: Loaders, small_net: Any
) -> None:
    settings, optimizer = in_half(fused=True)
    message = "`penalty` cannot act in `trainer.precision` 16-mixed with a fused optimiser"
    with pytest.raises(InputError, match=message):
        trainer(Penalty(weight=1.0), **settings).fit(task(small_net(), **optimizer), classes(4))


def test_a_run_that_continues_in_mid_epoch_logs_what_the_uninterrupted_one_logs(
    trainer: Build, classes: Loaders, small_net: Any, tmp_path: Path, new_watch: Any, stop_at: Any
) -> None:
    def callbacks() -> list[Any]:
        return [Penalty(weight=0.1), *Checkpoint().callbacks(tmp_path / "checkpoints")]

    whole, rest = new_watch(), new_watch()
    trainer(Penalty(weight=0.1), whole, max_epochs=2).fit(task(small_net()), classes(), classes())
    with pytest.raises(Stopped):
        trainer(stop_at(tmp_path / "checkpoints/last.ckpt", 3), *callbacks(), max_epochs=2).fit(
            task(small_net()), classes(), classes()
        )
    trainer(rest, *callbacks(), max_epochs=2).fit(
        task(small_net()), classes(), classes(), ckpt_path=tmp_path / "checkpoints/last.ckpt", weights_only=True
    )
    found = [[epoch["train/penalty"] for epoch in watch.metrics] for watch in (rest, whole)]
    assert found[0] == found[1]
    assert found[1][0] > found[1][1] > 0


# --- what it says ---


def test_a_weight_of_zero_is_a_warning_and_changes_nothing(trainer: Build, classes: Loaders, small_net: Any) -> None:
    net, plain = small_net(), small_net()
    built = trainer(Penalty(weight=0.0))
    with pytest.warns(UserWarning, match="`penalty` has no effect: its `weight` is 0. --penalty null switches it off."):
        built.fit(task(net), classes())
    trainer().fit(task(plain), classes())
    assert same(net, plain)
    assert float(built.callback_metrics["train/penalty"]) == 0.0


def test_a_name_that_fits_nothing_is_refused(trainer: Build, classes: Loaders, small_net: Any) -> None:
    message = (
        "`penalty.parameters`: Unknown parameter 'net.layers.1.wieght'. Did you mean 'net.layers.1.weight'? "
        f"Known: {', '.join(sorted(NAMES))}."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        trainer(Penalty(parameters=["*.bias", "net.layers.1.wieght"])).fit(task(small_net()), classes())


@pytest.mark.parametrize("parameters", ["weights", "all", ["*"]])
def test_nothing_to_penalise_is_refused(trainer: Build, classes: Loaders, small_net: Any, parameters: Any) -> None:
    module = task(small_net())
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.endswith("bias") and parameters == "weights")
    message = (
        f"`penalty` has no effect: `parameters` {parameters} takes none that is trained. Known: {', '.join(NAMES)}"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        trainer(Penalty(parameters=parameters)).fit(module, classes())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": -0.1}, "`weight` of the penalty must be at least 0 and finite, got -0.1."),
        ({"weight": float("nan")}, "`weight` of the penalty must be at least 0 and finite, got nan."),
        ({"weight": float("inf")}, "`weight` of the penalty must be at least 0 and finite, got inf."),
        ({"parameters": []}, r"`parameters` of the penalty must be weights, all or a list of names, got \[\]. Write a"),
        ({"parameters": "bias"}, r"must be weights, all or a list of names, got bias. Write a list as --penalty.para"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Penalty(**arguments)
