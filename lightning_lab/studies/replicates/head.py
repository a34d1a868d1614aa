"""The callback LeastSquaresHead for stacked weights: each replicate's last layer by its own training part."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from lightning_lab.callbacks.last_layer import set_layer
from lightning_lab.callbacks.ridge import Moments
from lightning_lab.runs.errors import DivergedError
from lightning_lab.studies.replicates.batches import StackedBatches
from lightning_lab.studies.replicates.net import StackedMLP
from lightning_lab.studies.replicates.replicate import Replicate


@torch.no_grad()
def set_heads(
    net: StackedMLP, replicates: Sequence[Replicate], train: StackedBatches, *, ridge: float, step: int
) -> None:
    """Set the last layer of each replicate that has not diverged.

    Args:
        net: The stacked weights.
        replicates: In their order.
        train: The training part of each.
        ridge: The slot's.
        step: Optimiser steps so far, for the record of one whose layer has no solution.
    """
    moments: Moments | None = None
    for x, y in train.in_order(train.batch_size):
        inputs = net.last_inputs(x)
        targets = y if y.is_floating_point() else F.one_hot(y, replicates[0].module.net.out_features)
        part = Moments.of(inputs, targets)
        moments = part if moments is None else moments.with_more(part)
    assert moments is not None
    for index, one in enumerate(replicates):
        if one.alive:
            layer = one.module.net.layers[-1]
            try:
                set_layer(layer, Moments(moments.count, moments.mean[index], moments.scatter[index]), ridge)
            except DivergedError as error:
                one.error, one.steps = error, step
            else:
                net.take_last_layer(index, layer)
