"""The printed numbers of lab D, to the last printed digit, through the parts of this project."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lightning_lab.callbacks.lr_schedule import LRSchedule
from lightning_lab.cli import LabCLI
from lightning_lab.data.loader import Examples, TensorLoader
from lightning_lab.loops.lean import use_lean_loop
from lightning_lab.nets import MLP
from lightning_lab.shipped import find
from lightning_lab.studies.report.curves import smooth
from lightning_lab.tasks import Regression


@pytest.fixture(autouse=True)
def lightning_may_warn() -> Iterator[None]:
    with warnings.catch_warnings():
        # lightning, on a machine with an accelerator: these tests want the CPU.
        warnings.filterwarnings("ignore", message=r".*available but not used")
        # lightning, where a test needs no validation.
        warnings.filterwarnings("ignore", message="You defined a `validation_step` but have no `val_dataloader`")
        yield


def trainer(tmp_path: Path, *callbacks: Callback, epochs: int = 1) -> Trainer:
    built = Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=tmp_path, max_epochs=epochs, callbacks=list(callbacks),
    )  # fmt: skip
    use_lean_loop(built)
    return built


def configured(tmp_path: Path, *args: str) -> LabCLI:
    """What the command line builds for ``fit --config regression/mlp`` with some keys more."""
    command = [f"--config={find('regression/mlp')}", *args, f"--run.logs={tmp_path}"]
    return LabCLI("fit", command, stem="mlp", origin=None)


def printed(values: Any, digits: int = 4) -> list[float]:
    return np.round(np.asarray(values, dtype=np.float64), digits).ravel().tolist()  # type: ignore[no-any-return]


# --- back-propagation by hand ---

FIRST, SECOND = np.array([[0.15, 0.20], [0.25, 0.30]]), np.array([[0.40, 0.45], [0.50, 0.55]])
FIRST_BIAS, SECOND_BIAS = np.full(2, 0.35), np.full(2, 0.60)
X, TARGET = np.array([0.05, 0.10]), np.array([0.01, 0.99])
PRINTED = {
    "output": [0.7514, 0.7729],
    "loss": [0.2984],
    "gradient 1": [0.0004, 0.0009, 0.0005, 0.0010],
    "gradient 2": [0.0822, 0.0827, -0.0226, -0.0227],
    "weight 1": [0.1498, 0.1996, 0.2498, 0.2995],
    "bias 1": [0.3456, 0.3450],
    "weight 2": [0.3589, 0.4087, 0.5113, 0.5614],
    "bias 2": [0.5308, 0.6190],
}


def by_numpy() -> dict[str, np.ndarray]:
    """The chain rule, written out."""
    hidden = 1 / (1 + np.exp(-(FIRST @ X + FIRST_BIAS)))
    output = 1 / (1 + np.exp(-(SECOND @ hidden + SECOND_BIAS)))
    at_output = (output - TARGET) * output * (1 - output)
    at_hidden = (SECOND.T @ at_output) * hidden * (1 - hidden)
    return {
        "output": output,
        "loss": np.array([((output - TARGET) ** 2).sum() / 2]),
        "gradient 1": np.outer(at_hidden, X),
        "gradient 2": np.outer(at_output, hidden),
        "weight 1": FIRST - 0.5 * np.outer(at_hidden, X),
        "bias 1": FIRST_BIAS - 0.5 * at_hidden,
        "weight 2": SECOND - 0.5 * np.outer(at_output, hidden),
        "bias 2": SECOND_BIAS - 0.5 * at_output,
    }


class Kept(Callback):
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        self.gradients = {name: p.grad.clone().numpy() for name, p in pl_module.net[0].layers.named_parameters()}


@pytest.fixture(scope="module")
def by_the_project(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """MLP, the task's loss, the optimiser that the command line builds, the loader, the loop: one step."""
    folder = tmp_path_factory.mktemp("lab_d")
    mlp = MLP(in_features=2, hidden=(2,), out_features=2, activation="sigmoid")
    net = nn.Sequential(mlp, nn.Sigmoid())  # the project's nets end in a linear layer
    given = (FIRST, FIRST_BIAS, SECOND, SECOND_BIAS)
    with torch.no_grad():
        for parameter, value in zip(mlp.parameters(), given, strict=True):
            parameter.copy_(torch.from_numpy(value))
    x, y = (torch.from_numpy(value).float().unsqueeze(0) for value in (X, TARGET))
    output = net(x).detach().numpy()
    plain = ("--model.optimizer=SGD", "--model.optimizer.lr=0.5")
    task, kept = Regression(net, optimizer=configured(folder, *plain).model.optimizer), Kept()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*available but not used")
        warnings.filterwarnings("ignore", message="You defined a `validation_step` but have no `val_dataloader`")
        built = trainer(folder, kept)
        built.fit(task, TensorLoader(Examples(x, y), batch_size=1))
    names = {"layers.0.weight": "weight 1", "layers.0.bias": "bias 1"}
    names |= {"layers.3.weight": "weight 2", "layers.3.bias": "bias 2"}
    after = {names[name]: parameter.detach().numpy() for name, parameter in mlp.named_parameters()}
    gradients = {"gradient 1": kept.gradients["0.weight"], "gradient 2": kept.gradients["3.weight"]}
    return {"output": output, "loss": built.callback_metrics["train/loss"].numpy(), **gradients, **after}


@pytest.mark.parametrize("what", PRINTED)
def test_back_propagation(by_the_project: dict[str, np.ndarray], what: str) -> None:
    """The task's mean squared error is the lab's half sum of squares: there are two outputs and one example."""
    oracle = by_numpy()[what]
    assert printed(oracle) == PRINTED[what]
    assert printed(by_the_project[what]) == PRINTED[what]
    assert by_the_project[what].ravel() == pytest.approx(oracle.ravel(), rel=1e-5)


@pytest.mark.parametrize(("examples", "outputs"), [(1, 2), (3, 2), (4, 1)])
def test_the_labs_loss_is_the_tasks_times_half_the_number_of_values(examples: int, outputs: int) -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(examples, 2)), generator.normal(size=(examples, outputs))
    net = nn.Linear(2, outputs).double()
    loss = Regression(net).training_step((torch.from_numpy(x), torch.from_numpy(y)), 0)
    labs = ((net(torch.from_numpy(x)).detach().numpy() - y) ** 2).sum() / 2
    assert float(loss.detach()) * examples * outputs / 2 == pytest.approx(labs, rel=1e-12)


# --- two steps of each optimiser on w^2 / 2 from w = 1 ---

STEPS: dict[str, tuple[tuple[str, ...], list[float]]] = {
    "momentum": (("SGD", "lr=0.01", "momentum=0.9"), [0.990000, 0.971100]),
    "AdaGrad": (("Adagrad", "lr=0.01"), [0.990000, 0.982965]),
    # torch's own alpha is 0.99; its eps of 1e-8, added to the root, is below what is printed, and nothing is centred.
    "RMSProp": (("RMSprop", "lr=0.01", "alpha=0.9"), [0.968377, 0.945788]),
    # torch's own second beta is 0.999.
    "Adam": (("Adam", "lr=0.001", "betas=[0.9,0.99]"), [0.999000, 0.998000]),
}


def two_steps(tmp_path: Path, name: str, *arguments: str) -> tuple[list[float], list[float]]:
    keys = [f"--model.optimizer={name}", *(f"--model.optimizer.{one}" for one in arguments)]
    weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimiser = configured(tmp_path, *keys).model.optimizer([weight])
    weights, gradients = [], []
    for _ in range(2):
        optimiser.zero_grad()
        (weight**2 / 2).sum().backward()
        gradients.append(float(weight.grad))  # type: ignore[arg-type]
        optimiser.step()
        weights.append(weight.item())
    return weights, gradients


def formulas(name: str) -> list[float]:
    """The optimisers' formulas as the tutorial has them, with nothing added to the root."""
    w, sums, result = 1.0, [0.0, 0.0], []
    for step in (1, 2):
        g = w
        if name == "momentum":
            sums[0] = 0.9 * sums[0] + g
            w -= 0.01 * sums[0]
        elif name == "AdaGrad":
            sums[0] += g**2
            w -= 0.01 * g / sums[0] ** 0.5
        elif name == "RMSProp":
            sums[0] = 0.9 * sums[0] + 0.1 * g**2
            w -= 0.01 * g / sums[0] ** 0.5
        else:
            sums = [0.9 * sums[0] + 0.1 * g, 0.99 * sums[1] + 0.01 * g**2]
            w -= 0.001 * (sums[0] / (1 - 0.9**step)) / (sums[1] / (1 - 0.99**step)) ** 0.5
        result.append(w)
    return result


@pytest.mark.parametrize("name", STEPS)
def test_two_steps(tmp_path: Path, name: str) -> None:
    (optimiser, *arguments), expected = STEPS[name]
    weights, _ = two_steps(tmp_path, optimiser, *arguments)
    assert printed(weights, 6) == expected
    assert weights == pytest.approx(formulas(name), abs=1e-7)


def test_the_gradients_of_momentum(tmp_path: Path) -> None:
    _, gradients = two_steps(tmp_path, "SGD", "lr=0.01", "momentum=0.9")
    assert printed(gradients, 2) == [1, 0.99]


@pytest.mark.parametrize(
    ("departure", "same"), [("eps=1e-6", True), ("eps=1e-5", False), ("centered=true", False), ("alpha=0.99", False)]
)
def test_what_rmsprop_departs_in(tmp_path: Path, departure: str, same: bool) -> None:
    given = {"lr": "0.01", "alpha": "0.9"} | dict([departure.split("=")])
    weights, _ = two_steps(tmp_path, "RMSprop", *(f"{key}={value}" for key, value in given.items()))
    assert (printed(weights, 6) == STEPS["RMSProp"][1]) is same


# --- the exponentially weighted average ---


@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_the_average_of_the_reports_is_the_labs_but_for_the_start(beta: float) -> None:
    """The lab begins with S_1 = y_1, the reports divide by 1 - beta^t: they differ by beta^t of the first value."""
    y = np.random.default_rng(3).normal(size=40).cumsum() + 5
    labs = [y[0]]
    for value in y[1:]:
        labs.append(beta * labs[-1] + (1 - beta) * value)
    ours = [value for _, value in smooth(list(enumerate(y.tolist())), beta)]
    share = beta ** np.arange(1, 41)
    assert ours[0] == labs[0] == y[0]
    assert np.asarray(labs) == pytest.approx((1 - share) * np.asarray(ours) + share * y[0], rel=1e-12)


def test_a_larger_beta_is_smoother() -> None:
    y = np.random.default_rng(3).normal(size=200)
    rough = [np.abs(np.diff([v for _, v in smooth(list(enumerate(y.tolist())), beta)])).sum() for beta in (0, 0.5, 0.9)]
    assert rough[0] > 2 * rough[1] > 4 * rough[2]


# --- batches ---


class Weight(LightningModule):
    """One weight that nothing is learnt by; notes the rate of each step."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.lr = lr
        self.rates: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.rates.append(self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr, index]
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def loader(count: int, batch_size: int) -> TensorLoader:
    return TensorLoader(Examples(torch.zeros(count, 1), torch.zeros(count, 1)), batch_size=batch_size, shuffle=True)


@pytest.mark.parametrize(("batch_size", "iterations"), [(50_000, 1), (256, 196), (1, 50_000)])
def test_iterations_of_an_epoch(batch_size: int, iterations: int) -> None:
    assert len(loader(50_000, batch_size)) == iterations


def test_iterations_of_ten_epochs(tmp_path: Path) -> None:
    module, built = Weight(), trainer(tmp_path, epochs=10)
    built.fit(module, loader(50_000, 256))
    assert built.global_step == len(module.rates) == 1960


# --- schedules from 0.1 over 200 epochs ---

SCHEDULES: dict[str, tuple[tuple[str, ...], Any]] = {
    "step": (("StepLR", "step_size=50", "gamma=0.5"), lambda t: 0.1 * 0.5 ** (t // 50)),
    "multi-step": (
        ("MultiStepLR", "milestones=[50,125,160]", "gamma=0.5"),
        lambda t: 0.1 * 0.5 ** np.searchsorted([50, 125, 160], t, side="right"),
    ),
    "exponential": (("ExponentialLR", "gamma=0.95"), lambda t: 0.1 * 0.95**t),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(tmp_path: Path, name: str) -> None:
    (scheduler, *arguments), rate = SCHEDULES[name]
    keys = [f"--lr_schedule.scheduler={scheduler}", *(f"--lr_schedule.scheduler.{one}" for one in arguments)]
    slot = configured(tmp_path, *keys).config_init.lr_schedule
    assert isinstance(slot, LRSchedule)
    module = Weight()
    trainer(tmp_path, slot, epochs=200).fit(module, loader(2, 1))
    assert module.rates == pytest.approx(np.repeat(rate(np.arange(200)), 2).tolist(), rel=1e-12)
