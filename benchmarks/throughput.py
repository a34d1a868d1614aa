"""What the arithmetic gives: images a second while training, an epoch whole, and the memory it takes.

Theirs is plain PyTorch as it comes: fp32, NCHW, foreach SGD, the same batch; for the epoch, plain Lightning with
torchvision's transforms and a DataLoader with two workers. Ours is what `fit` chooses on this machine. Pixels are
random: no data set is needed, and nothing here depends on what they show.

    python benchmarks/throughput.py            # about 15 minutes on two cores
    python benchmarks/throughput.py --short    # two pairs of two steps, 4 minutes
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ordinary
import torch
from lightning.pytorch import Trainer
from measure import HEADER, paired, print_conditions, row, rows_of_fit
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_lab.arithmetic import choose_precision
from lightning_lab.data.cifar10 import CIFAR10
from lightning_lab.data.loader import Examples
from lightning_lab.nets import VGG, LeNet5, SpeedNet
from lightning_lab.optimizers import Muon

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def lenet() -> nn.Module:
    return LeNet5(in_channels=3, image_size=32, channels=(16, 36), kernel_sizes=(5, 3), hidden=(128, 96))


def sgd(net: nn.Module, **how: bool) -> torch.optim.Optimizer:
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    return torch.optim.SGD(trained, lr=0.01, momentum=0.9, **how)


def images_per_s(step: Callable[[], None], batch_size: int, steps: int) -> float:
    step()
    _wait()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    _wait()
    return steps * batch_size / (time.perf_counter() - started)


def _wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def ours(make: Callable[[], nn.Module], batch_size: int, steps: int, *, muon: bool = False) -> float:
    net = make().to(DEVICE, memory_format=torch.channels_last)
    precision, _ = choose_precision(net, DEVICE)
    optimizer = Muon(net.parameters()) if muon else sgd(net, fused=True)
    x, y = _batch(batch_size)
    x = x.contiguous(memory_format=torch.channels_last)
    plain = ordinary.step(net, optimizer, x, y)

    def step() -> None:
        # Lightning's autocast covers the training step and not the backward pass; so does this.
        with torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "bf16-mixed", cache_enabled=False):
            loss = nn.functional.cross_entropy(net(x).float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return images_per_s(step if precision != "32-true" else plain, batch_size, steps)


def theirs(make: Callable[[], nn.Module], batch_size: int, steps: int) -> float:
    net = make().to(DEVICE)
    x, y = _batch(batch_size)
    return images_per_s(ordinary.step(net, sgd(net, foreach=True), x, y), batch_size, steps)


def _batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(size, 3, 32, 32, device=DEVICE), torch.randint(0, 10, (size,), device=DEVICE)


class RandomPixels(CIFAR10):
    """Images of CIFAR-10's shape, 40 000 to train and 10 000 to validate, made in memory."""

    def setup(self, stage: str) -> None:
        pixels = torch.randint(0, 256, (50_000, 32, 32, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        labels = torch.arange(50_000) % 10
        self._parts = {"train": Examples(pixels[:40_000], labels[:40_000])}
        self._parts["val"] = Examples(pixels[40_000:], labels[40_000:])

    def prepare_data(self) -> None:
        """Nothing to prepare."""


def epoch_of_fit() -> float:
    """Seconds of the second epoch of `fit`, with validation, logging, checkpoints."""
    rows = rows_of_fit(
        "--config=cifar10/lenet5", "--data=throughput.RandomPixels", "--data.batch_size=128",
        "--data.augment.crop=4", "--trainer.max_epochs=2", "--lr_schedule=null",
    )  # fmt: skip
    return float(rows[1]["time_s"] - rows[0]["time_s"])


def epoch_of_plain_lightning() -> float:
    """Seconds of the second epoch of plain Lightning, with validation, logging, checkpoints."""
    data = RandomPixels()
    data.setup("fit")
    module = ordinary.PlainModule(lenet(), lr=0.02)
    stamps: list[float] = []
    module.on_train_epoch_start = lambda: stamps.append(time.perf_counter())  # type: ignore[method-assign]
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as logs, contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        trainer = Trainer(max_epochs=2, default_root_dir=logs, enable_model_summary=False, num_sanity_val_steps=0)
        parts: dict[str, Any] = {"batch_size": 128}
        with contextlib.redirect_stderr(io.StringIO()):
            trainer.fit(module, ordinary.loader(data._parts["train"], train=True, **parts),
                        ordinary.loader(data._parts["val"], train=False, **parts))  # fmt: skip
    return time.perf_counter() - stamps[1]


def matrix_rate(dtype: torch.dtype) -> float:
    """TFLOP/s of a large matrix product: what the device gives at best."""
    size = 8192 if DEVICE == "cuda" else 2048
    a, b = (torch.randn(size, size, device=DEVICE, dtype=dtype) for _ in range(2))
    return 2 * size**3 * images_per_s(lambda: a @ b, 1, 10) / 1e12


def operations_of_step(make: Callable[[], nn.Module]) -> float:
    """TFLOP of a training step, forward and backward, for one image."""
    x, y = torch.randn(2, 3, 32, 32), torch.zeros(2, dtype=torch.long)
    net = make()
    with FlopCounterMode(display=False) as counter:
        nn.functional.cross_entropy(net(x), y).backward()
    return counter.get_total_flops() / 2 / 1e12


def memory_of_fit() -> float:
    """Largest resident memory of one `fit` of LeNet-5, in a process of its own, in GB."""
    # Not ru_maxrss: a new process inherits the peak of the one that started it, here that of the comparisons.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import throughput; throughput.epoch_of_fit()\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1]) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true")
    short = parser.parse_args().short
    pairs, steps = (2, 2) if short else (5, 4)
    print_conditions()
    bf16, fp32 = matrix_rate(torch.bfloat16), matrix_rate(torch.float32)
    print(f"large matrix products: {bf16:.3f} TFLOP/s in bf16, {fp32:.3f} in fp32\n")
    print(HEADER)
    rates: list[str] = []
    for name, make, ours_batch, theirs_batch, muon in (
        ("LeNet-5 wide, batch 128", lenet, 128, 128, False),
        ("VGG13-BN, batch 128", lambda: VGG(depth=13), 128, 128, False),
        ("VGG13-BN, batch 512 against 128", lambda: VGG(depth=13), 512, 128, False),
        ("SpeedNet, batch 500, ours with Muon", SpeedNet, 500, 500, True),
    ):
        count = steps * (10 if make is lenet else 1)
        results = paired(
            lambda m=make, b=ours_batch, k=count, u=muon: ours(m, b, k, muon=u),
            lambda m=make, b=theirs_batch, k=count: theirs(m, b, k),
            pairs=pairs,
        )
        print(row(f"training {name}", "images/s", results, larger_is_better=True), flush=True)
        rate = operations_of_step(make) * statistics.median(one for one, _ in results)
        rates.append(f"{name}: {rate:.3f} TFLOP/s, {rate / bf16:.0%} of the bf16 rate")
    results = paired(epoch_of_fit, epoch_of_plain_lightning, pairs=pairs)
    print(row("epoch of LeNet-5, batch 128, crop, flip, validation", "s", results, larger_is_better=False))
    print("\n" + "\n".join(rates))
    print(f"\nLargest resident memory of a fit of LeNet-5 on images of CIFAR-10's size: {memory_of_fit():.2f} GB")


if __name__ == "__main__":
    main()
