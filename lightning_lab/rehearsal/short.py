"""The short version of a user's run, which a rehearsal can repeat."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple

import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from lightning_lab.runs.errors import InputError

#: Long enough for validations, saves within an epoch and a change of epochs; short enough to be done in seconds.
_SHORT = {"--trainer.max_epochs": 2, "--trainer.limit_train_batches": 20, "--trainer.limit_val_batches": 3}
#: A test would open the test data, and measure nothing that is compared.
_ALWAYS = {"--then": "null"}


class Short(NamedTuple):
    """A short run.

    Args:
        arguments: What follows ``fit``.
        config: The configuration that they make.
    """

    arguments: list[str]
    config: dict[str, Any]


def shorten(arguments: Sequence[str], more: Mapping[str, object] | None = None) -> Short:
    """Make a run short, where the user does not say how long it is to be.

    Args:
        arguments: What the user would let follow ``fit``.
        more: Further keys with their values, for which the same holds.

    Raises:
        InputError: If ``fit`` refuses the arguments, or they leave no run to look at.
    """
    given = {argument.partition("=")[0] for argument in arguments}
    keys = {**_SHORT, **(more or {})}
    short = [*arguments, *(f"{key}={value}" for key, value in keys.items() if key not in given)]
    short += [f"{key}={value}" for key, value in _ALWAYS.items()]
    config = _resolved(short)
    if config["trainer"]["fast_dev_run"]:
        raise InputError("`trainer.fast_dev_run` keeps no record that could be compared. Leave it out.")
    warmup = _shorter_warmup(config)
    if warmup is not None:
        short.append(f"--lr_schedule.warmup={warmup}")
    return Short(short, config)


def count_devices(trainer: Mapping[str, Any]) -> int:
    """Tell how many devices, and so how many processes, a configuration's trainer takes.

    Args:
        trainer: The key ``trainer`` of a configuration.

    Raises:
        InputError: If this machine does not have them.
    """
    try:
        return Trainer(
            accelerator=trainer["accelerator"],
            devices=trainer["devices"],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).num_devices
    except (MisconfigurationException, ValueError) as error:
        raise InputError(str(error)) from error


def _resolved(arguments: list[str]) -> dict[str, Any]:
    from lightning_lab.__main__ import main

    code: object
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            code = main(["fit", *arguments, "--print_config"])
        except SystemExit as stop:  # how the parser ends after it has printed
            code = stop.code
    if code:
        raise InputError(err.getvalue().rpartition("error: ")[2].strip())
    config: dict[str, Any] = yaml.safe_load(out.getvalue())
    return config


def _shorter_warmup(config: Mapping[str, Any]) -> int | None:
    # A schedule that lasts to the end of the run is refused where the warm-up lasts as long.
    schedule, trainer = config["lr_schedule"], config["trainer"]
    epochs, batches = trainer["max_epochs"] or 0, trainer["limit_train_batches"] or 0
    if not schedule or epochs < 1 or batches <= 1:  # up to 1 it is a share of an epoch whose length is not known yet
        return None
    length = int(epochs if schedule["interval"] == "epoch" else epochs * batches)
    return None if schedule["warmup"] < length else length // 2
