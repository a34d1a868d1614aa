"""Which runs can be trained as replicates, and in words why others cannot."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Trainer
from torch import optim

from lightning_lab import verbs
from lightning_lab.cli import TRAINER_DEFAULTS, LabCLI
from lightning_lab.data import Digits
from lightning_lab.data import Regression as RegressionData
from lightning_lab.nets import MLP
from lightning_lab.tasks import Classification, Regression

#: Optimisers whose update of a number looks at that number's own gradient and past alone, so that stacked weights are
#: updated as single ones. Muon, Adafactor and LBFGS look at whole tensors.
OPTIMIZERS = (
    optim.SGD,
    optim.Adam,
    optim.AdamW,
    optim.NAdam,
    optim.RAdam,
    optim.Adamax,
    optim.Adadelta,
    optim.Adagrad,
    optim.RMSprop,
)
#: The callbacks whose part the stacked training takes, or that have none in it.
CALLBACKS = (
    "EarlyStopping",
    "GradientClipping",
    "Penalty",
    "LRSchedule",
    "LeastSquaresHead",
    "NanGuard",
    "Progress",
    "NoiseStream",
    "EpochSoFar",
    "Evaluation",
    "SafePoint",
    "Pictures",
    "RunRecord",
    "_Best",
    "_Steady",
)
#: What may be set of the trainer: the length, the arithmetic, and how the run is shown.
TRAINER_KEYS = (
    "max_epochs",
    "max_steps",
    "limit_train_batches",
    "accelerator",
    "devices",
    "precision",
    "logger",
    "log_every_n_steps",
    "enable_progress_bar",
    "enable_model_summary",
    "deterministic",
)


def can_replicate(run: LabCLI | Sequence[str]) -> str | None:
    """Tell why a run cannot be trained with others in one process.

    Args:
        run: The parts of a ``fit``, or what follows ``fit`` on the command line.

    Returns:
        The reason in words; None if it can.
    """
    cli = run if isinstance(run, LabCLI) else build(run)
    return _of_parts(cli) or _of_slots(cli) or _of_trainer(cli)


def build(arguments: Sequence[str]) -> LabCLI:
    """Build the parts of a ``fit``, its first weights among them, as the verb does.

    Args:
        arguments: What follows ``fit`` on the command line.
    """
    return verbs.build("fit", list(arguments))


def _of_parts(cli: LabCLI) -> str | None:
    module: Any = cli.model
    if type(module) not in (Classification, Regression):
        return f"the task {type(module).__name__} is neither Classification nor Regression"
    if type(module.net) is not MLP:
        return f"the net {type(module.net).__name__} is no MLP: only linear layers can be stacked"
    if cli.config.model.init_args.net.init_args.normalisation == "batch":
        return "batch norm keeps running means, which are not stacked"
    if cli.config.model.init_args.net.init_args.drop_connect > 0:
        return "drop-connect draws a mask of the weights for each net, which are not stacked"
    if type(cli.datamodule) not in (Digits, RegressionData):
        return f"the data {type(cli.datamodule).__name__} are not small: every replicate holds its own split of them"
    optimizer = module.configure_optimizers()
    if type(optimizer) not in OPTIMIZERS:
        return f"the optimiser {type(optimizer).__name__} looks at more than one number at a time"
    if optimizer.defaults.get("differentiable") or optimizer.defaults.get("capturable"):
        return "an optimiser that is differentiable or capturable was not tried"
    return None


def _of_slots(cli: LabCLI) -> str | None:
    callbacks: list[Any] = cli.trainer.callbacks  # type: ignore[attr-defined]
    if cli.config_init.nan_guard is None:
        return "without nan_guard nothing ends a replicate that has diverged"
    schedule = cli.config.lr_schedule
    if schedule is not None and schedule.scheduler.class_path.endswith("ReduceLROnPlateau"):
        return "on a plateau each replicate would have a learning rate of its own"
    checkpoint = cli.config_init.checkpoint
    if checkpoint is not None and (checkpoint.every_n_steps or checkpoint.every_n_minutes):
        return "checkpoints within an epoch are not made of replicates"
    other = [type(callback).__name__ for callback in callbacks if type(callback).__name__ not in CALLBACKS]
    if other:
        return f"the callback {other[0]} has no stacked form"
    if cli.config.ckpt_path is not None:
        return "weights from another run's checkpoint (`ckpt_path`) are not read"
    return None


def _of_trainer(cli: LabCLI) -> str | None:
    if cli.trainer.strategy.root_device.type != "cpu":
        return f"replicates are trained on the processor, not on {cli.trainer.strategy.root_device.type}"
    if cli.trainer.world_size > 1:
        return f"replicates are trained by one process, not by {cli.trainer.world_size}"
    if cli.config.trainer.precision not in ("32-true", "64-true"):
        return f"the precision {cli.config.trainer.precision} is not among 32-true and 64-true"
    defaults = {name: one.default for name, one in inspect.signature(Trainer.__init__).parameters.items()}
    defaults |= TRAINER_DEFAULTS
    for key, value in cli.config.trainer.as_dict().items():
        if key not in TRAINER_KEYS and value is not None and value != defaults.get(key):
            return f"`trainer.{key}` {value} is not part of the stacked training"
    return None
