"""Replicates as a process of their own, as a warm process forks it: exit codes, signals, a log for each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_lab.__main__ import _signals
from lightning_lab.runs.errors import InputError, Stopped
from lightning_lab.runs.terminal import say
from lightning_lab.studies.replicates.fit import fit_replicates


def run(commands: Sequence[tuple[Sequence[str], Path]]) -> int:
    """Fit replicates; what one of them prints goes to its own log.

    Args:
        commands: The command line of each, ``fit`` and what follows it, and its log.

    Returns:
        The exit code: 0 if each ended as its record says, 2 if they cannot be trained as replicates, 130 SIGINT,
        143 SIGTERM.
    """
    try:
        with _signals(Stopped):
            codes = fit_replicates([arguments[1:] for arguments, _ in commands], logs=[log for _, log in commands])
    except InputError as error:
        say(f"error: {error}", sys.stderr)
        return 2
    except Stopped as stop:
        return 128 + stop.number
    except KeyboardInterrupt:
        return 130
    return next((code for code in codes if code in (130, 143)), 0)
