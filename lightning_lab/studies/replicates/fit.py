"""Fit several seeds of one configuration in one process, each with its own record."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loops.fit_loop import _FitLoop

from lightning_lab.cli import LabCLI
from lightning_lab.endings import end
from lightning_lab.messages import quieten
from lightning_lab.runs.errors import InputError
from lightning_lab.runs.files import write_json
from lightning_lab.runs.listing import differences, flatten
from lightning_lab.runs.start import decide
from lightning_lab.studies.dispatch import MOST
from lightning_lab.studies.replicates.output import Printing, outputs
from lightning_lab.studies.replicates.replicate import Replicate
from lightning_lab.studies.replicates.supported import build, can_replicate
from lightning_lab.studies.replicates.training import StackedTraining
from lightning_lab.verbs import _fit

#: What tells the runs of one arm from each other.
_OWN = ("seed_everything", "data.seed", "run", "config")
_STOPPED = (130, 143)


def fit_replicates(arguments: Sequence[Sequence[str]], logs: Sequence[Path] | None = None) -> list[int]:
    """Do what ``fit`` does with each of the command lines, in one training where they begin, else one by one.

    A run that is finished is left alone, and one that can be continued is continued by itself. A replicate that
    diverges ends with its own record, and leaves the others as they are. A signal ends all of them; each keeps its
    last whole epoch, from where ``fit`` continues it.

    Args:
        arguments: What follows ``fit``, one command line a seed.
        logs: Where each prints what is its own; None lets all of them print as one.

    Returns:
        The exit code of each: 0 done, 2 bad input, 4 diverged, 130 SIGINT, 143 SIGTERM, 1 a bug.

    Raises:
        InputError: If a configuration cannot be trained as a replicate, or they differ in more than seed and place.
    """
    quieten()
    clis: list[LabCLI] = []
    for one in arguments:
        cli = build(one)
        clis.append(cli)
        reason = can_replicate(cli)
        if reason is not None:
            raise InputError(f"These runs cannot be trained as replicates: {reason}. Train them one by one.")
        changed = differences(_common(clis[0]), _common(cli))
        if changed:
            raise InputError("Replicates differ in their seed alone, got (first -> other):\n" + "\n".join(changed))
    begin = [index for index, cli in enumerate(clis) if _begins(cli)]
    stacks = [begin[first : first + MOST] for first in range(0, len(begin), MOST)]
    stacks += [[index] for index in range(len(clis)) if index not in begin]
    codes: dict[int, int] = {}
    with outputs(arguments, logs) as (own, common):
        for stack in stacks:
            stopped = next((code for code in codes.values() if code in _STOPPED), None)
            if stopped is not None:
                codes |= dict.fromkeys(stack, stopped)
            elif len(stack) == 1:
                with own[stack[0]]():
                    codes[stack[0]] = _ends(clis[stack[0]])
            else:
                together = _Stack([clis[index] for index in stack], [own[index] for index in stack], common)
                codes |= dict(zip(stack, together.fit(), strict=True))
    return [codes[index] for index in range(len(clis))]


class _Stack:
    """Several fits inside each other: each sets its trainer up and waits; the innermost trains them all.

    So each of them is the ordinary ``fit`` but for its epochs: lock, record, checkpoints and endings are its own. Each
    waits inside the one before it, a dozen calls of Python deep, so that there is a limit to their number.

    Args:
        clis: The parts of each.
        own: For each, what makes the output its own.
        common: What makes it that of all.
    """

    def __init__(self, clis: Sequence[LabCLI], own: Sequence[Printing], common: Printing) -> None:
        self.clis = list(clis)
        self.own = list(own)
        self.common = common
        self.ready: list[Replicate] = []
        self.failure: BaseException | None = None
        self._codes = [1] * len(self.clis)
        self._entered = 0

    def fit(self) -> list[int]:
        """Train; returns the exit codes."""
        self._enter(0)
        return self._codes

    def _enter(self, index: int) -> None:
        self._entered = index
        if index == len(self.clis):
            self._train()
            return
        cli = self.clis[index]
        bar = cli.trainer.progress_bar_callback
        if index and bar is not None:
            bar.disable()  # one of them says what is trained on what
        cli.trainer.fit_loop = _OutsideLoop(cli.trainer, lambda: self._wait(cli, index))
        with self.own[index]():
            self._codes[index] = _ends(cli)
        if self._entered == index:  # it ended before its training: the others do without it
            self._enter(index + 1)

    def _wait(self, cli: LabCLI, index: int) -> None:
        one = Replicate(cli)
        self.ready.append(one)
        self._enter(index + 1)
        if self.failure is not None:
            raise self.failure
        if one.error is not None:
            raise one.error

    def _train(self) -> None:
        if not self.ready:
            return
        try:
            for index, one in enumerate(self.ready):
                self._note(index, one)
            training = StackedTraining(self.ready)
            try:
                with self.common():
                    training.run()
            finally:
                training.hand_over()
        except BaseException as error:  # told by each of them
            self.failure = error

    def _note(self, index: int, one: Replicate) -> None:
        run = one.cli.run_directory
        known = json.loads(run.environment.read_text())
        seeds = [other.cli.seed for other in self.ready]
        write_json(run.environment, {**known, "replicates": {"count": len(seeds), "index": index, "seeds": seeds}})


class _OutsideLoop(_FitLoop):
    """Lightning's fit loop with its epochs trained by somebody else."""

    def __init__(self, trainer: Trainer, train: Callable[[], None]) -> None:
        theirs = trainer.fit_loop
        super().__init__(trainer, theirs.min_epochs, theirs.max_epochs)
        self.epoch_loop = theirs.epoch_loop
        self._train = train

    def run(self) -> None:
        """Start, let train, end."""
        self.setup_data()
        if self.skip:
            return
        self.reset()
        self.on_run_start()
        self._train()
        self.epoch_progress.increment_completed()
        self.on_run_end()


def _ends(cli: LabCLI) -> int:
    try:
        _fit(cli)
    except BaseException as error:
        return end(error, cli)
    return 0


def _begins(cli: LabCLI) -> bool:
    try:
        return decide(cli.run_directory, cli.record.config, overwrite=cli.config.run.overwrite) == "begin"
    except InputError:
        return False  # told by its own fit


def _common(cli: LabCLI) -> dict[str, Any]:
    settings = flatten(cli.config.as_dict())
    below = tuple(f"{key}." for key in _OWN)
    return {key: str(value) for key, value in settings.items() if key not in _OWN and not key.startswith(below)}
