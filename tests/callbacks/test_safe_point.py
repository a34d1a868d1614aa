"""Signals as real ones, in the middle of a step, while validating, and twice; and saves by step and by time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lightning_lab.callbacks.checkpoint import Checkpoint
from lightning_lab.callbacks.safe_point import SafePoint
from lightning_lab.data.loader import TensorLoader
from lightning_lab.runs.errors import Stopped

Build = Callable[..., Trainer]
Steps = Callable[[int], TensorLoader]
HOOKS = (
    "on_train_batch_start",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_before_zero_grad",
    "on_train_batch_end",
)


class Signal(Callback):
    """Send this process a signal from the given call of a hook on."""

    def __init__(self, hook: str, count: int = 1, number: signal.Signals = signal.SIGINT) -> None:
        self.left = count

        def send(*args: Any, **kwargs: Any) -> None:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), number)

        setattr(self, hook, send)


@pytest.fixture
def run(trainer: Build, tmp_path: Path) -> Callable[..., Trainer]:
    """Build a trainer with a safe point that saves to last.ckpt."""

    def build(*callbacks: Callback, epochs: int = 3, **arguments: Any) -> Trainer:
        point = SafePoint(tmp_path / "checkpoints" / "last.ckpt", **arguments)
        return trainer(*callbacks, point, *Checkpoint().callbacks(tmp_path / "checkpoints"), max_epochs=epochs)

    return build


def steps_in(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


# --- stopping ---


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_signal_in_a_step_stops_behind_it(
    run: Any,
    scripted: Any,
    steps: Steps,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    hook: str,
    number: signal.Signals,
) -> None:
    with pytest.raises(Stopped, match=f"^Stopped by {number.name}.$"):
        run(Signal(hook, 8, number)).fit(scripted([1.0, 1.0, 1.0]), steps(5), steps(1))
    assert steps_in(tmp_path / "checkpoints" / "last.ckpt") == 8
    told = capfd.readouterr().err.count("Stopping after this step; again to leave at once.")
    assert told == (1 if number == signal.SIGINT else 0)


@pytest.mark.parametrize(("hook", "ends_at"), [("on_validation_start", 1), ("on_validation_batch_start", 2)])
def test_a_signal_in_a_validation_stops_behind_its_batch(
    run: Any, scripted: Any, steps: Steps, tmp_path: Path, hook: str, ends_at: int
) -> None:
    validated: list[int] = []
    look = Callback()
    look.on_validation_batch_end = lambda *args: validated.append(args[-1])  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        run(Signal(hook, ends_at), look).fit(scripted([1.0, 1.0, 1.0]), steps(5), steps(3))
    assert len(validated) == ends_at
    assert steps_in(tmp_path / "checkpoints" / "last.ckpt") == 5


def test_a_validation_that_was_stopped_is_done_again_and_its_epoch_ends_as_ever(
    run: Any, scripted: Any, steps: Steps, new_watch: Any, tmp_path: Path
) -> None:
    values = [3.0, 1.0, 2.0]
    whole, first, rest = new_watch(), new_watch(), new_watch()
    run(whole).fit(scripted(values), steps(5), steps(3))
    with pytest.raises(Stopped):
        run(first, Signal("on_validation_batch_start", 5)).fit(scripted(values), steps(5), steps(3))
    last = tmp_path / "checkpoints" / "last.ckpt"
    run(rest).fit(scripted(values), steps(5), steps(3), ckpt_path=last, weights_only=True)
    assert len(first.rates) + len(rest.rates) == len(whole.rates) == 15
    assert first.weights + rest.weights == whole.weights
    assert rest.metrics == whole.metrics[1:]


def test_a_stop_at_the_last_step_that_nothing_follows_is_told_when_asked(run: Any, scripted: Any, steps: Steps) -> None:
    built = run(Signal("on_train_epoch_end", 1), epochs=1)
    built.fit(scripted([1.0]), steps(2), steps(1))
    point = next(c for c in built.callbacks if isinstance(c, SafePoint))
    with pytest.raises(Stopped, match=r"^Stopped by SIGINT\.$"):
        point.stop_if_asked()


def test_nothing_is_saved_where_nothing_is_to_be_saved(
    trainer: Build, scripted: Any, steps: Steps, tmp_path: Path
) -> None:
    built = trainer(Signal("on_train_batch_end", 2), SafePoint(None, every_n_steps=1))
    with pytest.raises(Stopped):
        built.fit(scripted(), steps(4))
    assert list(tmp_path.rglob("*.ckpt")) == []


# --- saving and going on ---


def test_sigusr1_saves_and_goes_on(run: Any, scripted: Any, steps: Steps, tmp_path: Path) -> None:
    saved: list[int] = []
    look = Callback()
    look.on_save_checkpoint = lambda trainer, *args: saved.append(trainer.global_step)  # type: ignore[method-assign]
    built = run(look, Signal("on_before_backward", 3, signal.SIGUSR1), epochs=1)
    built.fit(scripted([1.0]), steps(5), steps(1))
    assert saved == [3, 5, 5]  # best and last at the end
    assert built.global_step == 5


def test_sigusr1_in_a_validation_saves_when_it_is_over(run: Any, scripted: Any, steps: Steps, tmp_path: Path) -> None:
    saved: list[tuple[int, bool]] = []
    look = Callback()
    look.on_save_checkpoint = lambda trainer, module, checkpoint: saved.append(  # type: ignore[method-assign]
        (trainer.global_step, checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["validation_due"])
    )
    built = run(look, Signal("on_validation_batch_start", 1, signal.SIGUSR1), epochs=1)
    built.fit(scripted([1.0]), steps(5), steps(3))
    assert saved == [(5, False)] * 3


@pytest.mark.parametrize(("every", "saved"), [(2, [2, 4, 6, 8]), (3, [3, 6]), (9, [])])
def test_every_n_steps(run: Any, scripted: Any, steps: Steps, tmp_path: Path, every: int, saved: list[int]) -> None:
    seen: list[int] = []
    path = tmp_path / "checkpoints" / "last.ckpt"
    built = run(every_n_steps=every, epochs=1, wait=lambda: seen.append(steps_in(path)))
    built.fit(scripted([1.0]), steps(8), steps(1))
    assert seen == saved
    assert steps_in(path) == 8


def test_every_n_minutes(run: Any, scripted: Any, steps: Steps, tmp_path: Path) -> None:
    seen: list[int] = []
    path = tmp_path / "checkpoints" / "last.ckpt"
    slow = Callback()
    slow.on_before_backward = lambda *args: time.sleep(0.02)  # type: ignore[method-assign]
    run(slow, every_n_minutes=0.1 / 60, epochs=1, wait=lambda: seen.append(steps_in(path))).fit(
        scripted([1.0]), steps(20), steps(1)
    )
    assert 2 <= len(seen) <= 4  # 0.4 s in intervals of at least 0.1
    assert seen == sorted(set(seen))


def test_a_save_waits_for_the_accumulated_gradient(trainer: Build, scripted: Any, steps: Steps, tmp_path: Path) -> None:
    # Half of an accumulated gradient is in no checkpoint.
    batches: list[int] = []
    look = Callback()
    look.on_save_checkpoint = lambda trainer, *args: batches.append(  # type: ignore[method-assign]
        trainer.fit_loop.epoch_loop.batch_progress.current.completed
    )
    point = SafePoint(tmp_path / "last.ckpt", every_n_minutes=1e-9)
    built = trainer(look, point, accumulate_grad_batches=3)
    built.fit(scripted(), steps(8))
    assert batches == [3, 6, 8]


# --- handlers ---


def test_the_handlers_of_before_are_back_when_they_are_given_back(trainer: Build, scripted: Any, steps: Steps) -> None:
    def handler(number: int, frame: FrameType | None) -> None:
        raise AssertionError("the signal came when nothing was trained")

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    for number in numbers:
        signal.signal(number, handler)
    point = SafePoint(None)
    built = trainer(point)
    built.fit(scripted(), steps(1))
    during = [signal.getsignal(number) for number in numbers]
    point.give_back()
    assert handler not in during
    assert [signal.getsignal(number) for number in numbers] == [handler] * 3


TWICE = """
import os, signal, sys, time
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning_lab.callbacks.safe_point import SafePoint
from lightning_lab.loops.lean import use_lean_loop

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
            time.sleep(float(sys.argv[2]))
    def on_train_batch_end(self, *args):
        print("batch", flush=True)

trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                  enable_model_summary=False, max_epochs=1, callbacks=[Twice(), SafePoint(None)])
use_lean_loop(trainer)
try:
    trainer.fit(Module(), torch.zeros(4, 1))
finally:
    print("end", flush=True)
"""


@pytest.mark.parametrize(
    ("signals", "pause_s", "printed", "code"),
    [
        (2, 0, ["signal", "signal", "batch", "end"], 1),  # a launcher and the terminal: one wish
        (2, 0.6, ["signal"], 130),
    ],
)
def test_a_second_signal_leaves_at_once(
    tmp_path: Path, signals: int, pause_s: float, printed: list[str], code: int
) -> None:
    command = [sys.executable, "-c", TWICE, str(signals), str(pause_s)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    shown = [line for line in ended.stdout.splitlines() if line in ("signal", "batch", "end")]
    assert (shown, ended.returncode) == (printed, code), ended.stderr
