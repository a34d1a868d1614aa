"""The verb ``schedule``: the learning rate over the whole of a run, as a table and a picture, before it is trained.

Optimiser and schedule are built as ``fit`` builds them and stepped in the order in which it steps them; the net is not
run. What only a run can know (a plateau, an early stop) is not guessed.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from matplotlib.figure import Figure
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_lab.cli import LabCLI
from lightning_lab.endings import end
from lightning_lab.messages import quieten
from lightning_lab.runs.arguments import Parser, picture_file, positive
from lightning_lab.runs.errors import InputError
from lightning_lab.runs.files import write_text, write_whole
from lightning_lab.verbs import build

#: Rows of the printed table, at most.
_ROWS = 20
#: More than so many times between the highest and a low rate, and the axis is logarithmic.
_TWO_DECADES = 100


class Step(NamedTuple):
    """One optimiser step.

    Args:
        epoch: Which epoch it belongs to, from 1.
        done: Epochs done when it is taken, with their fraction.
        rates: The rate of each parameter group.
    """

    epoch: int
    done: float
    rates: tuple[float, ...]


class Rates(NamedTuple):
    """The rates of a whole run.

    Args:
        groups: The names of the parameter groups.
        steps: The steps in order, at least one.
    """

    groups: tuple[str, ...]
    steps: list[Step]

    def changes(self) -> list[int]:
        """List the steps, from 0, that have other rates than the one before; the first is one of them."""
        pairs = itertools.pairwise(self.steps)
        return [0, *(i for i, (a, b) in enumerate(pairs, start=1) if a.rates != b.rates)]


def main(args: list[str]) -> int:
    """Print the table, draw the picture.

    Args:
        args: What follows ``schedule`` on the command line: its own options and what would follow ``fit``.

    Returns:
        The exit code.
    """
    parser = Parser(
        prog="lightning-lab schedule",
        usage="lightning-lab schedule [--output FILE] [--csv FILE] [--scale SCALE] [--steps_per_epoch N] "
        "[what follows fit]",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--output", type=picture_file, metavar="FILE", help="the picture (default: logs/schedules/<configuration>.png)"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the rate of every step to this table")
    parser.add_argument(
        "--scale",
        choices=("auto", "linear", "log"),
        default="auto",
        help="axis of the rate (default: log where nine tenths of the run span more than two decades, else linear)",
    )
    parser.add_argument(
        "--steps_per_epoch", type=positive, metavar="N", help="steps of a whole epoch; the data are not read then"
    )
    options, arguments = parser.parse_known_args(args)
    quieten()
    try:
        cli = build("fit", arguments)
        rates = foresee(cli, steps_per_epoch=options.steps_per_epoch)
        experiment = cli.run_directory.path.parent
        picture = options.output or experiment.parent / "schedules" / f"{experiment.name}.png"
        figure = draw(rates, title=f"{experiment.name}: {_name(cli)}", scale=options.scale)
        write_whole(picture, lambda file: figure.savefig(file, format="png", dpi=120))
        print(_report(rates, cli))
        print(f"picture: {picture}")
        if options.csv is not None:
            write_text(options.csv, table(rates))
            print(f"table: {options.csv}")
    except BaseException as error:
        return end(error, None)
    return 0


def foresee(cli: LabCLI, *, steps_per_epoch: int | None = None) -> Rates:
    """Compute the rates that ``fit`` would use.

    Args:
        cli: The command line of ``fit``, parsed. Its optimiser and schedule are used up.
        steps_per_epoch: Optimiser steps of a whole epoch; None reads the data for it.

    Raises:
        InputError: If the rates depend on results, the data cannot be read, or the schedule ends before the run.
        ValueError: What the slot ``lr_schedule`` raises.
    """
    trainer, model = cli.trainer, cli.model
    if not model.automatic_optimization:
        raise InputError(f"{type(model).__name__} steps its optimisers by itself: only a run knows its rates.")
    _connect(cli, steps_per_epoch)
    trainer.fit_loop.setup_data()
    batches = trainer.num_training_batches
    if not 0 < batches < math.inf:
        raise InputError(f"An epoch has {batches} batches here. Give it a length: --trainer.limit_train_batches N.")
    trainer.strategy.setup_optimizers(trainer)
    slot = cli.config_init.lr_schedule
    if slot is not None:
        slot.on_fit_start(trainer, model)
    schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
    if (slot and not schedulers) or any(isinstance(scheduler, ReduceLROnPlateau) for scheduler in schedulers):
        raise InputError(
            "ReduceLROnPlateau lowers the rate when a metric stops improving: its rates depend on the results, and "
            "only a run knows them. Look at the column lr of the run's metrics.jsonl, or choose another scheduler."
        )
    groups = trainer.optimizers[0].param_groups
    names = [f"lr of {group['name']}" if "name" in group else f"lr {i}" for i, group in enumerate(groups, start=1)]
    steps = _step_through(trainer, model, int(batches))
    if not steps:
        raise InputError("The run has no step: raise --trainer.max_epochs or --trainer.max_steps.")
    return Rates(tuple(names) if len(names) > 1 else ("lr",), steps)


def table(rates: Rates) -> str:
    """Write every step as CSV: epoch and step, both from 1, and the rate of each parameter group."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", "step", *rates.groups])
    writer.writerows([step.epoch, i, *step.rates] for i, step in enumerate(rates.steps, start=1))
    return text.getvalue()


def draw(rates: Rates, *, title: str, scale: str = "auto") -> Figure:
    """Draw the rate of each parameter group against the epochs.

    Args:
        rates: The rates.
        title: What stands above.
        scale: Of the rate's axis: ``linear``, ``log``, or ``auto``, which chooses.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    last = rates.steps[-1]
    done = [step.done for step in rates.steps] + [_end(rates)]
    for i, name in enumerate(rates.groups):
        axes.plot(done, [step.rates[i] for step in (*rates.steps, last)], drawstyle="steps-post", label=name)
    highest = max(max(step.rates) for step in rates.steps)
    if highest > 0 and (scale == "log" or (scale == "auto" and _spans_decades(rates))):
        axes.set_yscale("log", nonpositive="mask")
    else:
        axes.set_ylim(bottom=0, top=1.05 * highest or 1)
    axes.set_xlim(0, done[-1])
    axes.set(title=title, xlabel=f"epochs (of {_steps_per_epoch(rates)} steps)", ylabel="learning rate")
    axes.grid(alpha=0.3)
    if len(rates.groups) > 1:
        axes.legend()
    return figure


def _connect(cli: LabCLI, steps_per_epoch: int | None) -> None:
    trainer, model, data = cli.trainer, cli.model, cli.datamodule
    connector = trainer._data_connector
    if steps_per_epoch is None:
        connector.attach_data(model, datamodule=data)
        try:
            data.prepare_data()
            data.setup("fit")
        except InputError as error:
            raise InputError(f"{error} Without the data: --steps_per_epoch N.") from error
    else:  # anything with this length
        connector.attach_data(model, train_dataloaders=range(steps_per_epoch * trainer.accumulate_grad_batches))
    trainer.strategy.connect(model)
    model.configure_model()
    model.setup("fit")


def _step_through(trainer: Trainer, model: LightningModule, batches: int) -> list[Step]:
    steps: list[Step] = []
    optimizer, most = trainer.optimizers[0], trainer.max_steps
    epochs = itertools.count() if trainer.max_epochs == -1 else range(trainer.max_epochs or 0)
    if trainer.max_epochs == -1 and most == -1:
        raise InputError("The run has no end: set --trainer.max_epochs or --trainer.max_steps.")
    with warnings.catch_warnings():  # torch misses the optimiser's steps
        warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step\(\)` before")
        for epoch in epochs:
            accumulate = _accumulated(trainer, epoch)
            for batch in range(batches):
                if len(steps) == most:
                    return steps
                if (batch + 1) % accumulate and batch + 1 < batches:
                    continue
                rates = tuple(float(group["lr"]) for group in optimizer.param_groups)
                done = epoch + (batch // accumulate) / math.ceil(batches / accumulate)
                steps.append(Step(epoch + 1, done, rates))
                _advance(trainer, model, "step", batch, len(steps))
            _advance(trainer, model, "epoch", epoch, len(steps))
    return steps


def _advance(trainer: Trainer, model: LightningModule, interval: str, index: int, step: int) -> None:
    for config in trainer.lr_scheduler_configs:
        if config.interval != interval or (index + 1) % config.frequency:
            continue
        try:
            model.lr_scheduler_step(config.scheduler, None)
        except ValueError as error:  # OneCycleLR, behind its total_steps
            raise InputError(f"`lr_schedule` fails after step {step} of the run: {error}") from error


def _accumulated(trainer: Trainer, epoch: int) -> int:
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, GradientAccumulationScheduler):
            return callback.get_accumulate_grad_batches(epoch)
    return trainer.accumulate_grad_batches


def _report(rates: Rates, cli: LabCLI) -> str:
    changes = rates.changes()
    epochs = rates.steps[-1].epoch
    lines = [f"{_name(cli)}: {epochs} epochs of {_steps_per_epoch(rates)} steps, {len(rates.steps)} steps in all"]
    if len(changes) == 1:
        why = "" if cli.config_init.lr_schedule is None else " `lr_schedule` has no effect within this run."
        lines.append(f"The learning rate is constant.{why}")
    sooner = ["`early_stopping`"] if cli.config_init.early_stopping is not None else []
    sooner += ["`trainer.max_time`"] if cli.config.trainer.max_time is not None else []
    if sooner:
        lines.append(f"{' and '.join(sooner)} may end the run earlier.")
    if len(rates.groups) > 1:
        for name, group in zip(rates.groups, cli.trainer.optimizers[0].param_groups, strict=True):
            lines.append(f"{name}: {len(group['params'])} tensors, {sum(p.numel() for p in group['params'])} weights")
    width = max(12, *map(len, rates.groups))
    lines.append(f"  {'epoch':>6} {'step':>8} " + " ".join(f"{name:>{width}}" for name in rates.groups))
    shown = _compress(changes, rates)
    for i in shown:
        step = rates.steps[i]
        lines.append(f"  {step.epoch:>6} {i + 1:>8} " + " ".join(f"{rate:>{width}.6g}" for rate in step.rates))
    if len(shown) < len(changes):
        lines.append(f"  {len(shown)} of the {len(changes)} steps that change the rate; --csv FILE writes every step")
    return "\n".join(lines)


def _compress(changes: list[int], rates: Rates) -> list[int]:
    if len(changes) <= _ROWS:
        return changes
    highest = max(changes, key=lambda i: rates.steps[i].rates)
    even = {changes[round(i * (len(changes) - 1) / (_ROWS - 2))] for i in range(_ROWS - 1)}
    return sorted({*even, highest})


def _name(cli: LabCLI) -> str:
    optimizer = type(cli.trainer.optimizers[0]).__name__
    slot = cli.config_init.lr_schedule
    if slot is None:
        own = [type(config.scheduler).__name__ for config in cli.trainer.lr_scheduler_configs]
        return f"{optimizer}, {' and '.join(own) or 'no schedule (`lr_schedule` is null)'}"
    scheduler = cli.config.lr_schedule.scheduler.class_path.rpartition(".")[2]
    if slot.warmup:
        return f"{optimizer}, a warm-up of {slot.warmup} {slot.interval}s, then {scheduler} by {slot.interval}"
    return f"{optimizer}, {scheduler} by {slot.interval}"


def _steps_per_epoch(rates: Rates) -> int:
    return sum(step.epoch == 1 for step in rates.steps)


def _end(rates: Rates) -> float:
    # The last step lasts as long as the one before it.
    last = rates.steps[-1]
    own = [step.done for step in rates.steps if step.epoch == last.epoch]
    return last.done + (own[-1] - own[-2] if len(own) > 1 else 1)


def _spans_decades(rates: Rates) -> bool:
    # The lowest tenth does not count: a straight line to zero passes all decades at its end, and is to look straight.
    values = sorted(rate for step in rates.steps for rate in step.rates)
    low = values[len(values) // 10]
    return low > 0 and values[-1] / low > _TWO_DECADES


_DESCRIPTION = """Show the learning rate over a whole run before it is trained: a table, and a picture.

The rates are those of `fit` with the same keys: optimiser and schedule are built as it builds them and stepped without
training. The table has a row for each change, at most twenty. The training data are read for the number of steps in an
epoch; --steps_per_epoch N does without them. Rates that depend on results (ReduceLROnPlateau) cannot be foreseen.

examples, the three schedules of lab D first:
  lightning-lab schedule --config digits/mlp --trainer.max_epochs 200 --model.optimizer.lr 0.1 \\
    --lr_schedule.scheduler StepLR --lr_schedule.scheduler.step_size 50 --lr_schedule.scheduler.gamma 0.5
  ... --lr_schedule.scheduler MultiStepLR --lr_schedule.scheduler.milestones [50,125,160] \\
    --lr_schedule.scheduler.gamma 0.5
  ... --lr_schedule.scheduler ExponentialLR --lr_schedule.scheduler.gamma 0.95
  lightning-lab schedule --config cifar10/speedrun --data.root DIR         three parameter groups, a rate for each
  lightning-lab schedule --config cifar10/speedrun --steps_per_epoch 49    the same without the data
  lightning-lab schedule --config regression/mlp --lr_schedule.warmup 5 --csv rates.csv
  lightning-lab schedule --config my.yaml --lr_schedule.interval step --lr_schedule.scheduler OneCycleLR \\
    --lr_schedule.scheduler.max_lr 0.5 --lr_schedule.scheduler.total_steps 720
  lightning-lab schedule --config RUN/config.yaml                          of a run that was made"""
