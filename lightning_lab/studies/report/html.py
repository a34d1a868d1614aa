"""The report as one page: markup, style and script in one file, which asks for nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from lightning_lab.studies.report.blocks import Column
from lightning_lab.studies.report.sections import Report

_FOLDER = Path(__file__).parent
#: Where a long name may go on in the next line: before the next word, never within a number.
_PARTS = re.compile(r"(?<=[,._/×])(?=\s?[A-Za-z])")


def page(report: Report) -> str:
    """Write the page.

    Args:
        report: What it says.
    """
    text = _environment().from_string(_file("page.html"))
    return text.render(
        report=report,
        style=Markup(_file("page.css")),  # our own files
        script=Markup(_file("page.js")),
        groups=_groups,
        kind=lambda block: type(block).__name__,
        svg=Markup,  # escaped where it is drawn
        name=_name,
    )


@cache
def _file(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8").strip()


def _groups(columns: Sequence[Column]) -> list[tuple[str, list[Column]]]:
    return [(name, list(members)) for name, members in groupby(columns, key=lambda column: column.group)]


def _name(words: str) -> Markup:
    return Markup("<wbr>").join(escape(part) for part in _PARTS.split(words))


def _environment() -> Environment:
    # Everything that is not Markup is escaped.
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
