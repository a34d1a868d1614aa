"""What a report is made of: the page and the Markdown file are two ways to write the same blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

#: A verdict is told by its word and its sign, never by a colour alone.
MARKS = {
    "better": "▲", "worse": "▼", "equivalent": "≈", "not distinguishable": "○",
    "confirmed": "✓", "refuted": "✗", "open": "?",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        title: Its heading.
        kind: Numbers stand to the right; a verdict gets its mark and colour.
        group: A heading above its own, shared with its neighbours.
    """

    title: str
    kind: Literal["text", "number", "verdict", "code"] = "text"
    group: str = ""


@dataclass(frozen=True)
class Table:
    """A table; the first column heads the rows. One that `stacks` has long texts: a narrow screen gets lists."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    note: str = ""
    stacks: bool = False


@dataclass(frozen=True)
class Text:
    """A paragraph; `kind` sets a lead sentence or a warning apart."""

    words: str
    kind: Literal["plain", "lead", "warning"] = "plain"


@dataclass(frozen=True)
class Items:
    """A list with a heading."""

    title: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Counts:
    """Numbers with labels, side by side."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class ForestRow:
    """An arm in the forest plot: its strip is markup, in which what comes from outside is escaped."""

    name: str
    strip: str
    numbers: str
    verdict: str


@dataclass(frozen=True)
class Forest:
    """A forest plot.

    Args:
        rows: The arms.
        axis: Markup of the axis.
        left: What lies to the left of zero.
        right: What lies to the right of it.
        caption: What is to be seen.
    """

    rows: Sequence[ForestRow]
    axis: str
    left: str
    right: str
    caption: str


@dataclass(frozen=True)
class Curves:
    """Learning curves of the arms, with switches.

    Args:
        arms: Name, what is to be known of its runs, and drawings.
        caption: What is to be seen.
    """

    arms: Sequence[tuple[str, str, Sequence[str]]]
    caption: str


@dataclass(frozen=True)
class Output:
    """What a program printed."""

    title: str
    text: str


Block = Table | Text | Items | Counts | Forest | Curves | Output


@dataclass(frozen=True)
class Section:
    """Blocks under a heading."""

    id: str
    title: str
    blocks: Sequence[Block]


def marked(verdict: str) -> str:
    """Put the sign before a verdict's word.

    Example:
        >>> marked("better"), marked("")
        ('▲ better', '')
    """
    return f"{MARKS[verdict]} {verdict}" if verdict in MARKS else verdict
