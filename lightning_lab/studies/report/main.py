"""``study report``: write what can be concluded of a study, whatever of it is done. Free of torch."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from pathlib import Path

from lightning_lab import shipped
from lightning_lab.runs.arguments import Parser
from lightning_lab.studies.cells import read_result
from lightning_lab.studies.design import cells_of, read_study
from lightning_lab.studies.report.build import ARMS, CELLS, EVENTS, MARKDOWN, write_report

_EXAMPLES = """examples:
  lightning-lab study report digits_dropout
  lightning-lab study report my_study.yaml --run.logs /data/logs"""


def main(args: list[str]) -> int:
    """Write the report of a study; print where it is.

    Args:
        args: What follows ``study report`` on the command line.

    Returns:
        The exit code.

    Raises:
        InputError: If the study file is wrong, or the record of a run is damaged.
    """
    parser = Parser(
        prog="lightning-lab study report",
        description="Write tables, verdicts and curves of a study into its folder: report.html to read, report.md, "
        "report.csv (cells), arms.csv, and curves for TensorBoard. A study that is not complete has a report too.",
        epilog=_EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="a study file, or the name of a shipped one")
    parser.add_argument("--run.logs", dest="logs", default="logs", metavar="DIR", help="where runs are (default: logs)")
    options = parser.parse_args(args)
    study = read_study(shipped.find_study(options.file))
    logs = Path(options.logs)
    page = write_report(study, [read_result(cell) for cell in cells_of(study, logs)], logs / "studies" / study.name)
    print(f"report  {page}")
    print(f"tables  {', '.join(str(page.with_name(name)) for name in (MARKDOWN, CELLS, ARMS))}")
    print(f"curves  tensorboard --logdir {page.with_name(EVENTS)}")
    return 0
