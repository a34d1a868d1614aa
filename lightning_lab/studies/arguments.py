"""What the actions of ``study`` have in common: the study file and the folder of all runs. Free of torch."""

from __future__ import annotations

from argparse import Namespace, RawDescriptionHelpFormatter
from pathlib import Path
from typing import NamedTuple

from lightning_lab import shipped
from lightning_lab.runs.arguments import Parser
from lightning_lab.studies.cells import CellResult, read_result
from lightning_lab.studies.design import Study, cells_of, read_study


class Known(NamedTuple):
    """A study and what it has come to.

    Args:
        study: What the file says.
        results: Its cells, done or not.
        folder: ``<logs>/studies/<name>``.
    """

    study: Study
    results: list[CellResult]
    folder: Path


def study_parser(action: str, description: str, *examples: str) -> Parser:
    """Make the parser of an action, which takes a study file.

    Args:
        action: For example ``plan``.
        description: What it does.
        examples: What may follow ``lightning-lab study ACTION``.
    """
    lines = "\n".join(f"  lightning-lab study {action} {example}" for example in examples)
    parser = Parser(
        prog=f"lightning-lab study {action}",
        description=description,
        epilog=f"examples:\n{lines}",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="a study file, or the name of a shipped one")
    parser.add_argument("--short", action="store_true", help="take the budget and seeds of the file's `short`")
    parser.add_argument("--run.logs", dest="logs", default="logs", metavar="DIR", help="where runs are (default: logs)")
    return parser


def command_of(action: str, study: Study, folder: Path) -> str:
    """Word the command that does something with a study.

    Args:
        action: For example ``report``.
        study: The study.
        folder: ``<logs>/studies/<name>``.
    """
    shelf = shipped.FOLDER / shipped.STUDIES
    name = study.file.relative_to(shelf).with_suffix("") if shelf in study.file.parents else study.file
    logs = folder.parent.parent
    where = "" if logs == Path("logs") else f" --run.logs {logs}"
    return f"lightning-lab study {action} {name}{' --short' if study.short else ''}{where}"


def study_of(options: Namespace) -> Known:
    """Read the study that a command line names.

    Args:
        options: What the parser of :func:`study_parser` gave.

    Raises:
        InputError: If the study file is wrong, or the record of a run is damaged.
    """
    study = read_study(shipped.find_study(options.file), short=options.short)
    logs = Path(options.logs)
    return Known(study, [read_result(cell) for cell in cells_of(study, logs)], logs / "studies" / study.name)
