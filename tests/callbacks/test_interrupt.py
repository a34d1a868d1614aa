"""Ctrl-C as a real signal, in the middle of a step, while validating, and twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from lightning_lab.callbacks.checkpoint import Checkpoint
from lightning_lab.callbacks.interrupt import Interrupt
from lightning_lab.callbacks.noise import NoiseStream
from lightning_lab.data.loader import TensorLoader
from lightning_lab.tasks import Classification

Build = Callable[..., Trainer]
Steps = Callable[[int], TensorLoader]
Loaders = Callable[..., TensorLoader]
HOOKS = (
    "on_train_batch_start",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_before_zero_grad",
    "on_train_batch_end",
)


class Signal(Callback):
    """Send this process a SIGINT from the given call of a hook on."""

    def __init__(self, hook: str, count: int = 1) -> None:
        self.left = count

        def send(*args: Any, **kwargs: Any) -> None:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGINT)

        setattr(self, hook, send)


def handler(number: int, frame: FrameType | None) -> None:
    raise AssertionError("the signal came when nothing was trained")


@pytest.fixture
def before() -> Any:
    signal.signal(signal.SIGINT, handler)
    return handler


@pytest.mark.parametrize("hook", HOOKS)
def test_the_run_ends_after_the_batch_and_continues_to_the_same_weights(
    trainer: Build,
    classes: Loaders,
    small_net: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    hook: str,
) -> None:
    last = tmp_path / "checkpoints" / "last.ckpt"

    def fit(*callbacks: Callback, **settings: Any) -> dict[str, Tensor]:
        sgd: Any = lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9)  # noqa: E731
        module = Classification(small_net(dropout=0.5), optimizer=sgd)
        saves = Checkpoint().callbacks(last.parent)
        built = trainer(NoiseStream(3), *callbacks, Interrupt(), *saves, max_epochs=3)
        built.fit(module, classes(shuffle=True, seed=5), classes(9), **settings)
        return module.state_dict()

    whole = fit()
    with pytest.raises(SystemExit):
        fit(Signal(hook, 8))
    assert capsys.readouterr().err.count("Stopping after this batch; again to leave at once.") == 1
    assert torch.load(last, weights_only=True)["global_step"] == 8
    rest = fit(ckpt_path=last, weights_only=True)
    assert [name for name in whole if not torch.equal(whole[name], rest[name])] == []


@pytest.mark.parametrize(("hook", "ends_at"), [("on_validation_start", 1), ("on_validation_batch_start", 2)])
def test_while_validating_the_run_ends_after_the_batch_too(
    trainer: Build, scripted: Any, steps: Steps, tmp_path: Path, hook: str, ends_at: int
) -> None:
    module = scripted([1.0, 1.0, 1.0])
    validated: list[int] = []
    look = Callback()
    look.on_validation_batch_end = lambda *args: validated.append(args[-1])  # type: ignore[method-assign]
    saves = Checkpoint().callbacks(tmp_path / "checkpoints")
    with pytest.raises(SystemExit):
        trainer(Signal(hook, ends_at), look, Interrupt(), *saves, max_epochs=3).fit(module, steps(5), steps(3))
    assert len(validated) == ends_at
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 5


class Look(Callback):
    """Write down who would get a SIGINT."""

    def __init__(self, *hooks: str) -> None:
        self.seen: list[tuple[str, bool]] = []
        for hook in hooks:
            setattr(self, hook, partial(self._look, hook))

    def _look(self, hook: str, *args: Any) -> None:
        self.seen.append((hook, signal.getsignal(signal.SIGINT) is handler))


def test_the_handler_of_before_is_back_after_the_training(
    trainer: Build, scripted: Any, steps: Steps, before: Any
) -> None:
    look = Look("on_train_batch_start", "on_fit_end")  # Lightning puts handlers back too, but later
    trainer(Interrupt(), look).fit(scripted(), steps(1))
    assert look.seen == [("on_train_batch_start", False), ("on_fit_end", True)]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("error", "raised"), [(OSError("disk"), OSError), (KeyboardInterrupt(), SystemExit)])
def test_the_handler_of_before_is_back_after_a_failure(
    trainer: Build,
    scripted: Any,
    steps: Steps,
    raise_at: Any,
    before: Any,
    error: BaseException,
    raised: type[BaseException],
) -> None:
    look = Look("on_train_batch_start", "on_exception")
    with pytest.raises(raised):
        trainer(Interrupt(), look, raise_at(error, 1)).fit(scripted(), steps(3))
    assert look.seen == [("on_train_batch_start", False), ("on_exception", True)]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_callback_can_be_used_again_after_an_interruption(trainer: Build, scripted: Any, steps: Steps) -> None:
    interrupt = Interrupt()
    with pytest.raises(SystemExit):
        trainer(Signal("on_before_optimizer_step", 2), interrupt).fit(scripted(), steps(4))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    again = trainer(interrupt)
    again.fit(scripted(), steps(4))
    assert again.global_step == 4


TWICE = """
import os, signal, sys
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning_lab.callbacks.interrupt import Interrupt

class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
    def training_step(self, batch, batch_idx):
        return self.weight.sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

class Twice(Callback):
    def on_before_optimizer_step(self, *args):
        for _ in range(int(sys.argv[1])):
            os.kill(os.getpid(), signal.SIGINT)
            print("signal", flush=True)
    def on_train_batch_end(self, *args):
        print("batch", flush=True)

trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                  enable_model_summary=False, max_epochs=1, callbacks=[Twice(), Interrupt()])
try:
    trainer.fit(Module(), torch.zeros(4, 1))
finally:
    print("end", flush=True)
"""


@pytest.mark.parametrize(
    ("signals", "printed", "code"),
    [(0, ["batch"] * 4 + ["end"], 0), (1, ["signal", "batch", "end"], 1), (2, ["signal"], 130)],
)
def test_a_second_signal_leaves_at_once(tmp_path: Path, signals: int, printed: list[str], code: int) -> None:
    command = [sys.executable, "-c", TWICE, str(signals)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    shown = [line for line in ended.stdout.splitlines() if line in ("signal", "batch", "end")]
    assert (shown, ended.returncode) == (printed, code), ended.stderr
