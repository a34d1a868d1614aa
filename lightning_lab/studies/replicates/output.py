"""What one of several runs in a process prints, in a log of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

Printing = Callable[[], AbstractContextManager[None]]


@contextmanager
def outputs(
    arguments: Sequence[Sequence[str]], logs: Sequence[Path] | None
) -> Iterator[tuple[list[Printing], Printing]]:
    """Divide what several runs print.

    Args:
        arguments: What follows ``fit`` on the command line of each.
        logs: Where each prints what is its own; None lets all of them print as one.

    Yields:
        For each run, what makes the output its own and lets its record name its own command line; and what makes it
        that of all, wherever it goes now.
    """
    if logs is None:
        yield [nullcontext] * len(arguments), nullcontext
        return
    common = os.dup(1)
    try:
        yield [partial(_own, one, log) for one, log in zip(arguments, logs, strict=True)], partial(_to, common)
    finally:
        os.close(common)


@contextmanager
def _own(arguments: Sequence[str], log: Path) -> Iterator[None]:
    command, sys.argv = sys.argv, ["lightning-lab", "fit", *arguments]
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        with _to(file):
            yield
    finally:
        os.close(file)
        sys.argv = command


@contextmanager
def _to(file: int) -> Iterator[None]:
    # By the descriptors, so that what libraries print goes there too.
    _flush()
    before = [os.dup(number) for number in (1, 2)]
    for number in (1, 2):
        os.dup2(file, number)
    try:
        yield
    finally:
        _flush()
        for number, kept in zip((1, 2), before, strict=True):
            os.dup2(kept, number)
            os.close(kept)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
