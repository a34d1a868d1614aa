"""How a data module's examples become batches: how many at once, in which order, for which process and device."""

from __future__ import annotations

from typing import Protocol, TypedDict

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_lab.runs.errors import InputError

#: What is evaluated at once where training batches are smaller: examples, and numbers in them (images of 224 x 224 are
#: large enough as they are).
EVALUATED_AT_ONCE, NUMBERS_AT_ONCE = 256, 2**20


class Module(Protocol):
    """What is read of a data module."""

    batch_size: int
    seed: int
    trainer: Trainer | None


class Placement(TypedDict):
    """Where a loader's batches go: which process of how many, on which device."""

    rank: int
    world_size: int
    device: torch.device


def placement(module: Module) -> Placement:
    """Read rank, number of processes and device from a data module's trainer; one process on the CPU without one."""
    if module.trainer is None:
        return {"rank": 0, "world_size": 1, "device": torch.device("cpu")}
    strategy = module.trainer.strategy
    return {
        "rank": module.trainer.global_rank,
        "world_size": module.trainer.world_size,
        "device": strategy.root_device,
    }


class Batching(Placement):
    """What the loaders of all data modules take alike."""

    batch_size: int
    shuffle: bool
    seed: int


def batching(module: Module, x: Tensor, *, train: bool) -> Batching:
    """Say how a data module's examples become batches.

    Args:
        module: The data module.
        x: All examples of the part. Shape (N, ...).
        train: Whether it is trained on them: shuffled, in batches of the configured size.
    """
    size = module.batch_size if train else evaluation_batch_size(module.batch_size, x)
    return {"batch_size": size, "shuffle": train, "seed": module.seed, **placement(module)}


def check_batch_size(batch_size: int) -> None:
    """Refuse a batch size that cannot be.

    Raises:
        InputError: If it is below 1.
    """
    if batch_size < 1:
        raise InputError(f"`batch_size` must be at least 1, got {batch_size}.")


def evaluation_batch_size(batch_size: int, x: Tensor) -> int:
    """Choose how many examples are evaluated at once: small training batches would spend the time on validation.

    Nothing but the last bit of a sum depends on it. No gradient is kept, so a larger batch fits where it trained.

    Args:
        batch_size: Examples in a training batch.
        x: All examples. Shape (N, ...).

    Returns:
        A multiple of `batch_size`: itself, if that is 256 examples or 2^20 numbers already.

    Example:
        >>> evaluation_batch_size(4, torch.zeros(10000, 3, 32, 32))
        256
    """
    at_once = min(EVALUATED_AT_ONCE, NUMBERS_AT_ONCE // max(1, x[0:1].numel()))
    return batch_size * max(1, at_once // batch_size)
