"""Real trainers of a few steps, on the CPU."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint as LightningCheckpoint
from torch import Tensor, nn

from lightning_lab.callbacks.safe_point import SafePoint, leave_signals
from lightning_lab.data.loader import Examples, TensorLoader
from lightning_lab.loops.lean import use_lean_loop
from lightning_lab.runs.errors import Stopped

Rates = list[float]


@pytest.fixture(autouse=True)
def lightning_may_warn() -> Iterator[None]:
    """Let pass what Lightning says of the machine and of how these tests call it; every other warning is an error."""
    with warnings.catch_warnings():
        # lightning, on a machine with an accelerator: these tests want the CPU.
        warnings.filterwarnings("ignore", message=r".*available but not used")
        # lightning, where a test needs no validation.
        warnings.filterwarnings("ignore", message="You defined a `validation_step` but have no `val_dataloader`")
        # lightning, where a run continues in its own folder, which is what these tests are about.
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
        yield


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """A training takes signals over, and these tests do not always give them back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """Build a silent trainer from callbacks, in their order."""

    def build(*callbacks: Callback, **settings: Any) -> Trainer:
        defaults: dict[str, Any] = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": any(isinstance(one, LightningCheckpoint) for one in callbacks),
            "num_sanity_val_steps": 0,
            "default_root_dir": tmp_path,
            "max_epochs": 1,
        }
        built = Trainer(callbacks=list(callbacks), **defaults | settings)
        use_lean_loop(built)
        leave_signals(built)
        return built

    return build


class Scripted(LightningModule):
    """One weight that grows by the learning rate in every step, and a validation metric read from a list.

    After n steps at a constant rate of 1 the weight is n, so a checkpoint tells when it was made.
    """

    def __init__(
        self, values: Sequence[float] = (), *, metric: str = "val/loss", lr: float = 1.0, scheduled: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.values = values
        self.metric = metric
        self.lr = lr
        self.scheduled = scheduled

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return -self.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log(self.metric, self.values[self.current_epoch], batch_size=1)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr)
        if not self.scheduled:
            return optimizer
        return [optimizer], [torch.optim.lr_scheduler.ConstantLR(optimizer)]


@pytest.fixture
def scripted() -> type[Scripted]:
    return Scripted


@pytest.fixture
def steps() -> Callable[[int], TensorLoader]:
    """Give a loader of so many batches, for modules that do not look at them."""

    def build(count: int) -> TensorLoader:
        return TensorLoader(Examples(torch.zeros(count, 1), torch.zeros(count, dtype=torch.int64)), batch_size=1)

    return build


class SmallNet(nn.Module):
    """Two dense layers with dropout between them, or one layer if `hidden` is 0."""

    def __init__(self, *, features: int = 4, hidden: int = 8, num_classes: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_classes = num_classes
        if hidden == 0:
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(features, num_classes))
        else:
            self.layers = nn.Sequential(
                nn.Flatten(),
                nn.Linear(features, hidden),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(hidden, num_classes),
            )
        generator = torch.Generator().manual_seed(features + hidden)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


@pytest.fixture
def small_net() -> type[SmallNet]:
    return SmallNet


@pytest.fixture
def classes() -> Callable[..., TensorLoader]:
    """Give a loader of random features with random classes."""

    def build(
        count: int = 22, *, batch_size: int = 4, features: int = 4, num_classes: int = 3, **settings: Any
    ) -> TensorLoader:
        generator = np.random.default_rng(count)
        x = torch.from_numpy(generator.normal(size=(count, features)).astype(np.float32))
        y = torch.from_numpy(generator.integers(0, num_classes, count))
        return TensorLoader(Examples(x, y), batch_size=batch_size, **settings)

    return build


class RaiseAt(Callback):
    """End the training behind an optimiser step."""

    def __init__(self, error: BaseException, step: int) -> None:
        self.error = error
        self.step = step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            raise self.error


@pytest.fixture
def raise_at() -> type[RaiseAt]:
    return RaiseAt


class StopAt(SafePoint):
    """A safe point that a signal reaches in the given optimiser step."""

    def __init__(self, path: Path, step: int) -> None:
        super().__init__(path)
        self.step = step

    def on_between_steps(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == self.step:
            self._save(trainer)
            raise Stopped(signal.SIGINT)


@pytest.fixture
def stop_at() -> type[StopAt]:
    return StopAt


class Watch(Callback):
    """Write down the rate of every step, and the weights and metrics at the end of every epoch."""

    def __init__(self) -> None:
        self.rates: Rates = []
        self.weights: list[dict[str, Tensor]] = []
        self.metrics: list[dict[str, float]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.weights.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.weights:  # an epoch's metrics are complete when the next one starts
            self._note(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._note(trainer)

    def _note(self, trainer: Trainer) -> None:
        self.metrics.append({name: float(value) for name, value in trainer.callback_metrics.items()})


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def new_watch() -> type[Watch]:
    return Watch
