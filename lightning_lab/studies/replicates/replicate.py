"""One replicate: what the command line built for it, its rows so far, and its record, written by its own trainer."""

from __future__ import annotations

import copy
from typing import Any, cast

from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_lab.callbacks.early_stopping import EarlyStopping
from lightning_lab.callbacks.gradient_clipping import GradientClipping
from lightning_lab.callbacks.lr_schedule import LRSchedule
from lightning_lab.cli import LabCLI
from lightning_lab.runs.errors import DivergedError
from lightning_lab.studies.replicates.state import Kept, Moment


class Replicate:
    """One of the runs that are trained together.

    Args:
        cli: Its parts; the trainer is set up and training has started.
    """

    def __init__(self, cli: LabCLI) -> None:
        self.cli = cli
        self.trainer = cli.trainer
        self.module: Any = cli.model
        self.optimizer = cli.trainer.optimizers[0]
        self.rows: list[dict[str, Any]] = []
        self.values: list[dict[str, Tensor]] = []  # of the rows, as tensors
        self.error: DivergedError | None = None
        self.steps = 0  # when it diverged
        self.best: float | None = None
        self._drawn = 0  # rows that TensorBoard has
        slots: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        self._stopping = next((one for one in slots if isinstance(one, EarlyStopping)), None)
        self._stopping_states: list[dict[str, Any]] = []  # after each epoch

    @property
    def alive(self) -> bool:
        """Whether it trains: it has not diverged, and was not stopped early."""
        return self.error is None and not (self._stopping is not None and self._stopping.has_stopped)

    def add(self, row: dict[str, Any], values: dict[str, Tensor]) -> bool:
        """Add an epoch's row; say whether it is the best so far."""
        self.rows.append(row)
        self.values.append(values)
        if self._stopping is not None:
            self._stop_early(self._stopping)
        value = row.get(self.cli.record.monitor)
        better = value is not None and (
            self.best is None or (value < self.best if self.cli.record.mode == "min" else value > self.best)
        )
        if better:
            self.best = value
        return better

    def hand_over(self, index: int, best: Kept, last: Kept, *, ever_clipped: bool) -> None:
        """Put the states into the replicate's own trainer, and let its own callbacks save and write them.

        Args:
            index: Its place in the stack.
            best: Holds the state of its best epoch.
            last: Holds the state of its last whole epoch.
            ever_clipped: Whether its gradient has reached the bound.
        """
        savers = [one for one in self.trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)]
        of_best, of_last = best.moments[index], last.moments[index]
        if of_best is not None and of_best is not of_last:
            self._go_to(index, best, ever_clipped)
            for saver in savers:
                if saver.monitor is not None:
                    saver.on_train_epoch_end(self.trainer, self.module)
        if of_last is not None:
            self._go_to(index, last, ever_clipped)
            for saver in savers:
                saver.on_train_epoch_end(self.trainer, self.module)
        if self.error is not None:
            _count_steps(self.trainer, self.steps, 0)
        self._take_rows(len(self.rows))
        if self.rows:
            self.cli.record._put_metrics()
        self.cli.record._write(self.trainer, "running", f"one of several replicates, at epoch {len(self.rows)}")
        self._draw()

    def _stop_early(self, slot: EarlyStopping) -> None:
        """Do what the slot does at the end of an epoch; its trainer counts epochs only when it is handed them."""
        known = self.values[-1]
        slot._set_rise_threshold()
        if slot._validate_condition_metric(known):
            stops, reason = slot._evaluate_stopping_criteria(known[slot.monitor])
            if stops:
                slot.stopped_epoch, slot.stopping_reason_message = len(self.rows) - 1, reason
        self._stopping_states.append(slot.state_dict())

    def _go_to(self, index: int, kept: Kept, ever_clipped: bool) -> None:
        moment = kept.put(index, list(self.module.parameters()), self.optimizer)
        _count(self.trainer, moment)
        for config in self.trainer.lr_scheduler_configs:
            config.scheduler.load_state_dict(copy.deepcopy(moment.schedule))
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, LRSchedule):
                callback.load_state_dict({**callback.state_dict(), "rates": list(moment.rates)})
            elif isinstance(callback, GradientClipping):
                callback.load_state_dict({**callback.state_dict(), "ever_clipped": ever_clipped})
            elif isinstance(callback, EarlyStopping):
                callback.load_state_dict(self._stopping_states[moment.epochs - 1])
        self.trainer._logger_connector._callback_metrics.update(self.values[moment.epochs - 1])
        self._take_rows(moment.epochs)

    def _take_rows(self, count: int) -> None:
        rows = self.rows[:count]
        lr = rows[-1]["lr"] if rows else 0.0
        record = self.cli.record
        record.load_state_dict({**record.state_dict(), "rows": rows, "seconds": 0.0, "lr": lr, "validated": False})

    def _draw(self) -> None:
        if self.trainer.logger is not None:
            for row in self.rows[self._drawn :]:
                shown = {k: v for k, v in row.items() if k not in ("epoch", "step", "time_s") and v is not None}
                self.trainer.logger.log_metrics(shown, row["step"] - 1)
        self._drawn = len(self.rows)


def _count(trainer: Any, moment: Moment) -> None:
    """Set what Lightning counts to the end of an epoch, where it saves."""
    loop, epochs, steps, batches = trainer.fit_loop, moment.epochs, moment.steps, moment.batches
    counted = {"ready": epochs, "started": epochs, "processed": epochs, "completed": epochs - 1}
    loop.epoch_progress.load_state_dict({"total": counted, "current": dict(counted)})
    inner = loop.epoch_loop
    inner._batches_that_stepped = steps
    inner.batch_progress.load_state_dict(
        {"total": _all(steps), "current": _all(batches), "is_last_batch": moment.whole}
    )
    _count_steps(trainer, steps, batches)
    by_step = [config.interval == "step" for config in trainer.lr_scheduler_configs]
    if by_step:
        done, now = (steps, batches) if by_step[0] else (epochs - (not moment.whole), int(moment.whole))
        total, current = ({"ready": n, "completed": n} for n in (done, now))
        inner.scheduler_progress.load_state_dict({"total": total, "current": current})
    val = sum(cast(list[int], inner.val_loop.max_batches))
    inner.val_loop.batch_progress.load_state_dict({"total": _all(val), "current": _all(val), "is_last_batch": val > 0})
    trainer.train_dataloader.load_state_dict({"epoch": max(epochs - 1, 0), "batches": batches})


def _count_steps(trainer: Any, steps: int, batches: int) -> None:
    progress = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer
    for one in (progress.step, progress.zero_grad):
        names = [name for name in _all(0) if hasattr(one.total, name)]
        one.load_state_dict({"total": dict.fromkeys(names, steps), "current": dict.fromkeys(names, batches)})


def _all(count: int) -> dict[str, int]:
    return dict.fromkeys(("ready", "completed", "started", "processed"), count)
