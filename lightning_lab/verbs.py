"""The verbs fit, validate, test and predict: what each does with the parts the command line built."""

from __future__ import annotations

import logging
import re
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_lab import shipped
from lightning_lab.callbacks.record import RunRecord
from lightning_lab.cli import LabCLI, Verb
from lightning_lab.predictions import write_predictions
from lightning_lab.runs.checkpoint_io import check_fits, read_checkpoint
from lightning_lab.runs.errors import DivergedError, InputError, unknown
from lightning_lab.runs.files import write_text
from lightning_lab.runs.listing import flatten
from lightning_lab.runs.start import decide, origin_of
from lightning_lab.runs.tensorboard import RunTensorBoard

_CONFIG_FLAGS = ("--config", "-c")


def run(verb: Verb, args: list[str]) -> int:
    """Run one verb.

    Args:
        verb: Which.
        args: What follows it on the command line.

    Returns:
        The exit code: 0 done, 2 bad input, 4 diverged, 130 SIGINT, 143 SIGTERM, 1 a bug.
    """
    _quieten()
    cli: LabCLI | None = None
    try:
        args, stem, origin = _resolve_configs(verb, args)
        cli = LabCLI(verb, args, stem=stem, origin=origin)
        {"fit": _fit, "validate": _validate, "test": _test, "predict": _predict}[verb](cli)
    except DivergedError as error:
        return _say(str(error), 4)
    except SIGTERMException:
        return _say(f"Stopped by SIGTERM. {_way_on(cli)}", 143)
    except KeyboardInterrupt:
        return _say(f"Stopped. {_way_on(cli)}", 130)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into exit(1)
            return _say(f"Stopped. {_way_on(cli)}", 130)
        raise
    except (ValueError, OSError, MisconfigurationException) as error:
        _keep_traceback(cli)
        return _say(f"error: {_reword(str(error))}", 2)
    except Exception as error:
        traceback.print_exc()
        _keep_traceback(cli)
        return _say(f"internal error: {type(error).__name__}: {error}. This is a bug of lightning_lab.", 1)
    return 0


def _fit(cli: LabCLI) -> None:
    cli.check_monitors()
    if cli.config.then == "test" and (cli.config.checkpoint is None or cli.config.trainer.fast_dev_run):
        raise InputError("`then` test needs a checkpoint: leave out --checkpoint null and --trainer.fast_dev_run.")
    if cli.config.ckpt_path is not None:
        cli.model.load_state_dict(read_checkpoint(_checkpoint(cli, cli.config.ckpt_path))["state_dict"])
    record = next(c for c in cli.trainer.checkpoint_callbacks if isinstance(c, RunRecord))
    overwrite = cli.config.run.overwrite
    # Every process looks, none has written yet: the record is opened when all of them are ready to train.
    state = decide(cli.run_directory, record.config, overwrite=overwrite)
    if state == "finished":
        summary = cli.run_directory.read_summary()
        _print(
            f"{cli.run_directory.path} is finished ({summary['status']}); nothing to do.\n"
            "Start over with --run.overwrite true, or choose another --run.name."
        )
    else:
        ckpt_path = None
        if state == "continue":
            ckpt_path = _checkpoint(cli, "last")
            _print(f"Continuing {cli.run_directory.path} from its last checkpoint.")
        try:
            cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=ckpt_path, weights_only=True)
        finally:
            cli.writer.drain()
        _log_result(cli, record)
        _print(_ending(cli, record))
    if cli.config.then == "test" and not (state == "finished" and cli.run_directory.read_summary().get("test")):
        _test(cli)


def _validate(cli: LabCLI) -> None:
    path = _checkpoint(cli, cli.config.ckpt_path or "best")
    results = cli.trainer.validate(cli.model, cli.datamodule, ckpt_path=path, verbose=False, weights_only=True)
    _print(f"{path}\n" + _table(results[0]))


def _test(cli: LabCLI) -> None:
    choice = (None if cli.verb == "fit" else cli.config.ckpt_path) or "best"
    if choice == "best" and cli.verb == "fit" and not cli.run_directory.best.exists():
        _print("Nothing was validated, so there is no best checkpoint: testing the last one.")
        choice = "last"
    path = _checkpoint(cli, choice)
    results = cli.trainer.test(cli.model, cli.datamodule, ckpt_path=path, verbose=False, weights_only=True)
    pictures = cli.run_directory.path / "confusion_matrix.png"
    _print(f"test of {path}\n" + _table(results[0]) + (f"\n  pictures: {pictures}" if pictures.exists() else ""))


def _predict(cli: LabCLI) -> None:
    if cli.trainer.world_size > 1:
        raise InputError(f"predict runs in one process, got {cli.trainer.world_size}: set --trainer.devices 1.")
    path = _checkpoint(cli, cli.config.ckpt_path or "best")
    outputs: Any = cli.trainer.predict(cli.model, cli.datamodule, ckpt_path=path, weights_only=True)
    file = cli.run_directory.path / "predictions.csv"
    count = write_predictions(file, outputs, cli.datamodule)
    print(f"{count} predictions in {file}")


def _resolve_configs(verb: Verb, args: list[str]) -> tuple[list[str], str, Path | None]:
    resolved, paths = [], []
    i = 0
    while i < len(args):
        flag, equals, value = args[i].partition("=")
        if flag in _CONFIG_FLAGS:
            if not equals:
                i += 1
                if i == len(args):
                    raise InputError("--config needs a file or a name; `lightning-lab configs` lists the shipped ones.")
                value = args[i]
            paths.append(shipped.find(value))
            resolved.append(f"--config={paths[-1]}")
        else:
            resolved.append(args[i])
        i += 1
    asks = any(arg in ("--help", "-h") for arg in args)
    if not paths:
        if verb != "fit" and not asks:
            raise InputError(f"{verb} needs the configuration of a run: --config RUN/config.yaml.")
        paths.append(shipped.find(shipped.DEFAULT))
        resolved.insert(0, f"--config={paths[-1]}")
    return resolved, paths[0].stem, origin_of(paths[0])


def _checkpoint(cli: LabCLI, choice: str) -> Path:
    if "://" in choice:
        raise InputError(f"`ckpt_path` must be best, last or a local file, got {choice}. Download it first.")
    named = {"best": cli.run_directory.best, "last": cli.run_directory.last}
    path = named.get(choice, Path(choice))
    if choice in named and not path.exists():
        raise InputError(
            f"The run {cli.run_directory.path} has no {choice} checkpoint. Give the run's own config.yaml."
        )
    check_fits(read_checkpoint(path), cli.model.state_dict(), path)
    return path


def _log_result(cli: LabCLI, record: RunRecord) -> None:
    if isinstance(cli.trainer.logger, RunTensorBoard) and record.best is not None:
        settings = flatten({key: cli.config[key].as_dict() for key in ("model", "data")})
        result = {f"best/{key}": value for key, value in record.best_row.items() if key.startswith("val/")}
        cli.trainer.logger.log_result({**settings, "seed": cli.seed}, result)
        cli.trainer.logger.finalize("success")


def _ending(cli: LabCLI, record: RunRecord) -> str:
    summary = cli.run_directory.read_summary()
    lines = [f"{summary['status']}: {summary['epochs']} epochs in {summary['wall_s']:.1f} s"]
    if summary["reason"]:
        lines.append(f"  {summary['reason']}")
    if record.best is not None:
        shown = {k: v for k, v in record.best_row.items() if k.startswith("val/") or k == record.monitor}
        metrics = "  ".join(f"{k} {v:.4g}" for k, v in shown.items() if v is not None)
        lines.append(f"  best epoch {record.best['epoch']}: {metrics}")
    lines.append(f"  record: {cli.run_directory.path}")
    if isinstance(cli.trainer.logger, RunTensorBoard):
        lines.append(f"  curves: tensorboard --logdir {cli.run_directory.path.parent.parent}")
    return "\n".join(lines)


def _table(metrics: Any) -> str:
    return "\n".join(f"  {name:<20} {value:.6g}" for name, value in sorted(metrics.items()))


@rank_zero_only
def _print(text: str) -> None:
    print(text, flush=True)


def _way_on(cli: LabCLI | None) -> str:
    # Not "the same command": without --run.name that one begins a run of its own.
    if cli is None or not hasattr(cli, "run_directory") or not cli.run_directory.last.exists():
        return "Nothing was saved yet."
    return f"Continue it with: lightning-lab fit --config {cli.run_directory.config}"


def _reword(message: str) -> str:
    # Lightning's word for a monitor that is never logged, where a module of the user's own does not say its metrics.
    match = re.search(r"monitor='([^']+)'\)` could not find the monitored key in .*?: \[(.*?)\]", message)
    if match is None:
        return message
    logged = [name.strip("' ") for name in match[2].split(",") if name.strip("' ") not in ("epoch", "step")]
    return f"`checkpoint.monitor`: {unknown('metric', match[1], logged)}"


def _say(text: str, code: int) -> int:
    print(text, file=sys.stderr, flush=True)
    return code


def _keep_traceback(cli: LabCLI | None) -> None:
    if cli is not None and hasattr(cli, "run_directory") and cli.run_directory.config.exists():
        write_text(cli.run_directory.traceback, traceback.format_exc())


def _quieten() -> None:
    # A warning names its slot; the line of code it comes from says nothing to a user.
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    # Notices of which accelerators are absent, and an advertisement; what matters of them is said in one line of ours.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    # Nothing is logged by the step here, so the interval for it cannot be too long.
    warnings.filterwarnings("ignore", "The number of training batches .* is smaller than the logging interval")
    # Continuing in the run's own folder is what the folder is for.
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    # Lightning 2.6 calls what torch 2.15 deprecates; nothing of ours.
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    # The values that tasks log were added up over all processes by torchmetrics already.
    warnings.filterwarnings("ignore", r"It is recommended to use `self\.log\(.*sync_dist=True\)`")
    # Weights with one input channel have two equally good stride orders; DDP copies 25 numbers the other way.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
