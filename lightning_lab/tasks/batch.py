"""What a task reads from a batch, whether it comes from the project's loader or is a plain pair (x, y)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

#: What autocast computes in. Losses and metrics are measured in fp32 at the least.
HALF = (torch.float16, torch.bfloat16)


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


def try_shape(net: nn.Module, data: Any) -> None:
    """Let the net read one empty example of the data's shape, so that a misfit is told before anything is trained.

    Args:
        net: The net, still on the CPU.
        data: The data module; one that does not say its ``input_shape`` is not tried.

    Raises:
        ValueError: The net's own word for an input it cannot read.
    """
    shape = getattr(data, "input_shape", None)
    if shape is None:
        return
    training = net.training
    with torch.no_grad():
        net.eval()(torch.zeros(1, *shape))
    net.train(training)
