"""What several test files share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Answer(NamedTuple):
    """What a command gave."""

    code: int
    out: str
    err: str


Lab = Callable[..., Answer]

#: A run of two seconds instead of ten.
QUICK = ("--trainer.max_epochs=2", "--trainer.limit_train_batches=4", "--trainer.accelerator=cpu")
