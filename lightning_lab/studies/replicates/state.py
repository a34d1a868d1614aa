"""What a replicate can be put back to: weights and optimiser state of n replicates, each at an epoch of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_lab.studies.replicates.net import turned


@dataclass(frozen=True)
class Moment:
    """What all replicates share at the end of an epoch.

    Args:
        epochs: How many were trained.
        steps: How many optimiser steps.
        batches: Steps of the last epoch.
        whole: Whether the last epoch was trained to its end.
        lr: The rate of the last step.
        rates: The first two rates that were used.
        groups: The optimiser's settings for the next step, without its parameters; the rate is among them.
        schedule: The scheduler's state, if there is one.
    """

    epochs: int = 0
    steps: int = 0
    batches: int = 0
    whole: bool = False
    lr: float = 0.0
    rates: tuple[float, ...] = ()
    groups: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)


class Kept:
    """A copy of stacked weights and optimiser state, of which each replicate's part is renewed by itself.

    Args:
        parameters: The stacked weights, (n, ...) each.
        optimizer: Theirs.
    """

    def __init__(self, parameters: Sequence[Tensor], optimizer: Optimizer) -> None:
        self._parameters = list(parameters)
        self._optimizer = optimizer
        self._weights = [parameter.detach().clone() for parameter in parameters]
        self._states: list[dict[str, Tensor]] = [{} for _ in parameters]  # the stacked entries
        self._shared: list[dict[int, dict[str, Any]]] = [{} for _ in parameters]  # the others: by step of the optimiser
        self.moments: list[Moment | None] = [None] * len(self._weights[0])

    @torch.no_grad()
    def take(self, which: Sequence[int], moment: Moment) -> None:
        """Renew the parts of the replicates `which`."""
        if not which:
            return
        everyone = len(which) == len(self.moments)
        rows = torch.tensor(which)
        for number, parameter in enumerate(self._parameters):
            _renew(self._weights[number], parameter.detach(), None if everyone else rows)
            shared = self._shared[number]
            shared[moment.steps] = {}
            for key, value in self._optimizer.state[parameter].items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    kept = self._states[number].setdefault(key, torch.zeros_like(value))
                    _renew(kept, value, None if everyone else rows)
                else:  # a count of steps
                    shared[moment.steps][key] = value.clone() if isinstance(value, Tensor) else value
        for index in which:
            self.moments[index] = moment
        used = {one.steps for one in self.moments if one is not None}
        for number in range(len(self._shared)):
            self._shared[number] = {steps: one for steps, one in self._shared[number].items() if steps in used}

    @torch.no_grad()
    def put(self, index: int, parameters: Sequence[Tensor], optimizer: Optimizer) -> Moment:
        """Give one replicate's part to weights and optimiser of its own.

        Returns:
            The moment that it is of.
        """
        moment = self.moments[index]
        assert moment is not None
        for number, parameter in enumerate(parameters):
            parameter.copy_(turned(self._weights[number][index]))
            own = {
                key: turned(value[index]).clone(memory_format=torch.contiguous_format)
                for key, value in self._states[number].items()
            }
            shared = self._shared[number][moment.steps]
            order = self._optimizer.state[self._parameters[number]]
            copied = {key: one.clone() if isinstance(one, Tensor) else one for key, one in shared.items()}
            optimizer.state[parameter] = {key: own[key] if key in own else copied[key] for key in order}
        optimizer.param_groups[0].update(moment.groups)
        return moment


def _renew(kept: Tensor, now: Tensor, rows: Tensor | None) -> None:
    if rows is None:
        kept.copy_(now)
    else:
        kept.index_copy_(0, rows, now.index_select(0, rows))
