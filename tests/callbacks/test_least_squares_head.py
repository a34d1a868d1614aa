"""The last layer by least squares against scikit-learn on activations collected by hand, and when it acts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_lab.callbacks.early_stopping import EarlyStopping
from lightning_lab.callbacks.least_squares_head import LeastSquaresHead
from lightning_lab.data.loader import Examples, TensorLoader
from lightning_lab.runs.errors import DivergedError, InputError
from lightning_lab.tasks import Classification, Regression

Build = Callable[..., Trainer]
Loaders = Callable[..., TensorLoader]


def task(net: nn.Module, lr: float = 0.1) -> Classification:
    return Classification(net, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=lr))


class Act(Callback):
    """Do something once, and count how often the layer was set."""

    def __init__(self, do: Callable[[Trainer], None] = lambda trainer: None, *, step: int = 0) -> None:
        self.do = do
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            self.do(trainer)


class Last(nn.Module):
    """Dense layers; what stands behind the last of them, its bias, and the shape it reads can be other than usual."""

    num_classes = 3

    def __init__(self, *, bias: bool = True, behind: nn.Module | None = None, rows: int = 0) -> None:
        super().__init__()
        self.rows = rows
        self.body = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.5))
        self.unused = nn.Linear(2, 2)
        self.last = nn.Linear(6, 3, bias=bias)
        self.behind = nn.Identity() if behind is None else behind
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x)
        if self.rows:
            hidden = hidden.unsqueeze(1).expand(-1, self.rows, -1)
        outputs: Tensor = self.behind(self.last(hidden))
        return outputs.mean(1) if self.rows else outputs


class Column(nn.Linear):
    """A linear map with its bias as the last column of the weights."""

    def __init__(self) -> None:
        super().__init__(7, 3, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(torch.cat([input, input.new_ones(len(input), 1)], dim=1))


def solution(x: Tensor, targets: np.ndarray, ridge: float, *, bias: bool = True) -> tuple[np.ndarray, np.ndarray]:
    inputs = x.detach().double().numpy()
    spread = ((inputs - inputs.mean(0) if bias else inputs) ** 2).sum() / inputs.shape[1]
    fitted = Ridge(alpha=ridge * spread, fit_intercept=bias, solver="svd").fit(inputs, targets)
    weight = np.atleast_2d(fitted.coef_)
    return weight, np.broadcast_to(fitted.intercept_, len(weight))


# --- the solution ---


@pytest.mark.parametrize("ridge", [1e-6, 1e-2])
@pytest.mark.parametrize("bias", ["vector", "column", "none"])
def test_weights_and_bias_are_scikit_learns(trainer: Build, classes: Loaders, bias: str, ridge: float) -> None:
    net = Last(bias=bias == "vector")
    if bias == "column":
        net.last = Column()
    loader = classes()  # 22 examples, the last batch has 2
    built = trainer(LeastSquaresHead(ridge=ridge), limit_train_batches=2)
    built.fit(task(net), loader, classes(9))
    hidden = net.body.eval()(loader.examples.x)
    weight, offset = solution(hidden, np.eye(3)[loader.examples.y], ridge, bias=bias != "none")
    ours = net.last.weight.detach().double().numpy()
    assert ours[:, :6] == pytest.approx(weight, rel=1e-4, abs=1e-6)
    if bias == "column":
        assert ours[:, 6] == pytest.approx(offset, rel=1e-4, abs=1e-6)
    elif bias == "vector":
        assert net.last.bias.detach().double().numpy() == pytest.approx(offset, rel=1e-4, abs=1e-6)


def test_in_regression_the_targets_are_the_datas(trainer: Build) -> None:
    x = torch.linspace(-2, 2, 50).unsqueeze(1)
    loader = TensorLoader(Examples(x, torch.sin(3 * x) + 5), batch_size=7)
    net = nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 1))
    built = trainer(LeastSquaresHead(ridge=1e-8))
    built.fit(Regression(net, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-3)), loader, loader)
    weight, offset = solution(net[:2](x), loader.examples.y.double().numpy(), 1e-8)
    outputs = net[:2](x).detach().double().numpy() @ weight.T + offset
    assert net(x).detach().double().numpy() == pytest.approx(outputs, abs=1e-3)
    metrics = {name: float(value) for name, value in built.callback_metrics.items()}
    assert metrics["val/loss"] < 0.1 < metrics["val/loss_before_head"]
    assert metrics["val/r2"] > 0.9 > metrics["val/r2_before_head"]


def test_classes_that_can_be_separated_are(trainer: Build) -> None:
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 90)
    x = np.eye(4)[y] * 4 + 0.1 * generator.normal(size=(90, 4))
    loader = TensorLoader(Examples(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y)), batch_size=32)
    built = trainer(LeastSquaresHead())
    built.fit(task(Last(), lr=1e-6), loader, loader)
    assert float(built.callback_metrics["val/acc_before_head"]) < 0.8
    assert float(built.callback_metrics["val/acc"]) == 1.0


def test_in_half_precision_it_fits_the_inputs_that_the_layer_gets(trainer: Build, classes: Loaders) -> None:
    net, loader = Last(), classes(200)
    trainer(LeastSquaresHead(ridge=1e-2), precision="bf16-mixed").fit(task(net), loader, loader)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = net.body.eval()(loader.examples.x)
    assert hidden.dtype == torch.bfloat16
    weight, offset = solution(hidden, np.eye(3)[loader.examples.y], 1e-2)
    assert net.last.weight.detach().double().numpy() == pytest.approx(weight, rel=1e-4, abs=1e-6)
    assert net.last.bias.detach().double().numpy() == pytest.approx(offset, rel=1e-4, abs=1e-6)


def test_a_compiled_net_has_it_too(trainer: Build, classes: Loaders) -> None:
    plain, compiled = Last(), Last()
    compiled.compile(backend="eager")
    for net in (plain, compiled):
        torch.manual_seed(0)
        trainer(LeastSquaresHead(), max_epochs=2).fit(task(net), classes(), classes(9))
    assert torch.equal(plain.last.weight, compiled.last.weight)


# --- what is measured ---


def test_before_is_what_a_run_without_it_measures_and_after_is_what_is_saved(
    trainer: Build, classes: Loaders, small_net: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {}
    for name, callbacks in (("with", [LeastSquaresHead()]), ("without", [])):
        net = small_net()
        built = trainer(*callbacks, max_epochs=2, limit_val_batches=3)
        built.fit(task(net), classes(), classes(31))
        metrics[name] = {key: float(value) for key, value in built.callback_metrics.items()}
        if callbacks:
            again = trainer(LeastSquaresHead(), limit_val_batches=3)
            again.validate(task(net), classes(31), verbose=False)
            measured = {key: float(value) for key, value in again.callback_metrics.items()}
    before = {key: value for key, value in metrics["with"].items() if key.endswith("_before_head")}
    assert before == {f"{key}_before_head": value for key, value in metrics["without"].items() if "val/" in key}
    assert measured == {key: metrics["with"][key] for key in ("val/loss", "val/acc")}
    assert metrics["with"]["train/loss"] == metrics["without"]["train/loss"]
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("least_squares_head")]
    acc, loss = (f"{metrics['without'][key]:.4g} -> {metrics['with'][key]:.4g}" for key in ("val/acc", "val/loss"))
    assert said == [f"least_squares_head: val/acc {acc}, val/loss {loss}"]


class Plain(LightningModule):
    """A module that keeps no metrics."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.layers = net

    def forward(self, x: Tensor) -> Any:
        return self.layers(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch.x), batch.y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", nn.functional.cross_entropy(self(batch.x), batch.y), batch_size=len(batch.y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_module_that_keeps_no_metrics_has_none_before(
    trainer: Build, classes: Loaders, capsys: pytest.CaptureFixture[str]
) -> None:
    net, loader = Last(), classes()
    built = trainer(LeastSquaresHead())
    built.fit(Plain(net), loader, classes(9))
    weight, _ = solution(net.body.eval()(loader.examples.x), np.eye(3)[loader.examples.y], 1e-4)
    assert net.last.weight.detach().double().numpy() == pytest.approx(weight, rel=1e-4, abs=1e-6)
    assert set(built.callback_metrics) == {"val/loss"}
    assert "least_squares_head: set\n" in capsys.readouterr().out


# --- when it acts ---


class Sets(Callback):
    """Note after which step the last layer jumped."""

    def __init__(self) -> None:
        self.at: list[int] = []
        self._kept: Tensor | None = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        self._kept = pl_module.net.last.weight.detach().clone()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if not torch.equal(pl_module.net.last.weight, self._kept):
            self.at.append(trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self._kept is not None:
            self.on_train_epoch_end(trainer, pl_module)
            self._kept = pl_module.net.last.weight.detach().clone()


def stop(trainer: Trainer) -> None:
    trainer.should_stop = True


@pytest.mark.parametrize(
    ("settings", "callbacks", "at"),
    [
        ({"max_epochs": 3}, [], [18]),
        ({"max_epochs": 3, "num_sanity_val_steps": 1}, [], [18]),
        ({"max_epochs": 2, "limit_train_batches": 4}, [], [8]),
        ({"max_epochs": 2, "val_check_interval": 2}, [], [12]),
        ({"max_epochs": 3, "check_val_every_n_epoch": 2}, [], [18]),
        ({"max_epochs": 2, "limit_val_batches": 0}, [], [12]),
        ({"max_epochs": 2, "val_check_interval": 4}, [], [12]),
        ({"max_epochs": -1, "max_steps": 12}, [], [12]),
        ({"max_epochs": -1, "max_steps": 9}, [], [9]),
        ({"max_epochs": 2, "max_steps": 50}, [], [12]),
        ({"max_epochs": 2, "accumulate_grad_batches": 4}, [], [4]),
        ({"max_epochs": 9}, [Act(stop, step=8)], [8]),
        ({"max_epochs": 9, "min_epochs": 2}, [Act(stop, step=3)], [12]),
        ({"max_epochs": -1, "max_time": {"microseconds": 1}}, [], [1]),
    ],
    ids=lambda value: re.sub(" object at 0x[0-9a-f]+", "", str(value)),
)
def test_it_acts_once_at_the_end(
    trainer: Build, classes: Loaders, settings: dict[str, Any], callbacks: list[Callback], at: list[int]
) -> None:
    sets = Sets()
    net, loader = Last(), classes()
    trainer(LeastSquaresHead(), *callbacks, sets, **settings).fit(task(net), loader, classes(9))
    assert sets.at == at
    weight, _ = solution(net.body.eval()(loader.examples.x), np.eye(3)[loader.examples.y], 1e-4)
    assert net.last.weight.detach().double().numpy() == pytest.approx(weight, rel=1e-4, abs=1e-6)


def test_an_end_without_a_validation_is_said(
    trainer: Build, classes: Loaders, capsys: pytest.CaptureFixture[str]
) -> None:
    built = trainer(LeastSquaresHead(), max_epochs=3, check_val_every_n_epoch=2)
    built.fit(task(Last()), classes(), classes(9))
    assert "least_squares_head: set; no validation comes behind it\n" in capsys.readouterr().out
    assert not [name for name in built.callback_metrics if "before" in name]


def test_the_other_verbs_leave_the_net_alone(trainer: Build, classes: Loaders) -> None:
    net = Last()
    before = net.last.weight.detach().clone()
    trainer(LeastSquaresHead(), max_steps=0).validate(task(net), classes(), verbose=False)
    trainer(LeastSquaresHead(), max_steps=0).test(task(net), classes(), verbose=False)
    assert torch.equal(net.last.weight, before)
    both = trainer(LeastSquaresHead())
    both.fit(task(net), classes(), classes(9))
    both.validate(task(net), classes(9), verbose=False)
    assert set(both.callback_metrics) == {"val/loss", "val/acc"}


def test_the_check_before_a_run_goes_on_leaves_the_net_alone(trainer: Build, classes: Loaders, tmp_path: Path) -> None:
    class AtStart(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
            self.weight = pl_module.net.last.weight.detach().clone()

    first, start = trainer(), AtStart()
    net = Last()
    first.fit(task(net), classes(), classes(9))
    first.save_checkpoint(tmp_path / "end.ckpt")
    expected = net.last.weight.detach().clone()
    trainer(LeastSquaresHead(), start, max_epochs=2, num_sanity_val_steps=1).fit(
        task(net), classes(), classes(9), ckpt_path=tmp_path / "end.ckpt", weights_only=True
    )
    assert torch.equal(start.weight, expected)


def test_the_rest_of_the_net_is_in_the_mode_that_it_was_in(trainer: Build, classes: Loaders) -> None:
    net = Last()
    chosen = Act(lambda trainer: net.body[1].eval() and None, step=1)
    trainer(LeastSquaresHead(), chosen, max_steps=2, max_epochs=-1).fit(task(net), classes(), classes(9))
    assert [net.body[0].training, net.body[1].training, net.body[2].training] == [True, False, True]


def test_a_run_that_is_trained_on_gets_it_again(trainer: Build, classes: Loaders, tmp_path: Path) -> None:
    head, sets = LeastSquaresHead(), Sets()
    net = Last()
    first = trainer(head)
    first.fit(task(net), classes(), classes(9))
    first.save_checkpoint(tmp_path / "end.ckpt")
    trainer(LeastSquaresHead(), sets, max_epochs=2).fit(
        task(net), classes(), classes(9), ckpt_path=tmp_path / "end.ckpt", weights_only=True
    )
    assert sets.at == [12]


# --- what it says ---


@pytest.mark.parametrize("ridge", [0.0, 1e-11, -1.0, float("nan"), float("inf")])
def test_a_ridge_out_of_range_is_refused(ridge: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"`ridge` must be at least 1e-10 and finite, got {ridge}.")):
        LeastSquaresHead(ridge=ridge)


def test_early_stopping_is_refused(trainer: Build, classes: Loaders) -> None:
    message = "`least_squares_head` acts ahead of the last epoch's validation, and `early_stopping` decides behind"
    with pytest.raises(InputError, match=message):
        trainer(EarlyStopping(patience=1), LeastSquaresHead(), max_epochs=3).fit(task(Last()), classes(), classes(9))


class NoLinear(nn.Module):
    num_classes = 4

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (NoLinear(), "`least_squares_head` needs a net with a linear layer, and NoLinear has none."),
        (Last(behind=nn.ReLU()), "needs a net that ends in its last linear layer, and Last does more to that layer's"),
        (Last(rows=2), "output, or gives it no vectors. --least_squares_head null switches it off."),
    ],
    ids=["none", "more behind", "no vectors"],
)
def test_a_net_that_does_not_end_in_a_linear_layer_is_refused_before_it_is_trained(
    trainer: Build, classes: Loaders, net: nn.Module, message: str
) -> None:
    built = trainer(LeastSquaresHead())
    with pytest.raises(InputError, match=message):
        built.fit(task(net), classes(num_classes=4 if isinstance(net, NoLinear) else 3), classes(9))
    assert built.global_step == 0


def test_a_loader_that_cannot_go_without_augmentation_is_refused(trainer: Build, classes: Loaders) -> None:
    examples = classes().examples
    loader: Any = DataLoader(TensorDataset(examples.x, examples.y), batch_size=22)
    message = (
        "`least_squares_head` needs a loader with a method `plain`; DataLoader has none. --least_squares_head null"
    )
    with pytest.raises(InputError, match=message):
        trainer(LeastSquaresHead()).fit(task(Last()), loader)


class Endless(Classification):
    """Breaks a weight in a step whose loss does not show it."""

    def on_train_batch_end(self, *_: Any) -> None:
        with torch.no_grad():
            self.net.body[0].bias.fill_(float("nan"))  # type: ignore[union-attr, index, operator]


def test_inputs_that_are_not_finite_are_a_divergence(trainer: Build, classes: Loaders) -> None:
    module = Endless(Last(), optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    message = "Training diverged: the inputs of the last linear layer are not finite, so `least_squares_head` has no"
    with pytest.raises(DivergedError, match=message):
        trainer(LeastSquaresHead()).fit(module, classes(4), classes(9))
