"""``study select`` and ``study test``: choose an arm on validation results, then open the test set for it."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing, nullcontext

from lightning_lab.runs.errors import InputError
from lightning_lab.runs.listing import flatten
from lightning_lab.studies import vault
from lightning_lab.studies.arguments import command_of, study_of, study_parser
from lightning_lab.studies.cells import CellResult
from lightning_lab.studies.design import Study
from lightning_lab.studies.dispatch import is_on_several
from lightning_lab.studies.estimate import estimate
from lightning_lab.studies.table import values_by_arm
from lightning_lab.studies.warm import WarmProcess


def select(args: list[str]) -> int:
    """Choose the arm that may be tested.

    Args:
        args: What follows ``study select`` on the command line.

    Returns:
        The exit code.

    Raises:
        InputError: If the study is wrong or not complete, or its test set was opened already.
    """
    parser = study_parser(
        "select", "Choose the arm with the best mean of the study's metric on the validation data.", "digits_dropout"
    )
    options = parser.parse_args(args)
    study, results, folder = study_of(options)
    selection = vault.select(folder, _values(study, results), metric=study.metric, goal=study.goal, seeds=study.seeds)
    width = max(map(len, selection["means"]))
    means = "\n".join(f"  {name:<{width}}  {value:.6g}" for name, value in selection["means"].items())
    print(f"Selected {selection['arm']}: {selection['rule']}.\n{means}")
    if selection["left_out"]:
        print(f"Left out, because not every seed has a result: {', '.join(selection['left_out'])}.")
    print(f"The choice is kept in {folder / vault.SELECTION}.")
    print(f"Test it, once: {command_of('test', study, folder)}")
    return 0


def test(args: list[str]) -> int:
    """Open the test set, once for each seed of the selected arm.

    Args:
        args: What follows ``study test`` on the command line.

    Returns:
        The exit code.

    Raises:
        InputError: If no arm was selected, or the test set was read before and no reason is given.
    """
    description = "Test the selected arm, once for each seed. Every reading of the test set is kept."
    parser = study_parser(
        "test", description, "digits_dropout", 'digits_dropout --again "the first reading was cut off"'
    )
    parser.add_argument("--again", metavar="REASON", help="why the test set is read once more")
    options = parser.parse_args(args)
    study, results, folder = study_of(options)
    selection = vault.check_open(folder, _values(study, results), again=options.again)
    found: dict[str, list[float]] = {}
    chosen = [result for result in results if result.cell.arm == selection["arm"]]
    several = False
    for result in chosen:
        config = result.cell.directory.read_config()
        several |= is_on_several(flatten(config))
        monitor = config["checkpoint"]["monitor"]
        if monitor != study.metric:
            raise InputError(
                f"The best checkpoints of {study.name} are best by {monitor}, and the study compares by {study.metric} "
                "now. Give the study another name to train anew."
            )
    starter: AbstractContextManager[WarmProcess | None] = nullcontext() if several else closing(WarmProcess())
    with starter as warm:
        for result in chosen:
            entry = {
                "arm": result.cell.arm,
                "seed": result.cell.seed,
                "cell": result.cell.directory.path.name,
                "selection": selection["validation_sha256"],
                "reason": options.again,
            }
            read = vault.read_once(folder, result.cell.directory.path, entry, warm)
            words = "  ".join(f"{name} {value:.6g}" for name, value in read.items())
            print(f"seed {result.cell.seed}  {words}", flush=True)
            for name, value in read.items():
                found.setdefault(name, []).append(value)
    for name, values in found.items():
        one = estimate(values)
        print(
            f"{name}: mean {one.mean:.6g}, sd {one.sd:.3g}, 95 % interval {one.low:.6g} to {one.high:.6g}, n = {one.n}"
        )
    readings = len(vault.read_ledger(folder))
    print(f"{readings} readings of the test set in {folder / vault.LEDGER}.")
    return 0


def _values(study: Study, results: list[CellResult]) -> dict[str, dict[int, float]]:
    # The best epoch of each run: it is its best checkpoint that is tested.
    return values_by_arm(results, study.metric, "selected", goal=study.goal)
