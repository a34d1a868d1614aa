"""What several test files share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, NamedTuple

from lightning.pytorch import Callback

from lightning_lab.runs.directory import RunDirectory


class Answer(NamedTuple):
    """What a command gave."""

    code: int
    out: str
    err: str


Lab = Callable[..., Answer]

#: A run of two seconds instead of ten.
QUICK = ("--trainer.max_epochs=2", "--trainer.limit_train_batches=4", "--trainer.accelerator=cpu")


class Stop(Callback):
    """Send this process a SIGTERM from a hook: the n-th call of ``$STOP``, for example ``on_train_batch_end:7``."""

    def __init__(self) -> None:
        hook, _, count = os.environ.get("STOP", "").partition(":")
        self.left = int(count or 0)
        if hook:
            setattr(self, hook, self._count)

    def _count(self, *args: Any, **kwargs: Any) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def reason_of_divergence(answer: Answer, run: RunDirectory) -> str:
    """Check that a run ended as diverged, with its code and a record that says what the user was told; return that."""
    summary = run.read_summary()
    reason = str(summary["reason"])
    assert answer.code == 4
    assert summary["status"] == "diverged"
    assert reason in answer.err
    assert reason.startswith("Training diverged: the loss of step ")
    assert "(epoch 1) is not finite; the first tensor that is not finite is the " in reason
    return reason
