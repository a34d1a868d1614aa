"""A study that runs, as lines of text that fit a terminal: a table of arms and seeds, and what runs. Free of torch."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_lab.studies.plan import MARKS
from lightning_lab.studies.table import MEASURED
from lightning_lab.studies.watching import CellState, StudyState

#: Where there is not enough room, the names of the arms are cut to one of these; to the last where nothing else helps.
_NAME_WIDTHS = (200, 32, 24, 16, 12)
#: Significant digits of the values in the table: the most that fit.
_DIGITS = (4, 3)
_GAP = 2
_ELLIPSIS = ".."


@dataclass(frozen=True)
class _Columns:
    """What stands right of an arm's name and mean: the heading, and lines for each arm."""

    heading: str
    lines: dict[str, list[str]]

    @property
    def width(self) -> int:
        return max(len(self.heading), *(len(line) for lines in self.lines.values() for line in lines))


def table_lines(state: StudyState, *, width: int, height: int) -> list[str]:
    """Draw a study that runs.

    A cell is its mark, as in `study plan`, and its metric so far; where the seeds do not fit like that, it is the mark
    alone, and where even these do not fit, they go on in the next line. Arms that do not fit are counted, those with
    cells that run are shown first. Below the table stand the cells that run, as many as there is room for.

    Args:
        state: How far the study is.
        width: Columns of the terminal.
        height: Lines of the terminal; the last one is left for the cursor.

    Returns:
        Less than `height` lines, each shorter than `width`: a terminal that is exactly full may scroll.
    """
    most = max(1, height - 1)
    head = [*_folded(_title(state), width - 1), *_folded(_counts(state), width - 1)]
    arms = list(dict.fromkeys(arm for arm, _ in state.cells))
    table = _table(state, arms, width - 1)
    # Title, counts and heading stand whatever there is; then come the arms, the cells that run, empty lines.
    room = most - len(head) - 1
    rows = _fitting_arms(state, table, room)
    room -= sum(map(len, rows))
    running = _fitting(_running(state), room)
    room -= len(running)
    gaps = [[""] if room > place else [] for place in range(2)]
    lines = [*head, *gaps[0], table.heading, *(line for row in rows for line in row)]
    lines += [*gaps[1], *running] if running else []
    return [line[: width - 1].rstrip() for line in lines[:most]]


def line_of(state: StudyState) -> str:
    """Say in one line how far a study is, for a log file."""
    left = "" if state.left_s is None else f"  left {duration(state.left_s)}"
    counts = ", ".join(f"{count} {word}" for (_, word), count in _statuses(state).items())
    return f"{state.name}: {counts} of {len(state.cells)} cells  {duration(state.elapsed_s)}{left}"


def _title(state: StudyState) -> list[str]:
    left = "" if not state.left_s else f", about {duration(state.left_s)} left"  # nothing where all is over
    return [f"{state.name}  {state.metric}", f"{duration(state.elapsed_s)} so far{left}"]


def _counts(state: StudyState) -> list[str]:
    """Count the cells by status, which explains the marks by the way."""
    return [*(f"{mark} {count} {word}" for (mark, word), count in _statuses(state).items()), "* the reference"]


def _statuses(state: StudyState) -> dict[tuple[str, str], int]:
    counts = Counter((_mark(cell), _word(cell)) for cell in state.cells.values())
    order = [*dict.fromkeys(MARKS.values())]
    return {
        status: counts[status] for status in sorted(counts, key=lambda one: order.index(one) if one in order else 99)
    }


def _folded(items: Sequence[str], width: int) -> list[str]:
    lines = [items[0]]
    for item in items[1:]:
        if len(lines[-1]) + _GAP + len(item) <= width:
            lines[-1] += " " * _GAP + item
        else:
            lines.append(item)
    return lines


def _fitting(lines: list[str], room: int) -> list[str]:
    if len(lines) <= room:
        return lines
    return [*lines[: room - 1], f"  and {len(lines) - room + 1} more that run"] if room > 1 else []


def _table(state: StudyState, arms: Sequence[str], width: int) -> _Columns:
    """Choose the fullest way of showing the cells that fits."""
    for columns in (*(_values(state, arms, digits) for digits in _DIGITS), _marks(state, arms), _close(state, arms)):
        for most in _NAME_WIDTHS[:-1]:
            full = _with_names(state, columns, most)
            if full.width <= width:
                return full
    beside = _with_names(state, _Columns("", {arm: [""] for arm in arms}), _NAME_WIDTHS[-1]).width
    return _with_names(state, _close(state, arms, max(1, width - beside)), _NAME_WIDTHS[-1])


def _with_names(state: StudyState, columns: _Columns, most: int) -> _Columns:
    names = {arm: _cut(arm, most - 2) + (" *" if arm == state.reference else "") for arm in columns.lines}
    values = {arm: _done_values(state, arm) for arm in columns.lines}
    counts = {arm: str(len(of_arm)) for arm, of_arm in values.items()}
    means = {arm: _number(statistics.fmean(of_arm), 4) if of_arm else "-" for arm, of_arm in values.items()}
    name = max(map(len, names.values()))
    count = max(map(len, counts.values()))
    mean = max(len("mean"), *map(len, means.values()))
    before = name + _GAP + count + _GAP + mean + _GAP
    lines = {
        arm: [
            f"{names[arm]:<{name}}  {counts[arm]:>{count}}  {means[arm]:>{mean}}  {first}",
            *(" " * before + line for line in others),
        ]
        for arm, (first, *others) in columns.lines.items()
    }
    return _Columns(f"{'':<{name}}  {'n':>{count}}  {'mean':>{mean}}  {columns.heading}", lines)


def _values(state: StudyState, arms: Sequence[str], digits: int) -> _Columns:
    seeds = _seeds(state)
    text = {
        # The mark behind the number: a + in front of it would be read as a sign.
        key: ("" if cell.value is None else _number(cell.value, digits)) + _mark(cell)
        for key, cell in state.cells.items()
    }
    # Wide enough for an accuracy from the beginning, so that the table does not change its shape with the first value.
    width = max(digits + 3, *map(len, text.values()), *(len(str(seed)) for seed in seeds))
    lines = {arm: [" ".join(f"{text[arm, seed]:>{width}}" for seed in seeds)] for arm in arms}
    return _Columns(" ".join(f"{seed:>{width}}" for seed in seeds), lines)


def _marks(state: StudyState, arms: Sequence[str]) -> _Columns:
    seeds = _seeds(state)
    lines = {arm: [" ".join(f"{_mark(state.cells[arm, seed]):>{len(str(seed))}}" for seed in seeds)] for arm in arms}
    return _Columns(" ".join(map(str, seeds)), lines)


def _close(state: StudyState, arms: Sequence[str], most: int | None = None) -> _Columns:
    seeds = _seeds(state)
    heading = f"{len(seeds)} seeds, {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
    lines = {}
    if most is not None and most > 10:
        most -= most % 10  # lines of whole tens can be counted
    for arm in arms:
        marks = "".join(_mark(state.cells[arm, seed]) for seed in seeds)
        step = len(marks) if most is None else most
        lines[arm] = [marks[start : start + step] for start in range(0, len(marks), step)]
    return _Columns(heading, lines)


def _fitting_arms(state: StudyState, table: _Columns, room: int) -> list[list[str]]:
    if sum(map(len, table.lines.values())) <= room:
        return list(table.lines.values())
    busy = {cell.arm for cell in state.cells.values() if cell.status == "running"}
    shown: set[str] = set()
    room -= 1  # for the last line
    for arm in sorted(table.lines, key=lambda arm: arm not in busy):  # stable: else in the study's order
        if len(table.lines[arm]) <= room:
            room -= len(table.lines[arm])
            shown.add(arm)
    hidden = [cell for cell in state.cells.values() if cell.arm not in shown]
    done = sum(cell.status in MEASURED for cell in hidden)
    arms = len(table.lines) - len(shown)
    more = f"{arms} more arm{'s' if arms > 1 else ''}: {done} of {len(hidden)} done"
    return [*(lines for arm, lines in table.lines.items() if arm in shown), [more]]


def _running(state: StudyState) -> list[str]:
    cells = [cell for cell in state.cells.values() if cell.status == "running"]
    width = max((len(_cut(cell.arm, _NAME_WIDTHS[1])) for cell in cells), default=0)
    return [_run(cell, width) for cell in cells]


def _run(cell: CellState, width: int) -> str:
    value = "" if cell.value is None else f"  {_number(cell.value, 4)}"
    unit = {"epochs": "epoch", "steps": "step", "seconds": "second"}[cell.unit]
    arm = _cut(cell.arm, _NAME_WIDTHS[1])
    return f"{_mark(cell)} {arm:<{width}}  seed {cell.seed}  {unit} {cell.reached:.0f}/{cell.total:.0f}{value}"


def _done_values(state: StudyState, arm: str) -> list[float]:
    cells = (cell for cell in state.cells.values() if cell.arm == arm and cell.status in MEASURED)
    return [cell.value for cell in cells if cell.value is not None]


def _seeds(state: StudyState) -> list[int]:
    return list(dict.fromkeys(seed for _, seed in state.cells))


def _mark(cell: CellState) -> str:
    return MARKS.get(cell.status, ("?", ""))[0]


def _word(cell: CellState) -> str:
    return MARKS.get(cell.status, ("", cell.status))[1]


def _cut(text: str, most: int) -> str:
    """Leave out the middle: what tells two arms apart stands at the end as often as at the beginning."""
    if len(text) <= most:
        return text
    kept = most - len(_ELLIPSIS)
    return f"{text[: kept - kept // 2]}{_ELLIPSIS}{text[len(text) - kept // 2 :]}"


def _number(value: float, digits: int) -> str:
    return f"{value:#.{digits}g}".rstrip(".")


def duration(seconds: float) -> str:
    """Word a time.

    Example:
        >>> duration(59.6), duration(150), duration(4000)
        ('60 s', '2 min 30 s', '1 h 07 min')
    """
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
