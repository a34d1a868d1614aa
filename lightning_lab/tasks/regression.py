"""Regression: a net that gives one value an example, its loss and its metrics."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanAbsolutePercentageError, MetricCollection, R2Score

from lightning_lab.runs.errors import InputError
from lightning_lab.tasks.batch import HALF, check_smallest_batch, take_apart, try_shape
from lightning_lab.tasks.metrics import MeanLoss
from lightning_lab.tasks.optimizer import default_optimizer


class Regression(LightningModule):
    """Train and measure a net that predicts numbers, with the mean squared error as its loss.

    The lab's "accuracy", the mean of |output / target|, is left out on purpose: it is 1 for a net that is wrong
    upwards as often as downwards. The relative error takes its place.

    Args:
        net: Maps inputs (B, ...) to values (B, 1).
        optimizer: Any optimiser of torch, for example ``torch.optim.Adam`` with its arguments.

    Shape:
        - Batches: x (B, ...) as the net wants it, y (B, 1) float.

    Raises:
        InputError: If the data have classes, or the net gives other than one value an example.

    Logs for ``train`` ``loss`` (the mean squared error); for ``val`` and ``test`` also ``mae``, ``r2`` and
    ``relative_error`` (mean of |output - target| / |target|, with |target| taken as 1.17e-6 at the least: of no use
    where targets come near zero).
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        optimizer: OptimizerCallable = default_optimizer,
    ) -> None:
        super().__init__()
        self.net = net
        self.optimizer = optimizer
        self.train_loss = MeanLoss()
        self.val_metrics = _metrics("val")
        self.test_metrics = _metrics("test")

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The metrics that a fit logs and a callback can monitor."""
        return ("train/loss", "val/loss", "val/mae", "val/r2", "val/relative_error")

    def setup(self, stage: str) -> None:
        """Compare the net with the data before anything is trained."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if getattr(data, "num_classes", None) is not None:
            raise InputError(
                f"{type(data).__name__} has classes, and Regression learns numbers. Use --model Classification, or "
                "other data."
            )
        output = try_shape(self.net, data)
        if output is not None and output.shape != (1, 1):
            raise InputError(
                f"Regression needs one value an example, and {type(self.net).__name__} gives {output[0].numel()}. "
                "Set it with --model.net.out_features 1."
            )

    def on_train_start(self) -> None:
        """Compare the net with the size of the batches."""
        check_smallest_batch(self.net, self.trainer)

    def forward(self, x: Tensor) -> Tensor:
        """Compute values (B, 1) from inputs (B, ...)."""
        values: Tensor = self.net(x)
        return values.float() if values.dtype in HALF else values

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Compute the loss of one batch."""
        x, y, num_real, weight = take_apart(batch)
        loss = F.mse_loss(self(x), y)
        self.train_loss.add(loss.detach(), num_real)
        return loss if weight == 1.0 else loss * weight

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss."""
        self.log("train/loss", self.train_loss.compute())
        self.train_loss.reset()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Measure one batch."""
        self._measure(self.val_metrics, batch)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics over every validation example."""
        self._log(self.val_metrics)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Measure one batch."""
        self._measure(self.test_metrics, batch)

    def on_test_epoch_end(self) -> None:
        """Log the metrics over every test example."""
        self._log(self.test_metrics)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Compute values (B, 1)."""
        x, _, num_real, _ = take_apart(batch)
        values: Tensor = self(x)[:num_real]
        return values

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimiser; the schedule is a callback."""
        return self.optimizer(self.parameters())

    def _measure(self, metrics: MetricCollection, batch: Any) -> None:
        x, y, num_real, _ = take_apart(batch)
        values = self(x)[:num_real]
        if num_real == 0:
            return
        target = y[:num_real]
        for name, metric in metrics.items(keep_base=True, copy_state=False):
            if name == "loss":
                metric.update(F.mse_loss(values, target), num_real)
            else:
                metric.update(values.flatten(), target.flatten())

    def _log(self, metrics: MetricCollection) -> None:
        self.log_dict({str(name): value for name, value in metrics.compute().items()})
        metrics.reset()


def _metrics(part: str) -> MetricCollection:
    metrics: dict[str, Any] = {
        "loss": MeanLoss(),
        "mae": MeanAbsoluteError(),
        "r2": R2Score(),
        "relative_error": MeanAbsolutePercentageError(),
    }
    return MetricCollection(metrics, prefix=f"{part}/", compute_groups=False)
