"""The lab B table, 11 settings x 20 seeds: replicates in one process against separate fits in a warm process.

One separate fit of each setting is timed through `lightning_lab.studies.warm.WarmProcess`, the way a study takes, and
counted for each seed. The replicates are trained in full, in a new process for each setting; its imports, which a warm
process has behind it, are timed apart and taken off. Both run one after the other, on one processor core each.
Settings are those of the table's columns hidden, normalised, samples and schedule. L2 in the loss is left out.

    python benchmarks/replicates.py --epochs 150 --pairs 1    # the table's length; an hour
    python benchmarks/replicates.py                           # 10 epochs, in which starting weighs more
    python benchmarks/replicates.py --short                   # 2 settings, 5 epochs
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from measure import print_conditions

from lightning_lab.studies.warm import WarmProcess

SEEDS = 20
FIT = "import sys, json; from lightning_lab.studies.replicates import fit_replicates; "
FIT += "print(json.dumps(fit_replicates(json.loads(sys.argv[1]))))"


class Setting(NamedTuple):
    """A row of the table."""

    hidden: str
    normalised: bool
    clipped: bool
    samples: int
    lr: float
    factor: float


#: Samples are the table's; rows 10 and 11 are normalised alone.
SETTINGS = (
    Setting("[10,10]", False, False, 10000, 0.01, 0.5),
    Setting("[20,20]", False, False, 10000, 0.01, 0.5),
    Setting("[10,20,20]", False, False, 10000, 0.01, 0.5),
    Setting("[10,20,20]", False, False, 10000, 0.5, 0.1),
    Setting("[40,40]", False, False, 10000, 0.01, 0.4),
    Setting("[50,50]", False, False, 10000, 0.01, 0.4),
    Setting("[20,20,30]", True, True, 1000, 0.01, 0.5),
    Setting("[20,20,30]", True, True, 5000, 0.01, 0.5),
    Setting("[20,20,30]", True, True, 10000, 0.01, 0.5),
    Setting("[50,50]", True, False, 5000, 0.01, 1.0),
    Setting("[50,50]", True, False, 5000, 0.01, 0.5),
)


def arguments(setting: Setting, seed: int, epochs: int, logs: Path, kind: str) -> list[str]:
    """What follows `fit`."""
    scheduler = "torch.optim.lr_scheduler.StepLR"
    return [
        "--config=regression/mlp",
        f"--model.net.hidden={setting.hidden}",
        f"--model.net.normalisation={'layer' if setting.normalised else 'none'}",
        "--model.optimizer=torch.optim.SGD",
        f"--model.optimizer.lr={setting.lr}",
        "--model.optimizer.momentum=0.5",
        *(["--gradient_clipping.max_norm=1"] if setting.clipped else []),
        f"--data.num_samples={setting.samples}",
        f"--lr_schedule.scheduler={scheduler}",
        "--lr_schedule.scheduler.step_size=5",
        f"--lr_schedule.scheduler.gamma={setting.factor}",
        "--trainer.accelerator=cpu",
        f"--trainer.max_epochs={epochs}",
        f"--seed_everything={seed}",
        f"--run.logs={logs}",
        f"--run.name={kind}{seed}",
    ]


def separate(warm: WarmProcess, setting: Setting, epochs: int, logs: Path) -> float:
    """Time one fit."""
    started = time.perf_counter()
    command = ["fit", *arguments(setting, 0, epochs, logs, "separate")]
    warm.start(command, folder=logs, log=logs / "log", variables={})
    assert warm.wait() in (0, 4), (logs / "log").read_text()
    return time.perf_counter() - started


def together(setting: Setting, epochs: int, logs: Path) -> tuple[float, float]:
    """Time all seeds, and apart from it the imports alone."""
    command = [arguments(setting, seed, epochs, logs, "together") for seed in range(SEEDS)]
    started = time.perf_counter()
    importing = [sys.executable, "-c", "import lightning_lab.studies.replicates"]
    subprocess.run(importing, check=True)
    imports = time.perf_counter() - started
    started = time.perf_counter()
    answer = subprocess.run(
        [sys.executable, "-c", FIT, json.dumps(command)], check=True, capture_output=True, text=True
    )
    codes = json.loads(answer.stdout.splitlines()[-1])
    assert set(codes) <= {0, 4}, (codes, answer.stderr)
    return time.perf_counter() - started, imports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=3, help="how often each setting is measured")
    options = parser.parse_args()
    settings, epochs = (SETTINGS[1:9:6], 5) if options.short else (SETTINGS, options.epochs)
    pairs = 1 if options.short else options.pairs
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started
    torch.set_num_threads(1)
    print_conditions()
    print(f"{epochs} epochs, {SEEDS} seeds; seconds are medians of {pairs}; the imports are taken off the replicates\n")
    print("| setting | one separate fit | all seeds together | ratio |\n|---|---|---|---|")
    warm, sums = WarmProcess(), [0.0, 0.0]
    for setting in settings:
        alone, stacked = [], []
        for _ in range(pairs):
            with tempfile.TemporaryDirectory() as folder:
                alone.append(separate(warm, setting, epochs, Path(folder)))
                seconds, imports = together(setting, epochs, Path(folder))
                stacked.append(seconds - imports)
        one, many = statistics.median(alone), statistics.median(stacked)
        sums = [sums[0] + SEEDS * one, sums[1] + many]
        print(f"| {tuple(setting)} | {one:.2f} s | {many:.2f} s | {SEEDS * one / many:.1f} |", flush=True)
    warm.close()
    count = len(settings)
    print(f"\n{count} x {SEEDS} separate fits: {sums[0]:.0f} s. Replicates: {sums[1]:.0f} s. ", end="")
    print(f"Ratio {sums[0] / sums[1]:.1f}.")


if __name__ == "__main__":
    main()
