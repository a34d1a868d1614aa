"""What saving costs: the time that the training waits for checkpoints, and the time that they take beside it.

    python benchmarks/checkpoint_cost.py --root DATA

A whole `fit` of LeNet-5 on CIFAR-10, with a clock around each save in the training's thread and around each write in
the writer's. The share is of the epoch's time in the same run, so the machine's mood cancels. The second run saves
every 100 steps too, and waits for the disk each time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from unittest.mock import patch

from lightning.pytorch import Trainer
from measure import print_conditions, rows_of_fit

from lightning_lab.runs import writer


def timed(function: Callable[..., Any], times: list[float]) -> Callable[..., Any]:
    """Write down how long each call takes, in seconds."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            times.append(time.perf_counter() - started)

    return wrapped


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="CIFAR-10")
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    print(
        "| saves | epoch (median) | training waits, per epoch | share | one save, median (range) | one write beside |"
    )
    print("|---|---|---|---|---|---|")
    for what, extra in (
        ("best and last, each epoch", ()),
        ("and every 100 steps", ("--checkpoint.every_n_steps=100",)),
    ):
        saves: list[float] = []
        writes: list[float] = []
        drains: list[float] = []
        with (
            patch.object(Trainer, "save_checkpoint", timed(Trainer.save_checkpoint, saves)),
            patch.object(writer, "write_bytes", timed(writer.write_bytes, writes)),
            patch.object(writer.BackgroundWriter, "drain", timed(writer.BackgroundWriter.drain, drains)),
        ):
            rows = rows_of_fit(
                "--config=cifar10/lenet5",
                f"--data.root={options.root}",
                f"--trainer.max_epochs={options.epochs}",
                *extra,
            )
        ends = [row["time_s"] for row in rows]
        epoch_s = statistics.median(after - before for before, after in pairwise(ends))
        waits_s = (sum(saves) + sum(drains[:-1])) / options.epochs  # the last one is the end of the run
        print(
            f"| {what} | {epoch_s:.2f} s | {1000 * waits_s:.1f} ms | {waits_s / epoch_s:.2%} | "
            f"{1000 * statistics.median(saves):.1f} ms ({1000 * min(saves):.1f} to {1000 * max(saves):.1f}), "
            f"n = {len(saves)} | {1000 * statistics.median(writes):.1f} ms, n = {len(writes)} |"
        )
    print()
    print_conditions()


if __name__ == "__main__":
    main()
