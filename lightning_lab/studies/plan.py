"""``study plan``: the cells, what is done, what the rest will cost, and what the study can show. Free of torch."""

from __future__ import annotations

from collections import Counter

from lightning_lab.runs.errors import InputError
from lightning_lab.studies.arguments import command_of, study_of, study_parser
from lightning_lab.studies.calibration import Calibrated, read_calibration
from lightning_lab.studies.cells import CellResult
from lightning_lab.studies.design import Study
from lightning_lab.studies.forecast import expected_disk, expected_time, smallest_difference_shown
from lightning_lab.studies.orders import last_line, log_of, read_outcome

#: status: (mark in the table, word)
MARKS = {
    "completed": ("+", "done"),
    "stopped_early": ("+", "done"),
    "diverged": ("x", "diverged"),
    "failed": ("!", "failed"),
    "interrupted": ("~", "interrupted"),
    "killed": ("~", "interrupted"),
    "running": (">", "running"),
    "missing": (".", "missing"),
}


def main(args: list[str]) -> int:
    """Print the plan of a study.

    Args:
        args: What follows ``study plan`` on the command line.

    Returns:
        The exit code: 0, or 1 if an arm could not be calibrated.

    Raises:
        InputError: If the study file is wrong, or what was calibrated is damaged.
    """
    parser = study_parser(
        "plan",
        "Check a study file and print its cells, what is done, and what the rest will take.",
        "digits_dropout",
        "my_study.yaml --check",
        "my_study.yaml --calibrate    hours and disk before anything is run",
    )
    parser.add_argument("--check", action="store_true", help="build every arm's net and data too, which takes seconds")
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="train each arm for seconds in a scratch folder, and tell hours and disk by that; later plans remember it",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads of each cell, for --calibrate (default: 1)")
    options = parser.parse_args(args)
    if options.threads is not None and not options.calibrate:
        raise InputError(f"`threads` {options.threads} has no effect without --calibrate. Add that, or leave it out.")
    if options.threads is not None and options.threads < 1:
        raise InputError(f"`threads` must be at least 1, got {options.threads}.")
    study, results, folder = study_of(options)
    if options.check:
        from lightning_lab.studies.check import check_arms

        check_arms(study)
    failed = 0
    if options.calibrate:
        from lightning_lab.studies.calibrating import calibrate

        failed = calibrate(study, results, folder, threads=options.threads or 1)
    print(plan(study, results, read_calibration(study, results, folder)))
    over = all(result.done for result in results)
    print(f"\nnext: {command_of('report' if over else 'run', study, folder)}")
    return 1 if failed else 0


def plan(study: Study, results: list[CellResult], calibrated: Calibrated | None = None) -> str:
    """Word the plan.

    Args:
        study: The study.
        results: What its cells have come to.
        calibrated: What was measured on request.
    """
    unit = study.budget.unit if study.budget.amount > 1 else study.budget.unit.removesuffix("s")
    words = Counter(_word(result) for result in results)
    time, disk = expected_time(results, calibrated), expected_disk(results, calibrated)
    return "\n".join(
        [
            f"{study.name}: {len(study.arms)} arms x {len(study.seeds)} seeds = {len(results)} cells of "
            f"{study.budget.amount:g} {unit}, compared by {study.metric} ({study.goal})",
            "",
            *_table(study, results),
            *_failures(results),
            "",
            f"cells   {', '.join(f'{count} {word}' for word, count in words.items())}",
            f"time    {time}",
            f"disk    {disk}",
            *([f"        calibrated on {calibrated.where}"] if calibrated and "calibrated" in time + disk else []),
            f"shows   {smallest_difference_shown(study, results)}",
        ]
    )


def _table(study: Study, results: list[CellResult]) -> list[str]:
    marks = {(result.cell.arm, result.cell.seed): _mark(result) for result in results}
    names = {arm.name: f"{arm.name} *" if arm.name == study.reference else arm.name for arm in study.arms}
    width = max(len("seed"), *map(len, names.values()))
    lines = [f"{'seed':<{width}}  {' '.join(map(str, study.seeds))}"]
    for arm, name in names.items():
        row = " ".join(f"{marks[arm, seed]:>{len(str(seed))}}" for seed in study.seeds)
        done = sum(result.done for result in results if result.cell.arm == arm)
        lines.append(f"{name:<{width}}  {row}  {done} of {len(study.seeds)} done")
    shown = {_mark(result): _word(result) for result in results}
    return [*lines, "", "  ".join(f"{mark} {word}" for mark, word in shown.items()) + "  * the reference"]


def _failures(results: list[CellResult]) -> list[str]:
    """Say what each failed arm's first failed cell said last."""
    failed: dict[str, list[CellResult]] = {}
    for result in results:
        if result.status == "failed":
            failed.setdefault(result.cell.arm, []).append(result)
    lines = []
    for arm, cells in failed.items():
        run = cells[0].cell.directory
        outcome, log = read_outcome(run), log_of(run)
        how = f"{outcome.failure}: " if outcome is not None and outcome.failure else ""
        words = f"{last_line(log)} ({log})" if log.exists() else str(cells[0].summary.get("reason") or "no output")
        more = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
        lines.append(f"! {arm}  seed {cells[0].cell.seed}{more}  {how}{words}")
    return ["", *lines] if lines else []


def _mark(result: CellResult) -> str:
    return MARKS.get(result.status, ("?", ""))[0]


def _word(result: CellResult) -> str:
    return MARKS.get(result.status, ("", result.status))[1]
