"""The verb ``runs fork``: a new run that goes on from where another one is, with settings of its own.

The new run is made whole on disk, as if it had been interrupted there, and continues like any other. What a changed
setting does to the state that it takes over is decided here, and said: nothing of it is ignored silently.
"""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from lightning_lab.cli import LabCLI
from lightning_lab.endings import end
from lightning_lab.messages import quieten
from lightning_lab.runs.arguments import Parser
from lightning_lab.runs.checkpoint_io import WholeFileCheckpointIO, check_fits, newest_sound, read_checkpoint
from lightning_lab.runs.directory import RunDirectory, previous
from lightning_lab.runs.errors import InputError
from lightning_lab.runs.files import write_bytes, write_json
from lightning_lab.runs.listing import changed_keys, differences, find_run, flatten
from lightning_lab.runs.lock import RunLock
from lightning_lab.runs.start import check_writable, open_record

_EXAMPLES = """examples:
  lightning-lab runs fork lenet5/first --trainer.max_epochs 40
  lightning-lab runs fork lenet5/first --model.optimizer.lr 0.001 --run.name slower

With another optimiser, its sums (momentum) start at zero; with other numbers for the same one they are kept. A changed
schedule stands where it would stand had it been there from the beginning. Other settings begin to act at the fork."""
#: Slots whose state belongs to their settings, with the class that keeps it.
_STATE_OF = {"early_stopping": "EarlyStopping", "gradient_clipping": "GradientClipping", "penalty": "Penalty"}
#: What decides how long a run is, and so where ``LinearDecay`` ends that was not told.
_LENGTH = (
    "trainer.max_epochs", "trainer.max_steps", "trainer.limit_train_batches", "trainer.accumulate_grad_batches",
    "data.batch_size",
)  # fmt: skip


def main(args: list[str]) -> int:
    """Make the new run and say how it starts.

    Args:
        args: What follows ``runs fork`` on the command line.

    Returns:
        The exit code.

    Raises:
        InputError: If there is no such run, it has no checkpoint, or its state does not go with the settings.
    """
    parser = Parser(
        prog="lightning-lab runs fork",
        usage="lightning-lab runs fork RUN [--KEY VALUE ...]",
        description="Make a run that goes on from where RUN is, with its configuration and the changes that are given.",
        epilog=_EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="<experiment>/<name>, a unique part of it, or a folder")
    parser.add_argument("--run.logs", dest="logs", default="logs", metavar="DIR", help="where runs are (default: logs)")
    parser.add_argument("--run.name", dest="name", metavar="NAME", help="the new run (default: RUN-fork-1 and so on)")
    options, changes = parser.parse_known_args(args)
    quieten()
    try:
        source = find_run(options.run, Path(options.logs))
        source.read_config()  # a damaged one is told by its name
        name = options.name or _free_name(source.path)
        place = [f"--config={source.config}", f"--run.logs={source.path.parent.parent}", f"--run.name={name}"]
        cli = LabCLI("fit", [*place, *changes], stem=source.path.parent.name, origin=source.path)
        cli.check_monitors()
        print(fork(source, cli))
    except BaseException as error:
        return end(error, None)
    return 0


def fork(source: RunDirectory, cli: LabCLI) -> str:
    """Make the new run.

    Args:
        source: The run to go on from.
        cli: The new run's command line, parsed: its configuration and its directory.

    Returns:
        What was done and how the new run starts, for the user.
    """
    run = cli.run_directory
    if not source.can_continue:
        raise InputError(f"The run {source.path} has no last checkpoint to go on from.")
    check_writable(run)
    if run.config.exists():
        raise InputError(f"There is a run {run.path} already. Choose another --run.name.")
    last = newest_sound(source.last)
    checkpoint = read_checkpoint(last)
    check_fits(checkpoint, cli.model.state_dict(), last)
    there, now = flatten(source.read_config()), flatten(yaml.safe_load(cli.record.config))
    changed = set(changed_keys(there, now))
    told = _adapt(checkpoint, changed, cli, source, str(now.get("lr_schedule.scheduler")))
    record = checkpoint["callbacks"]["RunRecord"]
    best = _best_of(record, source, cli) if not changed & {"checkpoint.monitor", "checkpoint.mode"} else None
    if best is None:
        record["best_from"] = len(record["rows"])
        _forget(checkpoint, "_Best")
        told.append("The best epoch is looked for from the fork on.")
    keys = {callback.state_key for callback in cli.trainer.callbacks}  # type: ignore[attr-defined]
    checkpoint["callbacks"] = {key: state for key, state in checkpoint["callbacks"].items() if key in keys}
    lock = RunLock(run.path)
    lock.acquire()
    try:
        WholeFileCheckpointIO().save_checkpoint(checkpoint, run.last)
        if best is not None:
            write_bytes(run.best, best)
        place = f"epoch {checkpoint['epoch'] + 1}, step {checkpoint['global_step']}"
        # Metrics and best epoch come from the checkpoint, as soon as the run goes on.
        known = {key: value for key, value in source.read_summary().items() if key in ("seed", "split")}
        counts = {"epochs": len(record["rows"]), "steps": checkpoint["global_step"]}
        forked = {"status": "interrupted", "reason": f"forked from {source.path} in {place}"}
        write_json(run.summary, {**forked, **counts, **known})
        open_record(run, cli.record.config, begins=False)
    finally:
        lock.release()
    changes = differences(there, now) or ["  nothing"]
    return "\n".join(
        [f"{run.path} goes on from {source.path} in {place}. Changed (there -> now):", *changes, *told, run.way_on]
    )


def _adapt(
    checkpoint: dict[str, Any], changed: set[str], cli: LabCLI, source: RunDirectory, scheduler: str
) -> list[str]:
    """Make the state fit the changed settings, and tell what became of it."""
    told = []
    done, most = len(checkpoint["callbacks"]["RunRecord"]["rows"]), cli.config.trainer.max_epochs
    if most is not None and 0 <= most < done:
        raise InputError(f"`trainer.max_epochs` {most} is behind the run {source.path}, which has done {done} epochs.")
    within = checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"].get("between_steps", False)
    moving = sorted(key for key in changed if key.startswith("data.") or key == "seed_everything")
    if within and moving:
        raise InputError(
            f"The run {source.path} stands within an epoch, and {moving[0]} decides what that epoch consists of. "
            "Continue it to the epoch's end first."
        )
    length = scheduler.endswith("LinearDecay") and not changed.isdisjoint(_LENGTH)
    if length or any(key.startswith(("model.optimizer", "lr_schedule")) for key in changed):
        if "model.optimizer" in changed:
            checkpoint["optimizer_states"] = []
            told.append("The optimiser is another one and starts without momentum.")
        else:
            groups = cli.model.configure_optimizers().state_dict()["param_groups"]
            checkpoint["optimizer_states"][0]["param_groups"] = groups
        checkpoint["lr_schedulers"] = []
        callbacks = checkpoint["callbacks"]
        callbacks["LRSchedule"] = {**callbacks.get("LRSchedule", {"rates": []}), "on_plateau": None, "catch_up": True}
        told.append("The learning rate's schedule stands where it would had it been this one from the beginning.")
    for slot, name in _STATE_OF.items():
        if any(key.startswith(f"{slot}.") for key in changed):
            _forget(checkpoint, name)
            told.append(f"`{slot}` starts anew.")
    return told


def _best_of(record: dict[str, Any], source: RunDirectory, cli: LabCLI) -> bytes | None:
    """Read the best checkpoint that the record knows of; the file may be older or newer than the record."""
    cli.record.load_state_dict(record)
    step = cli.record.best_row.get("step")
    for path in (source.best, previous(source.best)):
        with suppress(InputError):
            if read_checkpoint(path)["global_step"] == step:
                return path.read_bytes()
    return None


def _forget(checkpoint: dict[str, Any], name: str) -> None:
    # The key of a callback's state begins with its class.
    for key in [key for key in checkpoint["callbacks"] if key.startswith(name)]:
        del checkpoint["callbacks"][key]


def _free_name(path: Path) -> str:
    number = 1
    while path.with_name(f"{path.name}-fork-{number}").exists():
        number += 1
    return f"{path.name}-fork-{number}"
