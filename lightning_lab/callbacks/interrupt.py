"""Ctrl-C between two batches: what is saved then is a state that a run can continue from to the last bit."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

#: The shell's code for a process that SIGINT ended.
SIGINT_CODE = 130


class Interrupt(Callback):
    """Hold a first SIGINT back until the batch is done; leave at once at a second one.

    Python's own KeyboardInterrupt comes anywhere, in the middle of a save too. Every file of a run is written whole,
    so leaving at once harms none of them.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signal over; only a process's main thread can."""
        if threading.current_thread() is threading.main_thread():
            self._asked = False
            self._before = signal.signal(signal.SIGINT, self._note)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop here if asked to."""
        self._stop_if_asked()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop here if asked to."""
        self._stop_if_asked()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signal back."""
        self._give_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signal back; Lightning itself ignores further ones after a KeyboardInterrupt."""
        self._give_back()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            os._exit(SIGINT_CODE)
        self._asked = True
        print("\nStopping after this batch; again to leave at once.", file=sys.stderr, flush=True)

    def _stop_if_asked(self) -> None:
        if self._asked:
            raise KeyboardInterrupt

    def _give_back(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
