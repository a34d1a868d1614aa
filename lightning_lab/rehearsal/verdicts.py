"""The verdicts of ``doctor --resume`` and ``doctor --parity``: rehearse the user's own run, tell what came out.

Not in `doctor`, which must answer without torch, and not beside what they use, which prints nothing: tests and
benchmarks use it too.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lightning_lab.rehearsal.parity import ROUNDING, Difference, Kinds, differences, reasons
from lightning_lab.rehearsal.processes import Rehearsal, RunFailedError
from lightning_lab.rehearsal.result import compare, result_of
from lightning_lab.rehearsal.resume import UNINTERRUPTED, Trial, rehearse_resume
from lightning_lab.rehearsal.short import count_devices, shorten
from lightning_lab.runs.errors import InputError

#: Not a divisor of the steps of an epoch, so that saves fall anywhere in it.
_SAVE_EVERY = 7
#: How many of the values that differ are named.
_NAMED = 3
_NO_REASON = (
    "None of the known reasons (dropout, batch norm, kinks, coarse precision) is in this net: look for a loss or a "
    "metric that takes the mean over one process's part of the batch."
)


def resume_verdict(arguments: Sequence[str], *, kills: int, seed: int) -> int:
    """Kill a short version of a run at random, continue it, and compare its end with the uninterrupted one's.

    Args:
        arguments: What follows ``fit`` on the command line.
        kills: How many times.
        seed: Of the random moments.

    Returns:
        The exit code: 0 if all ends are identical, 1 if not, the run's own if it fails without a kill.

    Raises:
        InputError: If the arguments are wrong, or the run saves nothing that it could continue from.
    """
    checkpoint = shorten(arguments).config["checkpoint"]
    if checkpoint is None or not checkpoint["last"]:
        raise InputError("The run saves no last state to continue from: leave `checkpoint` and `checkpoint.last` on.")
    short = shorten(arguments, {"--checkpoint.every_n_steps": _SAVE_EVERY})
    processes = count_devices(short.config["trainer"])

    def examine(folder: Path) -> bool:
        rehearsal = Rehearsal(short.arguments, folder, processes=processes, threads=None, patience_s=None)

        def tell(number: int, trial: Trial) -> None:
            steps = rehearsal.directory(UNINTERRUPTED).read_summary()["steps"]
            print(f"  kill {number}: {_line(trial, steps)}", flush=True)

        trials = rehearse_resume(rehearsal, kills=kills, seed=seed, tell=tell)
        broken = [trial for trial in trials if trial.differences or trial.unreadable]
        if not broken:
            print(
                f"Identical, {kills} of {kills}: weights, optimiser, schedule and metrics are to the last bit those of "
                "the uninterrupted run."
            )
            return True
        rehearsal.finish("repeated")
        once, again = (result_of(rehearsal.directory(name)) for name in (UNINTERRUPTED, "repeated"))
        print(f"Differs, {len(broken)} of {kills}. {_why(compare(once, again))}")
        return False

    how_often = f"saved every {short.config['checkpoint']['every_n_steps']} steps"
    print(f"A short version of the run, {how_often}, is killed {_times(kills)} and continued.", flush=True)
    return _in_folder(examine)


def parity_verdict(arguments: Sequence[str]) -> int:
    """Train a short version of a run with one process and with two, and compare the metrics of all epochs.

    Args:
        arguments: What follows ``fit`` on the command line.

    Returns:
        The exit code: 0 if they are the same up to rounding, 1 if not, the run's own if it fails.

    Raises:
        InputError: If the arguments are wrong.
    """
    short = shorten(arguments)
    trainer = short.config["trainer"]
    on_gpus = torch.cuda.device_count() > 1 and trainer["accelerator"] in ("auto", "gpu", "cuda")
    place = ["--trainer.num_nodes=1", f"--trainer.accelerator={'gpu' if on_gpus else 'cpu'}"]
    own_strategy = trainer["strategy"] != "auto"  # with settings that two processes may need
    strategies = {1: ["--trainer.strategy=auto"], 2: [] if own_strategy else ["--trainer.strategy=ddp"]}

    def examine(folder: Path) -> bool:
        kinds = folder / "kinds.json"
        look = ["--trainer.callbacks+", f"{Kinds.__module__}.Kinds", "--trainer.callbacks.path", str(kinds)]
        runs = []
        for count in (1, 2):
            own = [*short.arguments, *place, f"--trainer.devices={count}", *strategies[count], *look]
            rehearsal = Rehearsal(own, folder, processes=count, threads=None, patience_s=None)
            rehearsal.finish(f"processes-{count}")
            runs.append(rehearsal.directory(f"processes-{count}"))
        found = differences(runs[0].read_metrics(), runs[1].read_metrics())
        last = found[-1].epoch
        print(_table([one for one in found if one.epoch == last]))
        worst = max(found, key=lambda one: one.relative)
        where = f"{worst.metric} in epoch {worst.epoch} of {last}"
        print(f"Largest relative difference in all epochs: {worst.relative:.1e} ({where}).")
        if worst.relative <= ROUNDING:
            print("The same up to rounding: the number of processes does not show.")
            return True
        known = reasons(json.loads(kinds.read_text()), str(runs[1].read_config()["trainer"]["precision"]))
        print(f"Differs: rounding alone would stay below {ROUNDING:.0e}.")
        print("\n".join(f"  {reason}" for reason in known or [_NO_REASON]))
        return False

    print(f"A short version of the run is trained on {'GPUs' if on_gpus else 'the CPU'} by one process and by two.")
    sys.stdout.flush()
    return _in_folder(examine)


def _in_folder(examine: Callable[[Path], bool]) -> int:
    folder = Path(tempfile.mkdtemp(prefix="lightning-lab-doctor-"))
    differs = False
    try:
        differs = not examine(folder)
    except RunFailedError as error:
        if error.code == 2:
            raise InputError(str(error)) from error
        print(error, file=sys.stderr)
        return error.code
    finally:  # Ctrl-C too
        if not differs:
            shutil.rmtree(folder, ignore_errors=True)
    if differs:
        print(f"The runs and what they printed are kept in {folder}.")
    return int(differs)


def _line(trial: Trial, steps: int) -> str:
    where = "" if trial.killed is None else f"after step {trial.killed.step} of {steps} ({trial.killed.phase}), "
    resumed = "nothing was left to do" if trial.resumed_step is None else f"continued from step {trial.resumed_step}"
    outcome = "identical"
    if trial.differences:
        more = len(trial.differences) - _NAMED
        outcome = f"differs in {', '.join(trial.differences[:_NAMED])}" + (f" and {more} more" if more > 0 else "")
    return f"{where}{resumed}: {outcome}" + "".join(f"; {unreadable}" for unreadable in trial.unreadable)


def _why(differences_without_kill: Sequence[str]) -> str:
    if differences_without_kill:
        return (
            f"Two uninterrupted runs differ as well ({differences_without_kill[0]} and others), so the kills are not "
            "to blame: something draws without the run's seed, or computes in an order that changes (on a GPU: "
            "--trainer.deterministic true)."
        )
    return (
        "Two uninterrupted runs are identical, so a kill loses something: look for a callback or module of your own "
        "that keeps a state outside of state_dict, or draws from a generator that is not seeded in each step."
    )


def _table(rows: Sequence[Difference]) -> str:
    lines = [f"  {'epoch ' + str(rows[0].epoch):<16} {'one process':>15} {'two processes':>15} {'difference':>12}"]
    for row in rows:
        values = ["none" if value is None else f"{value:.8g}" for value in (row.one, row.other)]
        lines.append(f"  {row.metric:<16} {values[0]:>15} {values[1]:>15} {row.relative:>12.1e}")
    return "\n".join(lines)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
