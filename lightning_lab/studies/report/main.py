"""``study report``: write what can be concluded of a study, whatever of it is done. Free of torch."""

from __future__ import annotations

from lightning_lab.studies.arguments import study_of, study_parser
from lightning_lab.studies.report.build import ARMS, CELLS, EVENTS, MARKDOWN, write_report


def main(args: list[str]) -> int:
    """Write the report of a study; print where it is.

    Args:
        args: What follows ``study report`` on the command line.

    Returns:
        The exit code.

    Raises:
        InputError: If the study file is wrong, or the record of a run is damaged.
    """
    parser = study_parser(
        "report",
        "Write tables, verdicts and curves of a study into its folder: report.html to read, report.md, report.csv "
        "(cells), arms.csv, and curves for TensorBoard. A study that is not complete has a report too.",
        "digits_dropout",
        "my_study.yaml --run.logs /data/logs",
    )
    page = write_report(*study_of(parser.parse_args(args)))
    print(f"report  {page}")
    print(f"tables  {', '.join(str(page.with_name(name)) for name in (MARKDOWN, CELLS, ARMS))}")
    print(f"curves  tensorboard --logdir {page.with_name(EVENTS)}")
    return 0
