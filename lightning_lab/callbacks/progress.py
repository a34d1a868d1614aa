"""Progress: a live bar on a terminal, and one line an epoch there and in a file."""

from __future__ import annotations

import sys
import time
from typing import Any, Literal, final

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from lightning_lab.runs.terminal import say

#: The columns of the line, in this order, where the run logs them; the rest stands in metrics.jsonl.
COLUMNS = ("train/loss", "val/loss", "train/acc", "val/acc", "val/mae", "val/r2", "lr")


@final
class Progress(ProgressBar):
    """Show how far the training is.

    Args:
        style: ``bar`` redraws a bar within the epoch, ``lines`` prints one line an epoch, ``auto`` takes the bar on
            a terminal and the lines elsewhere, so that a log file stays readable.
        refresh_s: Least time between two drawings of the bar in seconds, above 0.

    Raises:
        ValueError: If `refresh_s` is not above 0.
    """

    def __init__(self, *, style: Literal["auto", "bar", "lines"] = "auto", refresh_s: float = 0.2) -> None:
        super().__init__()
        if not refresh_s > 0:
            raise ValueError(f"`refresh_s` must be above 0 seconds, got {refresh_s}.")
        self.style = style
        self.refresh_s = refresh_s
        self._enabled = True
        self._bar: tqdm[Any] | None = None
        self._epoch_started = 0.0
        self._fit_started = 0.0
        self._first_epoch = 0
        self._pending = False
        self._validated = False  # in this epoch

    def disable(self) -> None:
        """Be silent, on all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Speak again."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what is trained on what, and start the clock."""
        if self._enabled:
            say(_heading(trainer, pl_module))
        self._fit_started = time.perf_counter()
        self._first_epoch = trainer.current_epoch
        if trainer.fit_loop.restarted_mid_epoch:  # Lightning does not announce that epoch again
            self._begin(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the epoch before, which is complete only now, and open a bar."""
        self._print_line(trainer)
        self._begin(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar; it draws only when it is time to, and only then is the loss read from the device."""
        if self._bar is not None and self._bar.update():
            loss = outputs["loss"] if isinstance(outputs, dict) and "loss" in outputs else None
            if loss is not None:
                self._bar.set_postfix_str(f"loss {float(loss):.4f}", refresh=False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the epoch's validation metrics are its own."""
        self._validated = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the last line."""
        self._print_line(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal clean."""
        self._close()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open a bar for the test."""
        self._open("test", sum(trainer.num_test_batches))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Move the bar of the test."""
        if self._bar is not None:
            self._bar.update()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar of the test."""
        self._close()

    def _begin(self, trainer: Trainer) -> None:
        self._epoch_started = time.perf_counter()
        self._pending = True
        done = (
            trainer.fit_loop.epoch_loop.batch_progress.current.completed if trainer.fit_loop.restarted_mid_epoch else 0
        )
        self._open(f"epoch {_epochs(trainer, 1)}", self.total_train_batches, done=done)

    def _open(self, name: str, total: int | float, *, done: int = 0) -> None:
        self._close()
        live = self.style == "bar" or (self.style == "auto" and sys.stdout.isatty())
        if self._enabled and live:
            self._bar = tqdm(
                desc=name,
                total=None if total == float("inf") else int(total),
                initial=done,
                leave=False,
                mininterval=self.refresh_s,
                file=sys.stdout,
                dynamic_ncols=True,
            )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _print_line(self, trainer: Trainer) -> None:
        self._close()
        if not self._pending:
            return
        self._pending = False
        now = time.perf_counter()
        metrics = trainer.callback_metrics
        if not self._validated:  # Lightning keeps the values of an earlier epoch
            metrics = {name: value for name, value in metrics.items() if not name.startswith("val/")}
        self._validated = False
        shown = [f"{name} {float(metrics[name]):.4g}" for name in COLUMNS if name in metrics]
        done = trainer.current_epoch - self._first_epoch
        left = ""
        if trainer.max_epochs is not None and trainer.max_epochs > 0 and done:
            remaining = max(0, trainer.max_epochs - trainer.current_epoch)
            left = f"  left {_duration((now - self._fit_started) / done * remaining)}"
        if self._enabled:
            epoch_s = _duration(now - self._epoch_started)
            say(f"epoch {_epochs(trainer, 0)}  {'  '.join(shown)}  {epoch_s}{left}")


def _heading(trainer: Trainer, pl_module: LightningModule) -> str:
    net = type(getattr(pl_module, "net", pl_module)).__name__
    size = sum(parameter.numel() for parameter in pl_module.parameters())
    data = trainer.datamodule  # type: ignore[attr-defined]
    source = f" on {type(data).__name__}" if data is not None else ""
    device = trainer.strategy.root_device.type
    place = f"{trainer.world_size} x {device}" if trainer.world_size > 1 else device
    how = f"{place}, {trainer.precision}, {trainer.num_training_batches} steps an epoch"
    return f"{net} ({size:,} parameters){source}, {how}"


def _epochs(trainer: Trainer, ahead: int) -> str:
    total = trainer.max_epochs
    return f"{trainer.current_epoch + ahead}" + (f"/{total}" if total is not None and total > 0 else "")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"
