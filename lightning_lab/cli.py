"""The composition root: Lightning's own command line with named callback slots and a run directory.

jsonargparse is touched here and in `messages` alone.
"""

from __future__ import annotations

import os
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentError, DefaultHelpFormatter, _typehints
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lightning_lab.arithmetic import choose_precision, choose_threads, device_kind
from lightning_lab.callbacks.checkpoint import Checkpoint
from lightning_lab.callbacks.compile import Compile
from lightning_lab.callbacks.early_stopping import EarlyStopping
from lightning_lab.callbacks.epoch_so_far import EpochSoFar
from lightning_lab.callbacks.evaluation import Evaluation
from lightning_lab.callbacks.gradient_clipping import GradientClipping
from lightning_lab.callbacks.least_squares_head import LeastSquaresHead
from lightning_lab.callbacks.lr_schedule import LRSchedule
from lightning_lab.callbacks.nan_guard import NanGuard
from lightning_lab.callbacks.noise import NoiseStream
from lightning_lab.callbacks.penalty import Penalty
from lightning_lab.callbacks.pictures import Pictures
from lightning_lab.callbacks.progress import Progress
from lightning_lab.callbacks.record import RunRecord
from lightning_lab.callbacks.safe_point import SafePoint, leave_signals
from lightning_lab.class_names import CLASSES, check_classes, classes_first, full_class_paths, is_optimisation
from lightning_lab.launcher import watch_processes
from lightning_lab.loops.lean import use_lean_loop
from lightning_lab.messages import explain
from lightning_lab.runs.checkpoint_io import WholeFileCheckpointIO
from lightning_lab.runs.directory import RunDirectory
from lightning_lab.runs.errors import InputError, LostProcessError, unknown
from lightning_lab.runs.seeds import stream_seed
from lightning_lab.runs.start import choose_directory
from lightning_lab.runs.tensorboard import RunTensorBoard
from lightning_lab.runs.terminal import say
from lightning_lab.runs.writer import BackgroundWriter
from lightning_lab.texts import CKPT_PATH, DESCRIPTIONS, MORE

Verb = Literal["fit", "validate", "test", "predict"]

#: The named slots that are callbacks as they stand; `checkpoint` makes its own.
SLOTS: dict[str, tuple[type[Callback], dict[str, Any] | None]] = {
    "early_stopping": (EarlyStopping, None),  # off: the labs train for a given number of epochs
    "penalty": (Penalty, None),  # ahead of the clipping, which bounds its gradient too
    "gradient_clipping": (GradientClipping, {}),
    "lr_schedule": (LRSchedule, {}),
    "nan_guard": (NanGuard, {}),
    "least_squares_head": (LeastSquaresHead, None),  # behind the guard, which ends a run that has no solution
    "progress": (Progress, {}),
}
#: Where this project departs from Lightning's Trainer.
TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": 10,
    "num_sanity_val_steps": 0,  # the net is checked against the data when the first batch comes
    "use_distributed_sampler": False,  # Lightning's pads the last batch; the loader here divides it
    "enable_model_summary": False,  # one line says it
    "enable_autolog_hparams": False,  # one row of the hparams tab, when the result is known
}


class _Formatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """jsonargparse's help, with the examples left as they are written."""


class RunOptions:
    """Where the record of a run goes, <logs>/<experiment>/<name>/, and what the process may use.

    Args:
        logs: Folder of all runs (default: logs).
        experiment: Folder of related runs (default: the configuration's file name).
        name: The run's own folder (default: time and seed). The same name again continues an unfinished run.
        overwrite: Delete what an earlier run left in this folder, and start over.
        threads: Threads of each process that compute (default: one a core, divided among the processes of the machine;
            one for a small net of dense layers).
    """

    def __init__(
        self,
        logs: str | None = None,
        experiment: str | None = None,
        name: str | None = None,
        overwrite: bool = False,
        threads: PositiveInt | None = None,
    ) -> None:
        self.logs = logs
        self.experiment = experiment
        self.name = name
        self.overwrite = overwrite
        self.threads = threads


class LabCLI(LightningCLI):
    """Parse one verb's command line and build what it names.

    Args:
        verb: Which of the verbs.
        args: What follows the verb, with configurations as paths.
        stem: The experiment's default name.
        origin: The run that the configuration is the record of, or None.

    Raises:
        InputError: If the command line or a configuration is wrong.
    """

    def __init__(self, verb: Verb, args: list[str], *, stem: str, origin: Path | None) -> None:
        self.verb = verb
        self.stem = stem
        self.origin = origin
        # Lightning 2.6 calls what jsonargparse 4.49 deprecates.
        os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            trainer_defaults=TRAINER_DEFAULTS,
            parser_kwargs={
                "prog": f"lightning-lab {verb}",
                "usage": f"lightning-lab {verb} [--config NAME_OR_FILE ...] [--KEY VALUE ...]",
                "description": DESCRIPTIONS[verb] + MORE,
                "formatter_class": _Formatter,
                "exit_on_error": False,
                "allow_abbrev": False,
            },
            args=args,
            run=False,
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the seed. A number always, unlike Lightning's: a run that cannot be repeated is no experiment."""
        help_text = "Seed of all random streams: split, initial weights, order, augmentation, dropout."
        parser.add_argument("--seed_everything", type=int, default=0, help=help_text)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the slots and the run options."""
        parser.add_class_arguments(RunOptions, "run")
        for name, (slot, default) in SLOTS.items():
            state = "Off unless a key is set." if default is None else f"On; `--{name} null` switches it off."
            help_text = f"{(slot.__doc__ or '').splitlines()[0]} {state}"
            parser.add_argument(f"--{name}", type=slot | None, default=default, help=help_text)
        help_text = "Save the best and the last epoch. On; `--checkpoint null` switches it off."
        parser.add_argument("--checkpoint", type=Checkpoint | None, default={}, help=help_text)
        parser.add_argument("--ckpt_path", type=str | None, default=None, help=CKPT_PATH[self.verb])
        help_text = "Keep images and weights of convolutions channels-last in memory, which they compute faster with."
        parser.add_argument("--channels_last", type=bool, default=True, help=help_text)
        help_text = "Let torch.compile rewrite the net: minutes at the start, faster steps on a GPU."
        parser.add_argument("--compile", type=bool, default=False, help=help_text)
        if self.verb == "fit":
            then: Any = Literal["test"] | None
            parser.add_argument("--then", type=then, default=None, help="After the fit, test the best checkpoint.")
        parser.link_arguments("seed_everything", "data.init_args.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; a mistake is told in one sentence."""
        check_classes(args)
        try:
            with _arguments_of_their_own():
                self.config = parser.parse_args(classes_first(full_class_paths(args)))
        except ArgumentError as error:
            known = {key: list(module.__all__) for key, module in CLASSES.items()}
            known["optimizer"] = [name for name in torch.optim.__all__ if isinstance(getattr(torch.optim, name), type)]
            known["scheduler"] = list(torch.optim.lr_scheduler.__all__)
            keys = [action.dest for action in parser._actions if not action.dest.endswith("help")]
            raise InputError(explain(str(error), keys=keys, classes=known)) from error

    def before_instantiate_classes(self) -> None:
        """Seed the stream that the nets' initial weights are drawn from, and choose the fused step where one is."""
        self.seed: int = self.config.seed_everything
        settings = self.config.model.get("init_args", {}).get("optimizer")
        arguments = getattr(settings, "init_args", {})  # none where it is the tasks' default, a function
        # In 16-mixed it would take the scale off the gradients only behind clipping and penalty.
        plain = self.config.trainer.precision not in ("16-mixed", 16, "16")
        if plain and "fused" in arguments and arguments["fused"] is None and arguments.get("foreach") is None:
            arguments["fused"] = True  # in the configuration, so that the record says it
        torch.manual_seed(stream_seed(self.seed, "init"))

    def instantiate_classes(self) -> None:
        """Build net, task, data, callbacks and trainer."""
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, OSError) as error:
            raise InputError(_innermost(error)) from error
        if self.config.channels_last:
            self.model.to(memory_format=torch.channels_last)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer around the run directory."""
        options: RunOptions = self.config_init.run
        self.run_directory = choose_directory(
            logs=options.logs,
            experiment=options.experiment,
            name=options.name,
            origin=self.origin,
            stem=self.stem,
            seed=self.seed,
        )
        self.writer = BackgroundWriter()
        settings = self.config_init.trainer
        device = device_kind(settings.accelerator)
        if settings.precision is None and not settings.plugins:
            self.config.trainer.precision, _ = choose_precision(self.model, device)
            kwargs.setdefault("precision", self.config.trainer.precision)
        # Replaced, not merged: a plug-in of the user's own that saves checkpoints is the user's choice.
        kwargs.setdefault("plugins", settings.plugins or [WholeFileCheckpointIO(self.writer.put)])
        kwargs.setdefault("default_root_dir", str(self.run_directory.path))
        if settings.logger in (None, True):
            # validate and predict measure a finished run: a point of theirs would bend its curves.
            draws = self.verb in ("fit", "test")
            kwargs.setdefault("logger", RunTensorBoard(self.run_directory.path) if draws else False)
        kwargs.setdefault("enable_progress_bar", self.config_init.progress is not None)
        extra = settings.callbacks or []
        extra = extra if isinstance(extra, list) else [extra]
        kwargs["callbacks"] = [*extra, *self._callbacks(self.run_directory)]
        trainer = super().instantiate_trainer(**kwargs)
        threads, _ = choose_threads(self.model, getattr(self.datamodule, "batch_size", 1), trainer.num_devices)
        torch.set_num_threads(options.threads or threads)
        use_lean_loop(trainer)
        leave_signals(trainer)
        watch_processes(trainer, lambda error: self.leave(error))
        return trainer

    def leave(self, error: LostProcessError) -> None:
        """Say and record that this process ends; called where its training cannot, because it waits for a lost one."""
        say(f"{error} {self.run_directory.way_on}", sys.stderr)
        self.record.on_exception(self.trainer, self.model, error)
        self.writer.drain()

    def resolved_config(self) -> str:
        """Write the whole configuration as YAML, usable as ``--config``; without what belongs to one command only."""
        config = self.config.clone()
        for key in ("config", "run", "ckpt_path", "then"):
            config.pop(key, None)
        text: str = self.parser.dump(config, skip_none=False, skip_validation=True)
        return text

    def check_monitors(self) -> None:
        """Compare what the slots watch with what the task logs, before anything is trained.

        Raises:
            InputError: If a slot watches a metric that is never logged.
        """
        logged = getattr(self.model, "metric_names", None)
        if logged is None:
            return  # a module of the user's own does not say what it logs
        logged = (*logged, "lr", "grad_norm")
        for name in ("early_stopping", "checkpoint"):
            slot = self.config_init[name]
            if slot is not None and slot.monitor not in logged:
                raise InputError(f"`{name}.monitor`: {unknown('metric', slot.monitor, logged)}")
        schedule = self.config.lr_schedule
        if schedule is not None and schedule.scheduler.class_path.endswith("ReduceLROnPlateau"):
            monitor = schedule.scheduler.init_args.get("monitor", schedule.monitor)
            measured = [name for name in logged if name.startswith("val/")]
            if monitor not in measured:
                raise InputError(f"`lr_schedule.monitor`: {unknown('validation metric', monitor, measured)}")

    def _callbacks(self, run: RunDirectory) -> list[Callback]:
        slots: list[Callback] = [self.config_init[name] for name in SLOTS if self.config_init[name] is not None]
        checkpoint: Checkpoint | None = self.config_init.checkpoint
        chosen = checkpoint or Checkpoint()
        self.safe_point = SafePoint(
            run.last if checkpoint is not None and checkpoint.last else None,
            every_n_steps=chosen.every_n_steps,
            every_n_minutes=chosen.every_n_minutes,
            wait=self.writer.drain,
        )
        evaluation = Evaluation()
        self.record = RunRecord(
            run,
            examples=evaluation.examples,
            config=self.resolved_config(),
            overwrite=self.config.run.overwrite,
            monitor=chosen.monitor,
            mode=chosen.mode,
            seed=self.seed,
            put=self.writer.put,
        )
        saves = checkpoint.callbacks(run.checkpoints) if checkpoint is not None else []
        compiles = [Compile()] if self.config.compile else []
        own = [NoiseStream(self.seed), EpochSoFar(), evaluation, self.safe_point, Pictures(run), self.record]
        return [*slots, *compiles, *own, *saves]


@contextmanager
def _arguments_of_their_own() -> Iterator[None]:
    """Let an optimiser or a schedule that takes another one's place begin with its own defaults.

    jsonargparse lends it the arguments of the one before whose names it knows: RMSprop would get SGD's momentum.
    """
    theirs: Any = _typehints.discard_init_args_on_class_path_change

    def discard(parser_or_action: Any, before: Any, now: Any) -> None:
        changes = before and before.get("init_args") and before["class_path"] != now["class_path"]
        if changes and is_optimisation(now["class_path"]):
            before["init_args"] = type(before["init_args"])()
        theirs(parser_or_action, before, now)

    _typehints.discard_init_args_on_class_path_change = discard
    try:
        yield
    finally:
        _typehints.discard_init_args_on_class_path_change = theirs


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)
