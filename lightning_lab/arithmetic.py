"""What a run computes with: the defaults that make it fast, each chosen from what the machine and the net are.

Every choice is a rule over facts, not a timing: two runs of one configuration on one machine must compute the same.
What was chosen is printed, and stands in config.yaml; a value that the user gives is never changed.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any, Literal

import torch
from torch import nn

from lightning_lab.runs.environment import bf16_units

PrecisionName = Literal["bf16-mixed", "32-true"]
#: Multiplications of one step's forward pass below which a second thread gains nothing, and waits where others
#: compute too. An MLP 256-128-10 at batch 64 has two million; measured in benchmarks/results.
SMALL_STEP = 10_000_000


def device_kind(accelerator: Any) -> str:
    """Tell which kind of device Lightning will take.

    Args:
        accelerator: The value of ``trainer.accelerator``.

    Returns:
        ``"cpu"``, ``"cuda"``, ``"mps"``, or `accelerator` itself where it is none that is known here.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "mps"
    return "cpu" if accelerator in ("auto", "cpu") else str(accelerator)


def choose_precision(net: nn.Module, device: str) -> tuple[PrecisionName, str]:
    """Choose between bf16 autocast and fp32.

    Args:
        net: The net. Casting costs a net without convolutions more than its products gain.
        device: ``"cpu"``, ``"cuda"`` or another kind of torch.

    Returns:
        The value for ``trainer.precision``, and why.
    """
    if not _convolves(net):
        return "32-true", "no convolution in the net: the casts of bf16 would cost more than its products gain"
    if device == "cuda":
        if torch.cuda.get_device_capability() >= (8, 0):
            return "bf16-mixed", "the GPU has bf16 units (Ampere or newer)"
        return "32-true", "the GPU is older than Ampere and has no bf16 units"
    if device != "cpu":
        return "32-true", f"not tried on {device}"
    units = bf16_units()
    if units == "none":
        return "32-true", "the processor has no bf16 units"
    return "bf16-mixed", f"the processor has bf16 units ({units})"


def choose_threads(net: nn.Module, batch_size: int, processes: int = 1) -> tuple[int, str]:
    """Choose how many threads of the processor compute.

    Args:
        net: The net.
        batch_size: Examples in a step, over all processes.
        processes: How many of the run share the machine.

    Returns:
        The number, and why.
    """
    most = _threads_at_first()
    if "OMP_NUM_THREADS" in os.environ:
        return most, "OMP_NUM_THREADS"
    dense = [module for module in net.modules() if isinstance(module, nn.Linear)]
    products = batch_size // processes * sum(module.in_features * module.out_features for module in dense)
    if dense and not _convolves(net) and products < SMALL_STEP:
        return 1, f"a step of this net is small ({products / 1e6:.1f} million products forward)"
    return max(1, most // processes), "one a core" if processes == 1 else f"one a core, for {processes} processes"


def _convolves(net: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) for module in net.modules())


@cache
def _threads_at_first() -> int:
    # Before a small net of the same process lowered it.
    return torch.get_num_threads()
