"""The optimiser of a task that is given none."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from torch.optim import SGD, Optimizer


def default_optimizer(parameters: Iterable[Tensor]) -> Optimizer:
    """Build SGD with rate 0.01 and momentum 0.9.

    A function and not a class with arguments: the command line would lend those arguments to whatever other optimiser
    a configuration names, and a Muon without a momentum of its own would get SGD's.
    """
    return SGD(parameters, lr=0.01, momentum=0.9)
