"""A run that is killed at a random moment and continued: does it end where the uninterrupted one does?"""

from __future__ import annotations

import random
import time
from bisect import bisect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_lab.rehearsal.heartbeat import Beat, count_beats, read_beats
from lightning_lab.rehearsal.processes import Rehearsal, RunFailedError, kill
from lightning_lab.rehearsal.result import compare, result_of
from lightning_lab.runs.checkpoint_io import read_checkpoint
from lightning_lab.runs.directory import RunDirectory
from lightning_lab.runs.errors import InputError

#: What the uninterrupted run is called.
UNINTERRUPTED = "uninterrupted"
#: What a killed process's partner may take to notice.
_PARTNER_S = 30.0
#: How many runs may be over before their kill comes, for each kill that is wanted.
_MISSES = 5


@dataclass(frozen=True)
class Trial:
    """One run that was killed, and continued.

    Args:
        name: The run's name.
        killed: Where it stood then; None if it was over already, and was not killed.
        resumed_step: The step that it continued from; None if the kill came after the last one.
        differences: In what the result differs from the uninterrupted run's; empty if in nothing.
        unreadable: Checkpoints that could not be read after the kill.
    """

    name: str
    killed: Beat | None
    resumed_step: int | None
    differences: tuple[str, ...]
    unreadable: tuple[str, ...]

    @property
    def repeated_steps(self) -> int:
        """How many steps were done twice."""
        return 0 if self.killed is None or self.resumed_step is None else self.killed.step - self.resumed_step


def rehearse_resume(
    rehearsal: Rehearsal, *, kills: int, seed: int, tell: Callable[[int, Trial], None] = lambda number, trial: None
) -> list[Trial]:
    """Train once without an interruption, then again and again with one at a random moment.

    Args:
        rehearsal: What is run.
        kills: How many times. A run that was over before its kill came does not count.
        seed: Of the random moments.
        tell: Called after each trial.

    Raises:
        RunFailedError: If the uninterrupted run fails, or the runs are over too soon to be killed.
    """
    rehearsal.finish(UNINTERRUPTED)
    truth = result_of(rehearsal.directory(UNINTERRUPTED))
    beats = read_beats(rehearsal.heartbeat(UNINTERRUPTED))
    chance = random.Random(seed)
    trials: list[Trial] = []
    for attempt in range((1 + _MISSES) * kills):
        # A moment of the uninterrupted run, any as likely as any other. It is found again by what the run has done by
        # then, not by the clock: a machine that others use is not always as fast.
        moment_s = chance.uniform(0, beats[-1].time_s)
        count = bisect(beats, moment_s, key=lambda beat: beat.time_s)
        after_s = moment_s - beats[count - 1].time_s
        trial = try_kill(rehearsal, f"killed-{attempt + 1}", truth, beats=count, after_s=after_s, chance=chance)
        if trial.killed is None and not trial.differences:
            continue
        trials.append(trial)
        tell(len(trials), trial)
        if len(trials) == kills:
            return trials
    raise RunFailedError(
        1, f"Only {len(trials)} of {kills} kills came in time: the run is too short. Let it train more."
    )


def try_kill(
    rehearsal: Rehearsal, name: str, truth: Mapping[str, Any], *, beats: int, after_s: float, chance: random.Random
) -> Trial:
    """Start a run, kill it, continue it, and compare its end with that of the uninterrupted one.

    Args:
        rehearsal: What is run.
        name: The run's name.
        truth: What :func:`result_of` gives for the uninterrupted run.
        beats: It is killed after so many beats of its heartbeat, at least 1,
        after_s: and so many seconds.
        chance: Decides which of several processes is killed: one, the other, or both.
    """
    run, beat = rehearsal.directory(name), rehearsal.heartbeat(name)
    hit, late = False, list[str]()
    with rehearsal.started(name) as processes:
        while count_beats(beat) < beats and all(process.is_alive() for process in processes):
            time.sleep(0.001)
        time.sleep(after_s)
        victims = processes if len(processes) == 1 else chance.choice([processes, processes[:1], processes[1:]])
        hit = count_beats(beat) >= beats and all(process.is_alive() for process in victims)
        if hit:
            kill(victims)
        late = rehearsal.wait(processes, _PARTNER_S if hit else rehearsal.patience_s)
    killed = read_beats(beat)[-1] if hit else None
    unreadable = _unreadable(run)
    beat.unlink(missing_ok=True)
    try:
        rehearsal.finish(name)
        differences = compare(truth, result_of(run))
    except (RunFailedError, InputError) as error:
        differences = (f"could not be continued: {error}",)
    resumed = read_beats(beat)  # none if it was over, and there was nothing to continue
    return Trial(
        name=name,
        killed=killed,
        resumed_step=resumed[0].first_step if resumed else None,
        differences=(*late, *differences),
        unreadable=unreadable,
    )


def _unreadable(run: RunDirectory) -> tuple[str, ...]:
    found = []
    for path in sorted(run.checkpoints.glob("*.ckpt")):
        try:
            read_checkpoint(path)
        except InputError as error:
            found.append(str(error))
    return tuple(found)
