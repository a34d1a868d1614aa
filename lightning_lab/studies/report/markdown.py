"""The report as Markdown: the same words and tables as on the page, without its drawings."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lightning_lab.studies.report.blocks import Block, Column, Counts, Items, Output, Table, Text
from lightning_lab.studies.report.sections import Report

#: What Markdown would take for markup; a line break ends a row.
_SPECIAL = re.compile(r"([\\`*_<>|\[\]])")


def document(report: Report) -> str:
    """Write the report.

    Args:
        report: What it says.
    """
    lines = [f"# {_plain(report.title)}", ""]
    for section in report.sections:
        lines += [f"## {_plain(section.title)}", ""]
        for block in section.blocks:
            lines += [*_block(block), ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Text(words, kind):
            mark = {"plain": "", "lead": "**", "warning": "**Warning:** "}[kind]
            yield f"{mark}{_plain(words)}{'**' if kind == 'lead' else ''}"
        case Items(title, items):
            yield f"{_plain(title)}:\n"
            yield from (f"* {_plain(item)}" for item in items)
        case Counts(pairs):
            yield ", ".join(f"{number} {_plain(label)}" for label, number in pairs) + "."
        case Table():
            yield from _table(block)
        case Output(title, text):
            yield f"{_plain(title)}\n"
            # Indented: no content can end such a block.
            yield from (f"    {line}" for line in text.splitlines())
        case _:
            yield "The drawings are in report.html."


def _table(table: Table) -> Iterator[str]:
    yield f"**{_plain(table.caption)}**\n"
    yield f"| {' | '.join(_plain(_title(column)) for column in table.columns)} |"
    yield f"| {' | '.join('---:' if column.kind == 'number' else '---' for column in table.columns)} |"
    yield from (f"| {' | '.join(map(_plain, row))} |" for row in table.rows)
    if table.note:
        yield f"\n{_plain(table.note)}"


def _title(column: Column) -> str:
    return f"{column.title}, {column.group}" if column.group else column.title


def _plain(words: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(words.split()))
