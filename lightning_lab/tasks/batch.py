"""What a task reads from a batch, whether it comes from the project's loader or is a plain pair (x, y)."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class Parts(NamedTuple):
    """A batch taken apart.

    Args:
        x: Inputs. Shape (B, ...).
        y: Targets. Shape (B,) or (B, 1).
        num_real: How many of the B examples count; see the loader's ``Batch``.
        weight: Factor on the mean loss, so that the mean over processes is the mean over the global batch.
    """

    x: Tensor
    y: Tensor
    num_real: int
    weight: float


def take_apart(batch: Any) -> Parts:
    """Read the parts of a batch; in a plain pair (x, y) every example counts."""
    x, y = batch[0], batch[1]
    return Parts(x, y, getattr(batch, "num_real", len(y)), getattr(batch, "weight", 1.0))
