"""The loader: the whole data set as tensors on the training device, gathered a batch at a time.

Departures from torch's DataLoader: no worker processes and no per-example Python. The order of an epoch is a pure
function of (seed, epoch), so a resumed run reads what the uninterrupted one would have read. Every global batch is
divided among the ranks without padding: each example is seen exactly once, on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from lightning_lab.data.augment import Augment
from lightning_lab.data.batching import check_batch_size
from lightning_lab.runs.errors import InputError
from lightning_lab.runs.seeds import stream_seed


class Batch(NamedTuple):
    """One rank's part of a global batch.

    Args:
        x: Inputs, ready for the net. Shape (B, ...).
        y: Targets. Shape (B,) or (B, 1).
        indices: Where each example stands in its data set. Shape (B,).
        num_real: How many of the B examples count. It is B, but 0 on a rank for which the last, short batch had no
            example left; such a rank gets one example all the same, because all ranks must take part in the step.
        weight: Factor on this rank's mean loss, so that the mean over ranks is the mean over the global batch. 1.0
            wherever the division is even, and always in one process.
    """

    x: Tensor
    y: Tensor
    indices: Tensor
    num_real: int
    weight: float


@dataclass(frozen=True)
class Examples:
    """A data set in memory.

    Args:
        x: Inputs: uint8 images (N, C, H, W), or float features (N, F).
        y: Targets: int64 classes (N,), or float values (N, 1).
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def subset(self, index: Tensor) -> Examples:
        """Pick the examples at `index`, in that order."""
        return Examples(_pick(self.x, index), self.y[index])


class TensorLoader:
    """Iterate over `examples` in batches.

    Args:
        examples: The data set. Moved to `device` once; images that are not channels-last in memory are made so.
        batch_size: Examples in a global batch, over all ranks. At least 1 and divisible by `world_size`.
        shuffle: Draw a new order for each epoch; otherwise keep the data set's order.
        augment: Random changes to training images, or None.
        prepare: Applied to each batch last: (B, C, H, W) uint8 to what the net reads. None leaves it as it is.
        image_sizes: Height and width of the images in each epoch, the last number for all that follow: smaller images
            in the first epochs cost less. Empty leaves them as they are.
        seed: The run's seed; feeds the streams `order` and `augment`.
        rank: Which process this is, 0 <= rank < `world_size`.
        world_size: How many processes share each batch.
        device: Where the batches are made.

    Raises:
        InputError: If the data set is empty, or the batch size is below 1 or not divisible by `world_size`.

    Example:
        >>> examples = Examples(torch.arange(5.0).unsqueeze(1), torch.arange(5))
        >>> [batch.y.tolist() for batch in TensorLoader(examples, batch_size=2)]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        examples: Examples,
        *,
        batch_size: int,
        shuffle: bool = False,
        augment: Augment | None = None,
        prepare: Callable[[Tensor], Tensor] | None = None,
        image_sizes: Sequence[int] = (),
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(examples) == 0:
            raise InputError("The data set is empty: there is no example to load.")
        check_batch_size(batch_size)
        if batch_size % world_size:
            raise InputError(
                f"`batch_size` {batch_size} is the global batch and does not divide into {world_size} processes. "
                f"Choose a multiple of {world_size}."
            )
        self.examples = Examples(_ready(examples.x.to(device)), examples.y.to(device))
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.augment = augment
        self.prepare = prepare
        self.image_sizes = tuple(image_sizes)
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.device = torch.device(device)
        self.epoch = 0
        self._consumed = 0  # batches handed out in the epoch under way
        self._resume_at: tuple[int, int] | None = None  # epoch and batch that a checkpoint was made at

    #: Lightning reads this beside `sampler`, as a DataLoader has both.
    batch_sampler = None

    @property
    def sampler(self) -> TensorLoader:
        """The object whose `set_epoch` Lightning calls before each epoch: this one."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is; it decides the order and the augmentation."""
        if epoch != self.epoch:
            self._consumed = 0
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        size = len(self.examples)
        order = self._order().to(self.device)
        draws = None if self.augment is None else self.augment.draw(size, self.seed, self.epoch).to(self.device)
        epoch, batches = self._resume_at or (self.epoch, 0)
        first = batches % len(self) if epoch == self.epoch else 0
        self._resume_at, self._consumed = None, first
        for number in range(first, len(self)):
            shared = order[number * self.batch_size : (number + 1) * self.batch_size]
            own = shared[self.rank :: self.world_size]
            count = len(own)
            index = own if count else shared[:1]
            x = _pick(self.examples.x, index)
            if self.augment is not None and draws is not None:
                x = self.augment(x, draws.index_select(0, index), self.epoch)
            if self.prepare is not None:
                x = self.prepare(x)
            if self.image_sizes:
                x = shrink(x, self.image_sizes[min(self.epoch, len(self.image_sizes) - 1)])
            self._consumed = number + 1
            y = self.examples.y.index_select(0, index)
            yield Batch(x, y, index, count, count * self.world_size / len(shared))
        self._consumed = 0

    def sample(self, count: int) -> Tensor:
        """Give up to `count` inputs, drawn at random but always the same, prepared and neither augmented nor shrunk."""
        generator = torch.Generator().manual_seed(stream_seed(self.seed, "order"))
        chosen = torch.randperm(len(self.examples), generator=generator)[:count]
        x = self.examples.x[chosen.to(self.device)]
        return x if self.prepare is None else self.prepare(x)

    def plain(self) -> TensorLoader:
        """Give a loader of the same examples in their order, neither augmented nor shrunk, divided in the same way."""
        return TensorLoader(
            self.examples,
            batch_size=self.batch_size,
            prepare=self.prepare,
            rank=self.rank,
            world_size=self.world_size,
            device=self.device,
        )

    def state_dict(self) -> dict[str, int]:
        """Say how many batches of the epoch have been handed out."""
        epoch, batches = self._resume_at or (self.epoch, self._consumed)
        return {"epoch": epoch, "batches": batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start the iteration of the state's epoch behind the batches that it counts; other epochs start in front."""
        self._resume_at = (state["epoch"], state["batches"])

    def _order(self) -> Tensor:
        if not self.shuffle:
            return torch.arange(len(self.examples))
        generator = torch.Generator().manual_seed(stream_seed(self.seed, "order", self.epoch))
        return torch.randperm(len(self.examples), generator=generator)


def shrink(x: Tensor, image_size: int) -> Tensor:
    """Reduce images to a smaller edge, each pixel averaged over those it stands for.

    Args:
        x: Float images. Shape (B, C, H, W).
        image_size: Height and width that are wanted, at most those of `x`.

    Returns:
        Shape (B, C, image_size, image_size), channels-last in memory.
    """
    if x.shape[-1] == image_size:
        return x
    small = F.interpolate(x, size=(image_size, image_size), mode="bilinear", antialias=True, align_corners=False)
    return small.contiguous(memory_format=torch.channels_last)


def normalise(x: Tensor, *, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Turn bytes into channels-last floats of about zero mean and unit spread.

    Args:
        x: uint8 images. Shape (B, C, H, W).
        mean: Per channel, in [0, 1].
        std: Per channel, in [0, 1].

    Returns:
        ``(x / 255 - mean) / std``. Shape (B, C, H, W), channels-last in memory.
    """
    pixels = x.permute(0, 2, 3, 1).to(torch.float32, memory_format=torch.contiguous_format)  # (B, H, W, C)
    scale, shift = _constants(tuple(mean), tuple(std), x.shape[3], x.device)
    pixels.flatten(2).mul_(scale).sub_(shift)
    return pixels.permute(0, 3, 1, 2)


@lru_cache(maxsize=8)
def _constants(
    mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Scale and shift of one row of pixels: a row at a time is many times faster than the few channels of a pixel."""
    scale = torch.tensor([1 / (255 * s) for s in std])
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)])
    return scale.repeat(width).to(device), shift.repeat(width).to(device)  # (W C,) both


def _ready(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _pick(x: Tensor, index: Tensor) -> Tensor:
    if x.dim() != 4:
        return x.index_select(0, index)
    # Each image is one run of bytes in memory, and is copied as such; plain indexing would lay it out anew.
    return x.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)
