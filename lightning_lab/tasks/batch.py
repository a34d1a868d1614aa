"""What a task reads from a batch, whether it comes from the project's loader or is a plain pair (x, y)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_lab.runs.errors import InputError

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


def try_shape(net: nn.Module, data: Any) -> Tensor | None:
    """Let the net read one empty example of the data's shape, so that a misfit is told before anything is trained.

    Args:
        net: The net, still on the CPU.
        data: The data module; one that does not say its ``input_shape`` is not tried.

    Returns:
        The net's output. Shape (1, ...).

    Raises:
        ValueError: The net's own word for an input it cannot read.
    """
    shape = getattr(data, "input_shape", None)
    if shape is None:
        return None
    training = net.training
    with torch.no_grad():
        output: Tensor = net.eval()(torch.zeros(1, *shape))
    net.train(training)
    return output


def check_smallest_batch(net: nn.Module, trainer: Trainer) -> None:
    """Refuse to train batch norm behind a dense layer on one example, whose variance does not exist.

    Args:
        net: The net.
        trainer: With its loader; one that is not the project's is not looked at.

    Raises:
        InputError: If a batch of the epoch, or a process's share of it, has one example.
    """
    loader: Any = trainer.train_dataloader
    everything = getattr(loader, "examples", None)
    if everything is None or not any(isinstance(module, nn.BatchNorm1d) for module in net.modules()):
        return
    size, count, processes = int(loader.batch_size), len(everything), int(loader.world_size)

    def smallest(batch_size: int) -> int:
        rest = count % batch_size if trainer.num_training_batches >= -(-count // batch_size) else 0
        return min(batch_size, rest or count) // processes

    if smallest(size) > 1:
        return
    others = range(size + processes, count + size + processes, processes)
    other = next((one for one in others if smallest(one) > 1), None)
    remedy = "It needs more examples" if other is None else f"Try --data.batch_size {other}"
    raise InputError(
        f"Batch norm cannot train on a single example, and {count} training examples in batches of {size}"
        f"{f' over {processes} processes' if processes > 1 else ''} leave one. {remedy}."
    )
