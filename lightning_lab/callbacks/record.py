"""The record of a run: metrics.jsonl and summary.json, kept up to date while it trains."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, Timer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from lightning_lab.callbacks.early_stopping import EarlyStopping
from lightning_lab.runs.directory import RunDirectory
from lightning_lab.runs.errors import DivergedError, InputError, Stopped
from lightning_lab.runs.files import json_text, write_bytes, write_json
from lightning_lab.runs.start import changed_measure, open_record
from lightning_lab.runs.tensorboard import RunTensorBoard


class RunRecord(Checkpoint):
    """Write the record.

    It counts as a checkpoint callback for one reason: Lightning runs those last, when the epoch's metrics are
    complete. It must stand before the callbacks that save, so that a checkpoint holds the record up to its epoch.

    Args:
        run: Where to write.
        config: The resolved configuration as YAML.
        overwrite: Delete what an earlier run left in the folder, at the last moment before training.
        monitor: The metric whose best value is noted.
        mode: Whether smaller (``"min"``) or larger (``"max"``) is better.
        seed: The run's seed, for the summary.
        put: Takes a path and the content that is to stand there: at once, or beside the training.
        examples: How many examples were evaluated, by part; filled by somebody else. None leaves them out.
    """

    def __init__(
        self,
        run: RunDirectory,
        *,
        config: str,
        overwrite: bool,
        monitor: str,
        mode: str,
        seed: int,
        put: Callable[[Path, bytes], None] = write_bytes,
        examples: Mapping[str, int] | None = None,
    ) -> None:
        self.run = run
        self.put = put
        self.examples = {} if examples is None else examples
        self.config = config
        self.overwrite = overwrite
        self.begins = True  # else it continues what the folder holds
        self.monitor = monitor
        self.mode = mode
        self.seed = seed
        self._rows: list[dict[str, Any]] = []
        self._best_from = 0  # the row that the best one is looked for from: a fork may have another measure
        self._seconds_before = 0.0  # training time of the process that was interrupted
        self._started = time.perf_counter()
        self._lr = 0.0
        self._training = False
        self._ended = False
        self._validated = False  # in this epoch

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the record: net and data are there by now, so that a mistake in them leaves no empty run behind."""
        self._started = time.perf_counter()
        self._training = True
        self._check_split(trainer)
        if trainer.is_global_zero:
            open_record(self.run, self.config, begins=self.begins, overwrite=self.overwrite)
            if not self.begins and isinstance(trainer.logger, RunTensorBoard):
                trainer.logger.go_on(self._rows[-1] if self._rows else {})
        self._write(trainer, "running", f"process {os.getpid()} on {platform.node()}")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Note the rate of the step: at the epoch's end the schedule has moved on already."""
        self._lr = float(optimizer.param_groups[0]["lr"])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the epoch's validation metrics are its own."""
        self._validated = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """For the verb validate: compare the split with the one that was trained on."""
        if not self._training:
            self._check_split(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row."""
        pl_module.log("lr", self._lr)
        metrics = _plain(trainer.callback_metrics)
        if not self._validated:  # Lightning keeps the values of an earlier epoch
            metrics = {name: value for name, value in metrics.items() if not name.startswith("val/")}
        self._validated = False
        metrics["lr"] = self._lr  # Lightning has rounded it to 32 bits
        row = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, "time_s": round(self._seconds, 3)}
        self._rows.append({**row, **metrics})
        if trainer.is_global_zero:
            self._put_metrics()
            self._write(trainer, "running", f"process {os.getpid()} on {platform.node()}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how it ended."""
        self._training = False
        self._ended = True
        stop = next(
            (c for c in trainer.early_stopping_callbacks if isinstance(c, EarlyStopping) and c.has_stopped), None
        )
        if stop is not None:
            self._write(trainer, "stopped_early", str(stop.stopping_reason_message))
        else:
            timer = next((c for c in trainer.callbacks if isinstance(c, Timer)), None)  # type: ignore[attr-defined]
            over = timer is not None and (timer.time_remaining() or 0) <= 0
            self._write(trainer, "completed", "trainer.max_time is over" if over else None)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Complete the record of a run that was killed behind its last checkpoint: there is nothing left to train."""
        if self.begins or self._ended:
            return
        self._started = time.perf_counter()
        if trainer.is_global_zero:
            self._put_metrics()
        self.on_train_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say what ended it."""
        if not self._training:
            return  # nothing was trained yet, or the verb is another: that says nothing about the training
        if isinstance(exception, Stopped | KeyboardInterrupt):
            name = exception.number.name if isinstance(exception, Stopped) else "SIGINT"
            self._write(trainer, "interrupted", f"{name} in epoch {trainer.current_epoch + 1}")
        elif isinstance(exception, DivergedError):
            self._write(trainer, "diverged", str(exception))
        else:
            self._write(trainer, "failed", f"{type(exception).__name__}: {exception}")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the test's metrics to the summary."""
        ckpt_path = trainer.ckpt_path
        of_best = ckpt_path is None or Path(ckpt_path).absolute() == self.run.best.absolute()
        changed = changed_measure(self.run, self.config) if of_best and self.run.config.exists() else []
        if changed:
            rank_zero_warn(
                f"The test is not entered into the record: it is not that of the run ({', '.join(changed)})."
            )
        elif trainer.is_global_zero and of_best:  # another checkpoint's numbers are printed, not recorded
            test = _plain(trainer.callback_metrics)
            kept = {name: value for name, value in test.items() if name.startswith("test/")}
            before = self.run.read_summary()
            write_json(self.run.summary, {**before, **self._counted(before.get("examples", {})), "test": kept})

    @property
    def best(self) -> dict[str, Any] | None:
        """The best epoch so far: metric, value, epoch."""
        rows = [row for row in self._rows[self._best_from :] if row.get(self.monitor) is not None]
        if not rows:
            return None
        best = (min if self.mode == "min" else max)(rows, key=lambda row: row[self.monitor])
        return {"metric": self.monitor, "value": best[self.monitor], "epoch": best["epoch"]}

    @property
    def best_row(self) -> dict[str, Any]:
        """All metrics of the best epoch."""
        best = self.best
        return next((row for row in self._rows if best is not None and row["epoch"] == best["epoch"]), {})

    @property
    def best_model_path(self) -> str:
        """The best checkpoint, where Lightning looks for it: at the trainer's first checkpoint callback."""
        return str(self.run.best) if self.run.best.exists() else ""

    def state_dict(self) -> dict[str, Any]:
        """Keep the rows for a run that continues."""
        return {
            "rows": self._rows,
            "best_from": self._best_from,
            "seconds": self._seconds,
            "lr": self._lr,
            "validated": self._validated,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go back to the rows of the checkpoint; a later epoch is trained again."""
        self._rows = state_dict["rows"]
        self._best_from = state_dict["best_from"]
        self._seconds_before = state_dict["seconds"]
        self._lr = state_dict["lr"]
        self._validated = state_dict["validated"]

    def _check_split(self, trainer: Trainer) -> None:
        recorded = None if self.overwrite else self.run.read_summary().get("split")
        found = getattr(trainer.datamodule, "split_fingerprint", None)  # type: ignore[attr-defined]
        if recorded is not None and self._continues(recorded, found):
            raise InputError(
                f"The run {self.run.path} was trained on the split {recorded}, and the data now give {found}: examples "
                "were added, removed or renamed. Restore them, or start over with --run.overwrite true."
            )

    def _continues(self, recorded: str, found: str | None) -> bool:
        # A fit that begins anew in an old folder may split as it likes.
        return recorded != found and not (self._training and self.begins)

    def _put_metrics(self) -> None:
        self.put(self.run.metrics, "".join(json.dumps(one) + "\n" for one in self._rows).encode())

    def _counted(self, before: Mapping[str, int]) -> dict[str, Any]:
        counted = {**before, **self.examples}
        return {"examples": counted} if counted else {}

    @property
    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started

    def _write(self, trainer: Trainer, status: str, reason: str | None) -> None:
        if not trainer.is_global_zero:
            return
        last = {k: v for k, v in self._rows[-1].items() if k not in ("epoch", "step", "time_s")} if self._rows else {}
        summary: dict[str, Any] = {
            "status": status,
            "reason": reason,
            "epochs": len(self._rows),
            "steps": trainer.global_step,
            "wall_s": round(self._seconds, 3),
            "best": self.best,
            "last": last,
            "seed": self.seed,
            "split": getattr(trainer.datamodule, "split_fingerprint", None),  # type: ignore[attr-defined]
            **self._counted({}),
        }
        if status == "running":
            summary |= {"pid": os.getpid(), "host": platform.node()}
        self.put(self.run.summary, json_text(summary).encode())


def _plain(metrics: Mapping[str, Tensor]) -> dict[str, float | None]:
    # JSON has no NaN: what is not finite becomes null.
    values = {name: float(value) for name, value in sorted(metrics.items())}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
