"""The verbs fit, validate, test and predict: what each does with the parts the command line built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_only

from lightning_lab import __version__, shipped
from lightning_lab.cli import LabCLI, Verb
from lightning_lab.endings import end
from lightning_lab.messages import quieten
from lightning_lab.predictions import write_predictions
from lightning_lab.runs.checkpoint_io import check_fits, newest_sound, read_checkpoint, set_aside_damaged
from lightning_lab.runs.directory import previous
from lightning_lab.runs.errors import InputError
from lightning_lab.runs.listing import flatten
from lightning_lab.runs.lock import RunLock
from lightning_lab.runs.start import check_writable, decide, origin_of, written_by_newer
from lightning_lab.runs.tensorboard import RunTensorBoard
from lightning_lab.runs.terminal import say
from lightning_lab.runs.vault import check_may_test

_CONFIG_FLAGS = ("--config", "-c")


def run(verb: Verb, args: list[str]) -> int:
    """Run one verb.

    Args:
        verb: Which.
        args: What follows it on the command line.

    Returns:
        The exit code: 0 done, 2 bad input, 4 diverged, 130 SIGINT, 143 SIGTERM, 1 a bug.
    """
    quieten()
    cli: LabCLI | None = None
    try:
        cli = build(verb, args)
        {"fit": _fit, "validate": _validate, "test": _test, "predict": _predict}[verb](cli)
    except BaseException as error:
        return end(error, cli)
    return 0


def build(verb: Verb, args: list[str]) -> LabCLI:
    """Build what a verb's command line names; nothing is read, trained or written yet.

    Args:
        verb: Which.
        args: What follows it on the command line.

    Raises:
        InputError: If the command line or a configuration is wrong.
    """
    args, stem, origin = _resolve_configs(verb, args)
    try:
        return LabCLI(verb, args, stem=stem, origin=origin)
    except InputError as error:
        newer = written_by_newer(origin, __version__)
        if newer is None:
            raise
        raise InputError(
            f"{error} The configuration was written by lightning_lab {newer}, and this is {__version__}: update it."
        ) from error


def _fit(cli: LabCLI) -> None:
    cli.check_monitors()
    if cli.config.then == "test" and (cli.config.checkpoint is None or cli.config.trainer.fast_dev_run):
        raise InputError("`then` test needs a checkpoint: leave out --checkpoint null and --trainer.fast_dev_run.")
    if cli.config.ckpt_path is not None:
        cli.model.load_state_dict(read_checkpoint(_checkpoint(cli, cli.config.ckpt_path))["state_dict"])
    with _own(cli):
        # Every process looks, none has written yet: the record is opened when all of them are ready to train.
        state = decide(cli.run_directory, cli.record.config, overwrite=cli.config.run.overwrite)
        if state != "begin" and cli.config.ckpt_path is not None:
            raise InputError(
                f"`ckpt_path` has no effect: the run {cli.run_directory.path} goes on from its own checkpoint. Leave "
                "it out, or choose another --run.name."
            )
        if state == "finished":
            summary = cli.run_directory.read_summary()
            _print(
                f"{cli.run_directory.path} is finished ({summary['status']}); nothing to do.\n"
                "Start over with --run.overwrite true, or choose another --run.name."
            )
        else:
            _train(cli, state)
        if cli.config.then == "test" and not (state == "finished" and cli.run_directory.read_summary().get("test")):
            _measure_test(cli)


def _train(cli: LabCLI, state: Literal["begin", "continue"]) -> None:
    ckpt_path = None
    if state == "continue":
        cli.record.begins = False
        ckpt_path = _checkpoint(cli, "last")
        if cli.trainer.is_global_zero:
            for path in (cli.run_directory.last, cli.run_directory.best):
                set_aside_damaged(path)
        _print(f"Continuing {cli.run_directory.path} from its last checkpoint.")
    try:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=ckpt_path, weights_only=True)
    finally:
        try:
            cli.writer.drain()
        finally:
            cli.safe_point.give_back()
    _log_result(cli)
    _print(_ending(cli))
    cli.safe_point.stop_if_asked()


@contextmanager
def _own(cli: LabCLI) -> Iterator[None]:
    """Hold the run directory while something is written to it."""
    check_writable(cli.run_directory)
    lock = RunLock(cli.run_directory.path)
    if cli.trainer.is_global_zero:
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _validate(cli: LabCLI) -> None:
    path = _checkpoint(cli, cli.config.ckpt_path or "best")
    results = cli.trainer.validate(cli.model, cli.datamodule, ckpt_path=path, verbose=False, weights_only=True)
    _print(f"{path}\n" + _table(results[0]))


def _test(cli: LabCLI) -> None:
    with _own(cli):
        _measure_test(cli)


def _measure_test(cli: LabCLI) -> None:
    check_may_test(cli.run_directory.path)
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
    if choice in named:
        if not (path.exists() or previous(path).exists()):
            raise InputError(
                f"The run {cli.run_directory.path} has no {choice} checkpoint. Give the run's own config.yaml."
            )
        path = newest_sound(path)
    check_fits(read_checkpoint(path), cli.model.state_dict(), path)
    return path


def _log_result(cli: LabCLI) -> None:
    record = cli.record
    if isinstance(cli.trainer.logger, RunTensorBoard) and record.best is not None:
        settings = flatten({key: cli.config[key].as_dict() for key in ("model", "data")})
        result = {f"best/{key}": value for key, value in record.best_row.items() if _is_result(key)}
        cli.trainer.logger.log_result({**settings, "seed": cli.seed}, result)
        cli.trainer.logger.finalize("success")


def _ending(cli: LabCLI) -> str:
    record = cli.record
    summary = cli.run_directory.read_summary()
    lines = [f"{summary['status']}: {summary['epochs']} epochs in {summary['wall_s']:.1f} s"]
    if summary["reason"]:
        lines.append(f"  {summary['reason']}")
    if record.best is not None:
        shown = {k: v for k, v in record.best_row.items() if _is_result(k) or k == record.monitor}
        metrics = "  ".join(f"{k} {v:.4g}" for k, v in shown.items() if v is not None)
        lines.append(f"  best epoch {record.best['epoch']}: {metrics}")
    lines.append(f"  record: {cli.run_directory.path}")
    if isinstance(cli.trainer.logger, RunTensorBoard):
        lines.append(f"  curves: tensorboard --logdir {cli.run_directory.path.parent.parent}")
    return "\n".join(lines)


def _is_result(metric: str) -> bool:
    return metric.startswith("val/") and "/rank" not in metric  # one process's part is no result


def _table(metrics: Any) -> str:
    return "\n".join(f"  {name:<20} {value:.6g}" for name, value in sorted(metrics.items()))


@rank_zero_only
def _print(text: str) -> None:
    say(text)
