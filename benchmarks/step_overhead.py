"""Time of a training step of `fit`, with its logging, checkpoints and bar, against loops that have none of them.

The bare loop has the same net, loader, precision, loss and optimiser and nothing else, so the ratio is what Lightning
and the record of a run cost. `Trainer(barebones=True)` is Lightning's own answer: the same without logging,
checkpoints and bar. Epochs are taken whole, with what happens at their ends.

    python benchmarks/step_overhead.py            # 6 minutes on two cores
    python benchmarks/step_overhead.py --short    # two pairs each
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from lightning.pytorch import LightningModule, Trainer
from measure import HEADER, paired, print_conditions, row, rows_of_fit
from torch import Tensor, nn

from lightning_lab.data.digits import Digits
from lightning_lab.data.loader import Examples, TensorLoader
from lightning_lab.nets import MLP, LeNet5

EPOCHS = 4


class Case(NamedTuple):
    """One comparison.

    Args:
        config: The configuration of `fit`.
        arguments: What is added to it.
        net: Builds the same net.
        image_size: Of the digits.
        batch_size: Examples in a step.
        copies: How often the 1151 training images of the digits are repeated, for epochs of a usual length.
    """

    config: str
    arguments: list[str]
    net: Callable[[], nn.Module]
    image_size: int
    batch_size: int
    copies: int


def _lenet() -> nn.Module:
    return LeNet5(image_size=28, channels=(16, 36), activation="gelu").to(memory_format=torch.channels_last)


CASES = {
    "LeNet-5 16/36, 28 x 28, batch 128, 72 steps an epoch": Case("digits/lenet5", [], _lenet, 28, 128, 8),
    "MLP 256-128-10, batch 64, 576 steps an epoch": Case(
        "digits/mlp", ["--model.net.hidden=[128]"], lambda: MLP(hidden=(128,)), 16, 64, 32
    ),
    "MLP 256-128-10, batch 64, 18 steps an epoch": Case(
        "digits/mlp", ["--model.net.hidden=[128]"], lambda: MLP(hidden=(128,)), 16, 64, 1
    ),
}


class Repeated(Digits):
    """The bundled digits, the training part several times over."""

    def __init__(self, copies: int = 1, *, image_size: int = 16, batch_size: int = 32, seed: int = 0) -> None:
        super().__init__(image_size=image_size, batch_size=batch_size, seed=seed)
        self.copies = copies

    def setup(self, stage: str) -> None:
        super().setup(stage)
        train = self._parts["train"]
        self._parts["train"] = Examples(train.x.repeat(self.copies, 1, 1, 1), train.y.repeat(self.copies))


def fit(case: Case) -> float:
    """Milliseconds a step of the command, its bar drawn into a pipe."""
    rows = rows_of_fit(
        f"--config={case.config}", "--data=step_overhead.Repeated",
        f"--data.copies={case.copies}", f"--data.batch_size={case.batch_size}",
        f"--data.image_size={case.image_size}", f"--trainer.max_epochs={EPOCHS}",
        "--trainer.limit_val_batches=0", "--checkpoint.monitor=train/loss", "--progress.style=bar",
        "--lr_schedule=null", "--trainer.accelerator=cpu", "--trainer.precision=32-true", *case.arguments,
    )  # fmt: skip
    # The first epoch warms up.
    return 1000 * (rows[-1]["time_s"] - rows[0]["time_s"]) / (rows[-1]["step"] - rows[0]["step"])


def loader_of(case: Case) -> TensorLoader:
    data = Repeated(case.copies, image_size=case.image_size, batch_size=case.batch_size)
    data.setup("fit")
    return data.train_dataloader()


def bare(case: Case) -> float:
    """Milliseconds a step of a plain loop."""
    loader, net = loader_of(case), case.net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.03, momentum=0.9, fused=True)
    started, steps = 0.0, 0
    for epoch in range(EPOCHS):
        if epoch == 1:
            started = time.perf_counter()
        loader.set_epoch(epoch)
        for batch in loader:
            loss = F.cross_entropy(net(batch.x), batch.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += epoch > 0
    return 1000 * (time.perf_counter() - started) / steps


class Timed(LightningModule):
    """The least a LightningModule can be."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.started, self.steps = 0.0, 0

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        if self.current_epoch == 1 and batch_idx == 0:
            self.started, self.steps = time.perf_counter(), self.global_step
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.03, momentum=0.9, fused=True)


def barebones(case: Case) -> float:
    """Milliseconds a step of Lightning without anything."""
    module = Timed(case.net())
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        trainer = Trainer(barebones=True, max_epochs=EPOCHS, accelerator="cpu", devices=1)
        trainer.fit(module, loader_of(case))
    return 1000 * (time.perf_counter() - module.started) / (trainer.global_step - module.steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true")
    pairs = 2 if parser.parse_args().short else 5
    print_conditions()
    print(HEADER)
    for name, case in CASES.items():
        # `fit` sets the threads for its net; the loops after it compute with the same number.
        for against, measure in (("bare loop", bare), ("barebones Trainer", barebones)):
            results = paired(lambda c=case: fit(c), lambda c=case, m=measure: m(c), pairs=pairs)
            print(row(f"{name}; theirs: {against}", "ms", results, larger_is_better=False), flush=True)


if __name__ == "__main__":
    main()
