"""What all processes of a run agree on, where each of them knows only its own part."""

from __future__ import annotations

import re
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

T = TypeVar("T")

#: How gloo and NCCL word that another process is gone or does not answer: gloo's errors have no type of their own.
_LOST = re.compile(
    "gloo|connection (was )?(closed|reset|refused)|broken pipe|timed out waiting|socket timeout|remote process exited"
    "|failed to recv|NCCL (error|communicator)|watchdog",
    re.IGNORECASE,
)
_groups: dict[int, dist.ProcessGroup] = {}


def largest(value: int) -> int:
    """Give the largest of the values that the processes have; with one process, its own.

    Every process has to call it, at the same point of the training. It goes over the network of the processors and
    not over that of the GPUs: no GPU waits for it, and a process that died is noticed at once.

    Args:
        value: This process's.

    Returns:
        The same number in every process.
    """
    if not _are_several():
        return value
    everyone = torch.tensor([value])
    dist.all_reduce(everyone, dist.ReduceOp.MAX, group=_processor_group())
    return int(everyone)


def everyones(value: T) -> list[T]:
    """Give the values of all processes, by rank; with one process, its own alone.

    Like :func:`largest` it has to be called by all.

    Args:
        value: This process's: a number, or a plain row of them.
    """
    if not _are_several():
        return [value]
    values: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value, group=_processor_group())
    return [one for one in values if one is not None]


def take_buffers_of_first(module: nn.Module) -> None:
    """Give all processes the buffers of the first one, the running statistics of batch norm for example.

    They are measured by each process on its own part of a batch; what is evaluated and saved is one net. DDP does it
    in every step, evaluations included, unless it is told not to with ``broadcast_buffers=False``.

    Args:
        module: Its parameters are left alone: they are equal already.
    """
    if _are_several():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def tells_of_a_lost_process(error: BaseException) -> bool:
    """Say whether an error is that of a collective whose other processes are gone or do not answer."""
    if not _are_several():
        return False
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and bool(_LOST.search(str(error))))


def _are_several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _processor_group() -> dist.ProcessGroup | None:
    world = dist.group.WORLD
    if world is None or dist.get_backend() == "gloo":
        return world
    if id(world) not in _groups:
        _groups.clear()  # those of a fit that is over
        group = dist.new_group(backend="gloo")
        assert isinstance(group, dist.ProcessGroup)  # every process is in it
        _groups[id(world)] = group
    return _groups[id(world)]
