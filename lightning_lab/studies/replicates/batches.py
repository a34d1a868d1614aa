"""The batches of n replicates: each its own split, order and augmentation, gathered and prepared together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lightning_lab.data.loader import TensorLoader
from lightning_lab.runs.errors import InputError


class StackedBatches:
    """Iterate over the batches that n loaders would give, stacked.

    Args:
        loaders: Alike but for their examples and their seed.
        dtype: Of the weights; floats are turned into it, as Lightning does.

    Shape:
        - Batches: x (n, B, values), y (n, B) int64 or (n, B, 1).

    Raises:
        InputError: If the loaders do not have the same number of examples.
    """

    def __init__(self, loaders: Sequence[TensorLoader], dtype: torch.dtype) -> None:
        self.loaders = list(loaders)
        self.dtype = dtype
        first = self.loaders[0]
        self.count = len(first.examples)
        self.batch_size = first.batch_size
        if any(len(loader.examples) != self.count for loader in self.loaders):
            raise InputError("Replicates need the same number of examples in each split. Train them one by one.")
        x = torch.cat([_rows(loader.examples.x) for loader in self.loaders])
        self._x = x  # (n N, ...), images (n N, H, W, C)
        self._y = torch.cat([loader.examples.y for loader in self.loaders])
        self._start = torch.arange(len(self.loaders)).unsqueeze(1) * self.count  # (n, 1), each one's first row

    def epoch(self, epoch: int, most: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Give the batches of an epoch, `most` at the most."""
        for loader in self.loaders:
            loader.set_epoch(epoch)
        order = torch.stack([loader._order() for loader in self.loaders]) + self._start  # (n, N)
        augment = self.loaders[0].augment
        draws = None
        if augment is not None:
            draws = torch.cat([augment.draw(self.count, loader.seed, epoch) for loader in self.loaders])
        for first in range(0, min(self.count, most * self.batch_size), self.batch_size):
            yield self._gather(order[:, first : first + self.batch_size], draws, epoch)

    def in_order(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Give all examples in their order, `size` of each replicate at a time."""
        order = torch.arange(self.count) + self._start
        for first in range(0, self.count, size):
            yield self._gather(order[:, first : first + size], None, 0)

    def _gather(self, index: Tensor, draws: Tensor | None, epoch: int) -> tuple[Tensor, Tensor]:
        shape, flat = index.shape, index.reshape(-1)
        x = self._x.index_select(0, flat)
        if x.dim() == 4:
            x = x.permute(0, 3, 1, 2)
        loader = self.loaders[0]
        if loader.augment is not None and draws is not None:
            x = loader.augment(x, draws.index_select(0, flat), epoch)
        if loader.prepare is not None:
            x = loader.prepare(x)  # each example by itself, so all replicates' at once
        y = self._y.index_select(0, flat)
        if y.is_floating_point():
            y = y.to(self.dtype)
        return x.to(self.dtype).reshape(*shape, -1), y.reshape(*shape, *y.shape[1:])


def _rows(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous() if x.dim() == 4 else x
