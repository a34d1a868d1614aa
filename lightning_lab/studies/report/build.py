"""Write everything that is reported of a study into its folder. Free of torch and Dask."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_lab.runs.files import write_text
from lightning_lab.studies.cells import CellResult
from lightning_lab.studies.design import Study
from lightning_lab.studies.report.html import page
from lightning_lab.studies.report.markdown import document
from lightning_lab.studies.report.results import compare
from lightning_lab.studies.report.sections import Report, compose
from lightning_lab.studies.report.tables import arms_csv, cells_csv
from lightning_lab.studies.report.tensorboard import write_events

#: The files that are written, in the study's folder.
PAGE, MARKDOWN, CELLS, ARMS, EVENTS = "report.html", "report.md", "report.csv", "arms.csv", "report_tensorboard"


def write_report(study: Study, results: Sequence[CellResult], folder: Path) -> Path:
    """Write the report of a study, whatever of it is done.

    The statistics are computed once; page, Markdown and CSV are views of them.

    Args:
        study: The study.
        results: What is there of each of its cells.
        folder: The study's folder; it is made if need be. What an earlier report left in it is replaced.

    Returns:
        The page.

    Raises:
        InputError: If a file of a run is damaged.
        NotWrittenError: If the folder cannot be written.
    """
    report: Report = compose(compare(study, results), folder, command=_command())
    write_text(folder / CELLS, cells_csv(report.comparison))
    write_text(folder / ARMS, arms_csv(report.comparison))
    write_events(report.comparison, folder / EVENTS)
    write_text(folder / MARKDOWN, document(report))
    # Last, so that a page that can be opened has everything beside it.
    write_text(folder / PAGE, page(report))
    return folder / PAGE


def _command() -> list[str]:
    name = Path(sys.argv[0]).name
    # `python -m lightning_lab` is known by the file that it runs.
    return ["lightning-lab" if name in ("", "__main__.py") else name, *sys.argv[1:]]
