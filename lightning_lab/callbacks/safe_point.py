"""Between two steps: save when it is due or asked for, stop when a signal says so.

What is saved there is a state that a run can continue from to the last bit. Python's own KeyboardInterrupt comes
anywhere, in the middle of a save too, and Lightning's SIGTERM leaves without saving.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from lightning_lab.runs.agreement import largest
from lightning_lab.runs.errors import Stopped

#: What a process can ask for, the more urgent the larger: the processes of a run follow the most urgent one.
NOTHING, SAVE, INTERRUPT, TERMINATE = range(4)
_STOPS = {INTERRUPT: signal.SIGINT, TERMINATE: signal.SIGTERM}
#: A launcher passes Ctrl-C on to processes that the terminal has told already; that is no second wish.
_SECOND_AFTER_S = 0.5


class SafePoint(Callback):
    """Hold signals back until the step is done. SIGUSR1, which SLURM can send ahead of the end, saves and goes on.

    A second SIGINT leaves at once. Every file of a run is written whole, so that harms none of them.

    Args:
        path: Where the last state is saved; None saves nothing.
        every_n_steps: Save after so many optimiser steps; None does not.
        every_n_minutes: Save after so many minutes; None does not.
        wait: Returns when what was saved is on disk.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
        wait: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path
        self.every_n_steps = every_n_steps
        self.every_s = None if every_n_minutes is None else 60 * every_n_minutes
        self.wait = wait
        self._asked = NOTHING
        self._interrupted_at = 0.0
        self._saved_at = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over; only a process's main thread can."""
        self._saved_at = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            self._asked, self._interrupted_at = NOTHING, 0.0
            for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
                if hasattr(signal, name):  # Windows has no SIGUSR1
                    number = signal.Signals[name]
                    self._before[number] = signal.signal(number, self._note)

    def on_between_steps(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, stop, or both."""
        ask = self._agree(SAVE if self._is_due(trainer) else NOTHING)
        if ask != NOTHING:
            self._save(trainer)
            self._stop(ask)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Do not make a signal wait for a long validation: it is done again, from its beginning."""
        if not trainer.fit_loop.epoch_loop._between_steps:
            return  # the verb validate
        ask = self._agree(NOTHING)
        if ask in _STOPS:
            self._save(trainer)
            self._stop(ask)
        elif ask == SAVE:
            self._asked = max(self._asked, SAVE)  # when it is over

    def give_back(self) -> None:
        """Give the signals back, when everything is on disk: until then a second SIGTERM must not tear it."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def stop_if_asked(self) -> None:
        """Stop after the training, for a signal that came too late for it.

        Raises:
            Stopped: If a signal said so.
        """
        self._stop(self._asked)

    def _is_due(self, trainer: Trainer) -> bool:
        if self.path is None:
            return False
        by_step = self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0
        return by_step or (self.every_s is not None and time.monotonic() - self._saved_at >= self.every_s)

    def _agree(self, own: int) -> int:
        ask = largest(max(own, self._asked))
        if ask == SAVE:
            self._asked = NOTHING
        return ask

    def _save(self, trainer: Trainer) -> None:
        if self.path is not None:
            trainer.save_checkpoint(self.path, weights_only=False)
            self.wait()  # the next interval may be lost, but not this one
            self._saved_at = time.monotonic()

    def _stop(self, ask: int) -> None:
        if ask in _STOPS:
            raise Stopped(_STOPS[ask])

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGINT:
            if self._interrupted_at and now - self._interrupted_at > _SECOND_AFTER_S:
                os._exit(128 + number)
            if not self._interrupted_at:
                self._interrupted_at = now
                with suppress(OSError):  # who reads it may have got the same signal; and this is the middle of a step
                    os.write(2, b"\nStopping after this step; again to leave at once.\n")
        ask = {signal.SIGINT: INTERRUPT, signal.SIGTERM: TERMINATE}.get(signal.Signals(number), SAVE)
        self._asked = max(self._asked, ask)


def leave_signals(trainer: Trainer) -> None:
    """Keep Lightning from taking signals over: it leaves at a SIGTERM without saving, and can hang with two processes.

    Args:
        trainer: A new trainer.
    """
    trainer._signal_connector = _NoSignals(trainer)


class _NoSignals(_SignalConnector):
    def register_signal_handlers(self) -> None:
        pass
