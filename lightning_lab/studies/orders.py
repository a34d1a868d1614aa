"""What a worker is told of a cell, and what it tells of it. Free of torch."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path

from lightning_lab.runs.directory import FINISHED, RunDirectory

#: Exit codes of `fit`: it was stopped and can go on; it is over; no repetition would help.
PRE_EMPTED, OVER, BAD_INPUT = (130, 143), (0, 4), 2


@dataclass(frozen=True)
class Outcome:
    """How a cell ended.

    Args:
        code: The exit code of its last attempt; negative for a signal.
        attempts: How many there were.
        wall_s: Seconds over all attempts; of cells that were trained together, its share.
        worker: Where, for example ``host:1234``.
    """

    code: int
    attempts: int
    wall_s: float
    worker: str

    @property
    def failure(self) -> str | None:
        """Why there is no result; None if there is one, or if it was told to stop."""
        if self.code in (*OVER, *PRE_EMPTED):
            return None
        if self.code == BAD_INPUT:
            return "bad input"
        if self.code == -signal.SIGKILL:
            return "killed (signal 9), as by a system out of memory"
        return f"signal {-self.code}" if self.code < 0 else f"exit code {self.code}"


@dataclass(frozen=True)
class Order:
    """What a worker has to know of a cell.

    Args:
        arguments: What follows ``fit``.
        directory: The run's folder.
        folder: The folder that relative paths are meant from.
        study: The study's folder.
        warm: Whether it can be forked from a process that has imported everything; a run on several devices cannot.
    """

    arguments: tuple[str, ...]
    directory: str
    folder: str
    study: str
    warm: bool = True

    @property
    def log(self) -> Path:
        """What the cell prints."""
        return log_of(RunDirectory(Path(self.directory)))

    @property
    def together_log(self) -> Path:
        """What is printed of cells that are trained together, of which this is the first."""
        return self.log.with_suffix(".together.log")

    @property
    def outcome(self) -> Path:
        """The file that its outcome is kept in."""
        return self.log.with_suffix(".json")

    @property
    def stop(self) -> Path:
        """The file that tells all cells of the study to save and leave."""
        return Path(self.study) / "stop"

    @property
    def begins(self) -> bool:
        """Whether nothing of it was computed yet."""
        run = RunDirectory(Path(self.directory))
        return not (run.can_continue or run.best.exists() or run.metrics.exists() or self.is_finished)

    @property
    def is_finished(self) -> bool:
        """Whether its record says that it is over."""
        return RunDirectory(Path(self.directory)).read_summary().get("status") in FINISHED


def log_of(run: RunDirectory) -> Path:
    """Find what a cell of a study has printed."""
    return run.path.parent / "output" / f"{run.path.name}.log"


def last_line(log: Path) -> str:
    """Read the last words of a log."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return next((line for line in reversed(lines) if line.strip()), "it printed nothing")


def read_outcome(run: RunDirectory) -> Outcome | None:
    """Read how a cell of a study ended; None if it did not, or nothing readable says it."""
    try:
        return Outcome(**json.loads(log_of(run).with_suffix(".json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
