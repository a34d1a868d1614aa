"""Decide what a ``fit`` does with its run directory: begin, continue, leave a finished run alone, or refuse."""

from __future__ import annotations

import json
import os
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Literal

import yaml

from lightning_lab.runs.directory import FINISHED, RunDirectory
from lightning_lab.runs.environment import describe_environment
from lightning_lab.runs.errors import InputError
from lightning_lab.runs.files import write_json, write_text
from lightning_lab.runs.listing import changed_keys, differences, flatten
from lightning_lab.runs.lock import LOCK, OWNER

#: Set for the processes that the first one of a run starts, so that all of them use one directory.
RUN_VARIABLE = "LIGHTNING_LAB_RUN"
#: Keys that say how a run is shown, not what it computes; a change of them does not stop a run from continuing.
_COSMETIC = ("progress",)
#: What a run writes into its folder.
_OWN = (
    "config.yaml", "environment.json", "metrics.jsonl", "summary.json", "traceback.txt", "predictions.csv",
    "confusion_matrix.png", "misclassified.png", "checkpoints", "train", "val", "val_rank*", "test", "events.out.*",
)  # fmt: skip
_TEST_LIMIT = "trainer.limit_test_batches"
#: Keys of the data that say where they lie and how they are read, not what they are.
_WHERE = ("data.root", "data.path", "data.download", "data.url", "data.batch_size", "data.predict_folder")


def choose_directory(
    *, logs: str | None, experiment: str | None, name: str | None, origin: Path | None, stem: str, seed: int
) -> RunDirectory:
    """Find the directory of a run.

    Args:
        logs: ``--run.logs``.
        experiment: ``--run.experiment``.
        name: ``--run.name``.
        origin: The run that the configuration was read from, or None.
        stem: What the experiment is called by default: the configuration's file name.
        seed: The run's seed, part of the default name.

    Raises:
        InputError: If a name is no plain folder name, or if several processes were started from outside and no name
            says which run they share.
    """
    if os.environ.get(RUN_VARIABLE):
        return RunDirectory(Path(os.environ[RUN_VARIABLE]))
    if origin is not None:
        logs, experiment, name = (
            logs or str(origin.parent.parent),
            experiment or origin.parent.name,
            name or (None if logs or experiment else origin.name),
        )
    if logs is not None and "://" in logs:
        raise InputError(f"`run.logs` must be a local folder, got {logs}. Copy the runs there when they are done.")
    for option, value in (("run.experiment", experiment), ("run.name", name)):
        _check_name(option, value)
    if name is None:
        name = _default_name(seed)
    return RunDirectory(Path(logs or "logs") / (experiment or stem) / name)


def decide(run: RunDirectory, config: str, *, overwrite: bool) -> Literal["begin", "continue", "finished"]:
    """Look at the directory, whose lock is held, and decide; nothing is changed yet.

    Args:
        run: The directory.
        config: The resolved configuration as YAML.
        overwrite: Whether what is there may be deleted.

    Returns:
        ``begin``, ``continue`` (from last.ckpt) or ``finished`` (there is nothing to do).

    Raises:
        InputError: If the directory belongs to another configuration, or to none.
    """
    if not run.config.exists():
        if run.can_continue or run.best.exists():
            raise InputError(
                f"{run.path} holds checkpoints but no config.yaml that says what they are of. Put it back, or choose "
                "another --run.name."
            )
        return "begin"
    if overwrite:
        return "begin"
    finished = run.read_summary().get("status") in FINISHED
    if not (finished or run.can_continue or run.best.exists() or run.read_metrics()):
        return "begin"  # it was ended before anything was computed
    changed = _changes(run, config)
    if changed:
        raise InputError(
            f"The run {run.path} was made with another configuration (there -> now):\n"
            + "\n".join(changed)
            + "\nChoose another --run.name, let a new run go on from where this one is (`lightning-lab runs fork "
            f"{run.path} --KEY VALUE`), or start over with --run.overwrite true."
        )
    if finished:
        return "finished"
    # Without a last checkpoint the same is computed again from the beginning.
    return "continue" if run.can_continue else "begin"


def check_writable(run: RunDirectory) -> None:
    """Refuse a place where no run can be written, before anything is made there.

    Raises:
        InputError: If the directory is a file or cannot be written.
    """
    if run.path.exists() and not run.path.is_dir():
        raise InputError(f"The run directory {run.path} is a file. Choose another --run.name.")
    existing = next(folder for folder in (run.path, *run.path.absolute().parents) if folder.exists())
    if not existing.is_dir():
        raise InputError(f"The run cannot be written: {existing} is a file. Choose another --run.logs.")
    if not os.access(existing, os.W_OK):
        raise InputError(f"The run cannot be written: {existing} is not writable. Choose another --run.logs.")


def changed_measure(run: RunDirectory, config: str) -> list[str]:
    """Name the settings that decide what a test measures, and that are not those of the run.

    Args:
        run: The run that is tested.
        config: The configuration of the test, as YAML.
    """
    there, now = flatten(run.read_config()), flatten(yaml.safe_load(config))
    changed = [key for key in changed_keys(there, now) if key not in _WHERE]
    return [key for key in changed if key.split(".")[0] in ("data", "model") or key == _TEST_LIMIT]


def open_record(run: RunDirectory, config: str, *, begins: bool, overwrite: bool = False) -> None:
    """Make the directory with config.yaml and environment.json.

    Args:
        run: The directory.
        config: The resolved configuration as YAML.
        begins: Delete what an earlier run has written there. Only in a folder with a run's config.yaml is anything
            ever deleted.
        overwrite: Delete everything there.
    """
    if begins and run.config.exists():
        _empty(run, everything=overwrite)
    write_text(run.config, config)
    write_json(run.environment, describe_environment())


def origin_of(config: Path) -> Path | None:
    """Tell which run a configuration is the record of, if it is one's ``config.yaml``."""
    folder = config.absolute().parent
    is_record = config.name == "config.yaml" and (folder / "environment.json").exists()
    return folder if is_record else None


def written_by_newer(origin: Path | None, version: str) -> str | None:
    """Tell the version that wrote a run's configuration, if it is newer than this one.

    Args:
        origin: The run that a configuration is the record of, or None.
        version: This one.
    """
    if origin is None:
        return None
    try:
        other = json.loads((origin / "environment.json").read_text())["lightning_lab"]
        return str(other) if _numbers(other) > _numbers(version) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it says nothing


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:3]]


def _check_name(option: str, value: str | None) -> None:
    # A path here could lead out of the logs, or make one run the folder of others, which overwriting it would delete.
    if value is not None and (value != Path(value).name or value in ("", ".", "..")):
        raise InputError(f"`{option}` must be a plain folder name, got {value!r}. Where runs go is --run.logs.")


def _empty(run: RunDirectory, *, everything: bool) -> None:
    # What says that the run is finished first, then the checkpoints, config.yaml last: a kill in between leaves no
    # checkpoint that a later run, which finds a configuration of its own, could take for its own.
    def order(path: Path) -> int:
        return {run.summary: 0, run.checkpoints: 1, run.config: 3}.get(path, 2)

    for path in sorted(run.path.iterdir(), key=order):
        if path.name in (LOCK, OWNER) or not (everything or any(path.match(name) for name in _OWN)):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _default_name(seed: int) -> str:
    for variable in ("SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"):
        shared = os.environ.get(variable, "none")
        if shared != "none":
            return f"{variable.split('_')[0].lower()}-{shared}_seed{seed}"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("Several processes were started from outside: name the run they share with --run.name.")
    # To the millisecond: a loop in a shell starts several runs in one second.
    return f"{datetime.now().strftime('%Y-%m-%d_%H-%M-%S-%f')[:-3]}_seed{seed}"


def _changes(run: RunDirectory, config: str) -> list[str]:
    there, now = flatten(run.read_config()), flatten(yaml.safe_load(config))
    for settings in (there, now):
        for key in [key for key in settings if key.split(".")[0] in _COSMETIC]:
            del settings[key]
    return differences(there, now)
