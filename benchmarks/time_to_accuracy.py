"""Time until LeNet-5 reaches an accuracy on CIFAR-10's validation images: ours against the labs' own recipe.

Theirs: batch 4, ReLU, SGD with rate 0.001 and momentum 0.9, halved every five epochs, torchvision's transforms on one
image at a time in a DataLoader with two workers, fp32, a plain loop. Ours: `fit` with the settings of
configs/cifar10/lenet5.yaml, over seven epochs. The net is the same (the labs' wide one), and so is the split. Time is
that of training and validation; reading the images is left out on both sides.

    python benchmarks/time_to_accuracy.py --root DIR             # to 69 %, one pair, 15 minutes on two cores
    python benchmarks/time_to_accuracy.py --root DIR --short     # to 50 %, one pair
"""

from __future__ import annotations

import argparse
import time

import ordinary
import torch
from measure import HEADER, print_conditions, row, rows_of_fit
from torch import nn

from lightning_lab.data import CIFAR10
from lightning_lab.nets import LeNet5

OUR_EPOCHS, MOST_EPOCHS = 7, 10


def ours(root: str, accuracy: float, seed: int, epochs: int) -> float:
    """Seconds of `fit` until the end of the first epoch that reaches the accuracy."""
    rows = rows_of_fit(
        "--config=cifar10/lenet5",
        f"--data.root={root}",
        f"--seed_everything={seed}",
        f"--trainer.max_epochs={epochs}",
    )
    for one in rows:
        print(f"  ours, epoch {one['epoch']}: {one['val/acc']:.4f} after {one['time_s']:.0f} s", flush=True)
    reached = [float(one["time_s"]) for one in rows if one["val/acc"] >= accuracy]
    if not reached:
        raise SystemExit(f"ours did not reach {accuracy} in {epochs} epochs")
    return reached[0]


def theirs(root: str, accuracy: float, seed: int) -> float:
    """Seconds of the labs' loop until the end of the first epoch that reaches the accuracy."""
    data = CIFAR10(root, seed=seed)
    data.setup("fit")
    train = ordinary.loader(data._parts["train"], batch_size=4, train=True, crop=False, flip=False)
    val = ordinary.loader(data._parts["val"], batch_size=4, train=False)
    torch.manual_seed(seed)
    net = LeNet5(in_channels=3, image_size=32, channels=(16, 36), kernel_sizes=(5, 3), hidden=(128, 96))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.5)
    loss_of = nn.CrossEntropyLoss()
    started, seconds = time.perf_counter(), 0.0
    for epoch in range(MOST_EPOCHS):
        net.train()
        for x, y in train:
            optimizer.zero_grad()
            loss_of(net(x), y).backward()
            optimizer.step()
        schedule.step()
        net.eval()
        with torch.no_grad():
            right = sum(int((net(x).argmax(1) == y).sum()) for x, y in val)
        seconds = time.perf_counter() - started
        print(f"  theirs, epoch {epoch + 1}: {right / 10_000:.4f} after {seconds:.0f} s", flush=True)
        if right / 10_000 >= accuracy:
            return seconds
    print(f"  theirs did not reach {accuracy} in {MOST_EPOCHS} epochs: its time is a lower bound")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="folder of CIFAR-10")
    parser.add_argument("--accuracy", type=float, default=0.69)
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    accuracy, epochs = (0.5, 2) if options.short else (options.accuracy, OUR_EPOCHS)
    print_conditions()
    pairs = [(ours(options.root, accuracy, n, epochs), theirs(options.root, accuracy, n)) for n in range(options.pairs)]
    print(HEADER)
    print(row(f"time to {accuracy:.0%} on validation, LeNet-5 wide", "s", pairs, larger_is_better=False))


if __name__ == "__main__":
    main()
