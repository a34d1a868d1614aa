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
            InputError: If the file is not valid JSON.
        """
        if not self.summary.exists():
            return {}
        return _mapping(self.summary, json.loads)

    def read_config(self) -> dict[str, Any]:
        """Read config.yaml.

        Raises:
            InputError: If the file is not a mapping in valid YAML.
        """
        return _mapping(self.config, yaml.safe_load)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl; an empty list if there is none yet.

        Raises:
            InputError: If a line is not valid JSON.
        """
        if not self.metrics.exists():
            return []
        try:
            return [json.loads(line) for line in self.metrics.read_text().splitlines() if line]
        except ValueError as error:
            raise InputError(f"{self.metrics} is damaged ({error}).") from error


def previous(checkpoint: Path) -> Path:
    """Name the generation before a checkpoint.

    Example:
        >>> previous(Path("last.ckpt")).name
        'last.previous.ckpt'
    """
    return checkpoint.with_name(f"{checkpoint.stem}.previous{checkpoint.suffix}")


def _mapping(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    try:
        content = parse(path.read_text())
    except (ValueError, yaml.YAMLError) as error:  # what is not UTF-8 is a ValueError too
        raise InputError(f"{path} is damaged ({error}). Delete it, or the run, and start again.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged (not a mapping). Delete it, or the run, and start again.")
    return content
