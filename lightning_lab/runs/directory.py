"""Where a run lives: ``<logs>/<experiment>/<name>/`` and the names of the files in it. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lightning_lab.runs.errors import InputError

#: A run in one of these is over: the same command does nothing more.
FINISHED = ("completed", "stopped_early", "diverged")


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run.

    Args:
        path: The folder of the run.

    Example:
        >>> RunDirectory(Path("logs/lenet5/first")).best.as_posix()
        'logs/lenet5/first/checkpoints/best.ckpt'
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration, reusable as ``--config``."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """What the run ran on and from."""
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """One JSON object per epoch: the truth that every picture is a view of."""
        return self.path / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        """Status, reason, best and last metrics."""
        return self.path / "summary.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """The checkpoint with the best monitored metric."""
        return self.checkpoints / "best.ckpt"

    @property
    def last(self) -> Path:
        """The checkpoint of the last epoch, the one a run continues from."""
        return self.checkpoints / "last.ckpt"

    @property
    def can_continue(self) -> bool:
        """Whether there is a checkpoint to continue from, be it the one before the last."""
        return self.last.exists() or previous(self.last).exists()

    @property
    def way_on(self) -> str:
        """How a run that was ended goes on, in one sentence."""
        # Not "the same command": without --run.name that one begins a run of its own.
        if not self.can_continue:
            return "Nothing was saved yet."
        return f"Continue it with: lightning-lab fit --config {self.config}"

    @property
    def traceback(self) -> Path:
        """The traceback of a failed run."""
        return self.path / "traceback.txt"

    def read_summary(self) -> dict[str, Any]:
        """Read summary.json; an empty mapping if there is none yet.

        Raises:
            InputError: If the file is not the JSON that a run writes.
        """
        if not self.summary.exists():
            return {}
        if self.can_continue:
            remedy = (
                f"Move it aside, and `lightning-lab fit --config {self.config}` writes it anew from the last "
                "checkpoint; the test result in it is lost, and the data are not compared with its split."
            )
        else:
            remedy = (
                "Restore it from a copy, or start over with `lightning-lab fit --config "
                f"{self.config} --run.overwrite true`: there is no last checkpoint to write it anew from."
            )
        summary = _mapping(self.summary, json.loads, remedy)
        fault = _fault(summary)
        if fault is not None:
            raise _damaged(self.summary, fault, remedy)
        return summary

    def read_config(self) -> dict[str, Any]:
        """Read config.yaml.

        Raises:
            InputError: If the file is not a mapping in valid YAML.
        """
        return _mapping(self.config, yaml.safe_load, "Restore it from a copy, or start over with another --run.name.")

    def read_environment(self) -> dict[str, Any]:
        """Read environment.json; an empty mapping if there is none.

        Raises:
            InputError: If the file is not a mapping in valid JSON.
        """
        if not self.environment.exists():
            return {}
        # Not "delete it": without the file, its config.yaml is no longer known as the record of a run.
        return _mapping(
            self.environment, json.loads, "Leave it: a run that continues writes it anew, and no result depends on it."
        )

    def read_metrics(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl; an empty list if there is none yet.

        Raises:
            InputError: If a line is not a JSON object.
        """
        if not self.metrics.exists():
            return []
        rows = []
        for number, line in enumerate(_bytes(self.metrics).splitlines(), start=1):
            if not line:
                continue
            fault = "not a JSON object"
            try:
                row = json.loads(line.decode())
            except ValueError as error:  # what is not UTF-8 is a ValueError too
                row, fault = None, _one_line(error)
            if not isinstance(row, dict):
                raise _damaged(
                    self.metrics,
                    f"line {number}: {fault}",
                    "Mend or remove that line; an unfinished run writes the file anew when it continues "
                    f"(`lightning-lab fit --config {self.config}`).",
                )
            rows.append(row)
        return rows


def previous(checkpoint: Path) -> Path:
    """Name the generation before a checkpoint.

    Example:
        >>> previous(Path("last.ckpt")).name
        'last.previous.ckpt'
    """
    return checkpoint.with_name(f"{checkpoint.stem}.previous{checkpoint.suffix}")


def _mapping(path: Path, parse: Callable[[str], Any], remedy: str) -> dict[str, Any]:
    data = _bytes(path)
    try:
        content = parse(data.decode())
    except (ValueError, yaml.YAMLError) as error:  # what is not UTF-8 is a ValueError too
        raise _damaged(path, _one_line(error), remedy) from error
    if not isinstance(content, dict):
        raise _damaged(path, "not a mapping", remedy)
    return content


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Put it back, or give yourself access.") from error


def _damaged(path: Path, fault: str, remedy: str) -> InputError:
    return InputError(f"{path} is damaged ({fault}). {remedy}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())  # YAML's errors have several


def _fault(summary: dict[str, Any]) -> str | None:
    """Tell what in a summary no run has written: those who read it rely on these."""
    for key in ("last", "test", "examples"):
        if not isinstance(summary.get(key, {}), dict):
            return f"`{key}` is not a mapping"
    best = summary.get("best")  # null without a finite value
    if best is None:
        return None
    if not isinstance(best, dict):
        return "`best` is not a mapping"
    for key, kind in (("metric", str), ("value", int | float), ("epoch", int)):
        if not isinstance(best.get(key), kind):
            return f"`best` has no {key}"
    return None
