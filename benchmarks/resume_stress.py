"""Kill a run with SIGKILL at random moments, continue it, and compare its end with the uninterrupted run's.

What is promised: every run ends with the weights, the optimiser and the metrics of the uninterrupted one to the last
bit; no checkpoint is unreadable after a kill; no more than one save interval is done twice. With two processes the kill
hits one of them, the other, or both. Ends with exit code 1 if a promise is broken.

The run has everything that could be lost: dropout, augmentation, a schedule by step, clipping, early stopping, saves
within the epoch. Further arguments go to `fit`.

    python benchmarks/resume_stress.py --kills 10
    python benchmarks/resume_stress.py --kills 3 --processes 2
    python benchmarks/resume_stress.py --long                      # 100 kills, 20 of two processes, 20 in bf16
    python benchmarks/resume_stress.py --config digits/mlp --model.optimizer Adam --model.optimizer.lr 0.001
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from measure import print_conditions

from lightning_lab.rehearsal.processes import Rehearsal
from lightning_lab.rehearsal.resume import UNINTERRUPTED, Trial, rehearse_resume

RUN = [
    "--model.net.dropout=0.2", "--model.optimizer.lr=0.01", "--data.batch_size=8", "--data.augment.crop=2",
    "--data.augment.shift=1", "--lr_schedule.scheduler=StepLR", "--lr_schedule.scheduler.step_size=100",
    "--lr_schedule.scheduler.gamma=0.8", "--lr_schedule.interval=step", "--gradient_clipping.max_norm=1.0",
    "--early_stopping.patience=1", "--early_stopping.min_delta=0.05", "--trainer.max_epochs=8",
]  # fmt: skip


class Block(NamedTuple):
    """Kills of one kind of run.

    Args:
        kills: How many.
        processes: How many the run has.
        precision: Of the run.
    """

    kills: int
    processes: int
    precision: str


LONG = (Block(100, 1, "32-true"), Block(20, 2, "32-true"), Block(20, 1, "bf16-mixed"))


def stress(block: Block, options: argparse.Namespace, further: list[str]) -> bool:
    """Kill the runs of one block, print a summary, and tell whether all promises were kept."""
    place = [f"--trainer.devices={block.processes}", "--trainer.accelerator=cpu"]
    place += ["--trainer.strategy=ddp"] if block.processes > 1 else []
    saves = [f"--checkpoint.every_n_steps={options.every_n_steps}", f"--trainer.precision={block.precision}"]
    arguments = [f"--config={options.config}", *RUN, *place, *saves, *further]
    folder = Path(tempfile.mkdtemp(prefix="resume-stress-"))
    broken: list[Trial] = []

    def tell(number: int, trial: Trial) -> None:
        broken.extend([] if is_kept(trial, options.every_n_steps) else [trial])
        print(f"{number:4} {describe(trial)}", flush=True)

    started = time.monotonic()
    print(f"fit {' '.join(arguments)}", flush=True)
    rehearsal = Rehearsal(arguments, folder, processes=block.processes)
    trials = rehearse_resume(rehearsal, kills=block.kills, seed=options.seed, tell=tell)
    found = rehearsal.directory(UNINTERRUPTED).read_summary()
    length = f"{found['status']} after {found['steps']} steps"
    print(summary(block, trials, options, length, time.monotonic() - started), flush=True)
    if broken:
        names = ", ".join(trial.name for trial in broken)
        print(f"A promise was broken by {names}; the runs and what they printed are kept in {folder}.\n", flush=True)
    else:
        shutil.rmtree(folder)
    return not broken


def is_kept(trial: Trial, every_n_steps: int) -> bool:
    return not trial.differences and not trial.unreadable and trial.repeated_steps <= every_n_steps


def describe(trial: Trial) -> str:
    """Word one trial."""
    beat = trial.killed
    where = "not killed" if beat is None else f"killed in epoch {beat.epoch}, after step {beat.step} ({beat.phase})"
    resumed = "nothing left to do" if trial.resumed_step is None else f"continued from step {trial.resumed_step}"
    found = [f"differs in {len(trial.differences)}: {', '.join(trial.differences[:3])}"] if trial.differences else []
    found += list(trial.unreadable)
    return f"{where}, {resumed}, {trial.repeated_steps} repeated: {'; '.join(found) or 'identical'}"


def summary(block: Block, trials: list[Trial], options: argparse.Namespace, length: str, seconds: float) -> str:
    """Word a block as rows of a Markdown table."""
    repeated = [trial.repeated_steps for trial in trials]
    beats = [trial.killed for trial in trials if trial.killed is not None]
    epochs = Counter(beat.epoch for beat in beats)
    phases = Counter(beat.phase for beat in beats)
    rows = {
        "run": f"{options.config}, {block.processes} process(es), {block.precision}, {length}",
        "saved every": f"{options.every_n_steps} steps, and each epoch",
        "kills, each followed by a resume": len(trials),
        "identical to the uninterrupted run": sum(not trial.differences for trial in trials),
        "with an unreadable checkpoint": sum(bool(trial.unreadable) for trial in trials),
        "steps done twice, min / median / max": f"{min(repeated)} / {statistics.median(repeated):g} / {max(repeated)}",
        "kills by epoch": ", ".join(f"{epoch}: {count}" for epoch, count in sorted(epochs.items())),
        "kills by phase": ", ".join(f"{phase}: {count}" for phase, count in phases.most_common()),
        "seconds in all": f"{seconds:.0f}",
    }
    lines = [
        "",
        f"| what | seed {options.seed} |",
        "|---|---|",
        *(f"| {what} | {value} |" for what, value in rows.items()),
    ]
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1, choices=(1, 2))
    parser.add_argument("--precision", default="32-true", help="32-true or bf16-mixed")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--every_n_steps", type=int, default=20, help="how often the run saves")
    parser.add_argument("--config", default="digits/lenet5", help="of the run: digits/lenet5 or digits/mlp")
    parser.add_argument("--long", action="store_true", help="all that is promised, about half an hour on two cores")
    options, further = parser.parse_known_args()
    own = (Block(options.kills, options.processes, options.precision),)
    print_conditions()
    kept = [stress(block, options, further) for block in (LONG if options.long else own)]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
