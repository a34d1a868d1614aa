"""What ``study run`` shows: one live table on a terminal, drawn in place; lines in a file or a pipe. Free of torch."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import TextIO

from lightning_lab.runs.terminal import say
from lightning_lab.studies.cells import Cell, CellResult
from lightning_lab.studies.design import Study
from lightning_lab.studies.live_table import line_of, table_lines
from lightning_lab.studies.watching import Watch

#: Seconds between two drawings of the table, and between two lines that say that all is well.
REFRESH_S, HEARTBEAT_S = 1.0, 60.0
#: What a terminal that does not say its size is taken for.
_SIZE = os.terminal_size((80, 24))
# Control sequences of ECMA-48, which every terminal of today knows but those that call themselves dumb.
_UP, _LINE, _BELOW, _HIDE, _SHOW = "\x1b[{}A", "\x1b[2K", "\x1b[J", "\x1b[?25l", "\x1b[?25h"


class LiveTable:
    """Lines on a terminal that are drawn over again and again.

    Args:
        stream: The terminal.
        size: Asked for the terminal's size before each drawing: it may have been changed.
    """

    def __init__(self, stream: TextIO, size: Callable[[], os.terminal_size]) -> None:
        self._stream = stream
        self._size = size
        self._lines: Sequence[str] = ()

    def draw(self, lines: Sequence[str], *, above: str = "") -> None:
        """Draw.

        Args:
            lines: In the place of the lines before.
            above: What is to stay on the terminal, above the lines.
        """
        # A terminal that was made narrower has folded the lines that are longer now than it is wide. It remembers which
        # ones, unless they are cleared before they are drawn over.
        columns = max(1, self._size().columns)
        drawn = sum(max(1, -(-len(line) // columns)) for line in self._lines)
        up = _UP.format(drawn) if drawn else ""
        text = "".join(f"{_LINE}{line}\n" for line in (*([above] if above else []), *lines))
        with _signals_held_back():
            self._stream.write(f"{_HIDE}\r{up}{text}{_BELOW}")
            self._stream.flush()
            self._lines = tuple(lines)

    def leave(self) -> None:
        """Give the cursor back; the lines stay."""
        self._stream.write(_SHOW)
        self._stream.flush()


class Show:
    """Show how far a study is, while it runs.

    Args:
        study: The study.
        results: Its cells as they were found.
        folder: The study's folder.
        stream: Where to; None is the standard output.
        clock: Tells the time in seconds.
    """

    def __init__(
        self,
        study: Study,
        results: Sequence[CellResult],
        folder: Path,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._watch = Watch(study, results, folder, clock=clock)
        self._table = LiveTable(self._stream, self._size) if is_live(self._stream) else None
        self._clock = clock
        self._last = clock() - (REFRESH_S if self._table else 0.0)

    def __enter__(self) -> Show:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._table is not None:
            self._draw(asks_all=True)
            self._table.leave()

    def end(self, cell: Cell, line: str, *, failed: bool) -> None:
        """Show that a cell has ended.

        Args:
            cell: The cell.
            line: What became of it, for where there is no table.
            failed: Whether it has failed.
        """
        self._watch.end(cell, failed=failed)
        if self._table is None:
            say(line, self._stream)
            self._last = self._clock()

    def note(self, line: str) -> None:
        """Say something that is to stay: above the table, or on standard error where there is none.

        Args:
            line: What.
        """
        if self._table is None:
            say(line, sys.stderr)
        else:
            self._draw(above=line)

    def update(self) -> None:
        """Draw the table anew, or say how far the study is, if it is time to."""
        now = self._clock()
        if now - self._last < (HEARTBEAT_S if self._table is None else REFRESH_S):
            return
        self._last = now
        if self._table is None:
            say(line_of(self._watch.read()), self._stream)
        else:
            self._draw()

    def _draw(self, *, above: str = "", asks_all: bool = False) -> None:
        assert self._table is not None
        width, height = self._size()
        state = self._watch.read(asks_all=asks_all)
        self._table.draw(table_lines(state, width=width, height=height), above=above)

    def _size(self) -> os.terminal_size:
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return _SIZE
        return size if size.columns and size.lines else _SIZE


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Let Ctrl-C wait until what is drawn and what is known of it agree: the next drawing goes up that many lines."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    before = {one: signal.signal(one, lambda *call: came.append(call)) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        for number, frame in came[:1]:
            handler = before[signal.Signals(number)]
            if callable(handler):
                handler(number, frame)
            elif handler == signal.SIG_DFL:
                signal.raise_signal(number)


def is_live(stream: TextIO) -> bool:
    """Tell whether lines can be drawn over: on a terminal that knows how to move its cursor.

    Args:
        stream: Where to.
    """
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
