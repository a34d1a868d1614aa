"""The ordinary way, which benchmarks measure against: torchvision, a DataLoader with workers, plain loops in fp32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from lightning.pytorch import LightningModule
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from lightning_lab.data.cifar10 import MEAN, STD
from lightning_lab.data.loader import Examples

Loader = DataLoader[tuple[Tensor, int]]


class PerImage(Dataset[tuple[Tensor, int]]):
    """What torchvision's CIFAR10 does: bytes to a Pillow image, then the transforms, one image at a time."""

    def __init__(self, examples: Examples, *, crop: bool, flip: bool) -> None:
        self.pixels = examples.x.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = examples.y.tolist()
        self.transform = v2.Compose(
            [
                *([v2.RandomCrop(32, padding=4)] if crop else []),
                *([v2.RandomHorizontalFlip()] if flip else []),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def loader(examples: Examples, *, batch_size: int, train: bool, crop: bool = True, flip: bool = True) -> Loader:
    """Two workers, which live as long as the loader."""
    data = PerImage(examples, crop=crop and train, flip=flip and train)
    return DataLoader(data, batch_size=batch_size, shuffle=train, num_workers=2, persistent_workers=True)


class PlainModule(LightningModule):
    """A LightningModule as tutorials write it: logs loss and accuracy in every step."""

    def __init__(self, net: nn.Module, lr: float) -> None:
        super().__init__()
        self.net, self.lr = net, lr

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss, acc = self._measure(batch)
        self.log_dict({"train/loss": loss, "train/acc": acc}, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loss, acc = self._measure(batch)
        self.log_dict({"val/loss": loss, "val/acc": acc}, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)

    def _measure(self, batch: Any) -> tuple[Tensor, Tensor]:
        x, y = batch
        logits = self.net(x)
        return F.cross_entropy(logits, y), (logits.argmax(1) == y).float().mean()


def step(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, **loss: Any) -> Callable[[], None]:
    """One step of a plain loop over one batch, to be called again and again."""

    def run() -> None:
        value = F.cross_entropy(net(x), y, **loss)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return run
