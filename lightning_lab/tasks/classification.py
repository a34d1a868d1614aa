"""Classification: a net that gives one logit a class, its loss and its metrics."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from lightning_lab.runs.errors import InputError, check_choice
from lightning_lab.tasks.batch import HALF, check_smallest_batch, take_apart, try_shape
from lightning_lab.tasks.metrics import MeanLoss, TopOneAccuracy
from lightning_lab.tasks.optimizer import default_optimizer


class Classification(LightningModule):
    """Train and measure a classifier.

    Args:
        net: Maps inputs (B, ...) to logits (B, num_classes); says its ``num_classes``.
        optimizer: Any optimiser of torch, for example ``torch.optim.Adam`` with its arguments.
        loss: ``cross_entropy`` of the softmax; ``mse``, the mean squared distance of the logits to one-hot targets;
            ``norm``, their unsquared Euclidean distance ||logits - target||, the loss of lab A.
        label_smoothing: Share of the target spread evenly over all classes, in [0, 1). For cross entropy in training
            alone: validation and test measure the plain loss.
        test_views: How many views of an image the test averages the logits over, apart from the plain test: 1 is off, 2
            adds the mirror image, 6 adds to both of them shifts by one pixel up left and down right, which count half.
            Logged as ``test/acc_views``.

    Shape:
        - Batches: x (B, ...) as the net wants it, y (B,) int64.

    Raises:
        ValueError: If `label_smoothing` is out of range or given for another loss, or the net does not say its
            number of classes.
        InputError: If the data have no classes, or another number of them than the net.

    Logs ``train/loss``, ``train/acc``, ``val/loss``, ``val/acc``, ``test/loss``, ``test/acc``, and with more than
    five classes ``val/top5`` and ``test/top5``. Losses exclude penalties and smoothing in ``val`` and ``test``.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        optimizer: OptimizerCallable = default_optimizer,
        loss: Literal["cross_entropy", "mse", "norm"] = "cross_entropy",
        label_smoothing: float = 0.0,
        test_views: Literal[1, 2, 6] = 1,
    ) -> None:
        super().__init__()
        check_choice("loss", loss, ("cross_entropy", "mse", "norm"))
        if test_views not in (1, 2, 6):
            raise ValueError(f"`test_views` must be 1, 2 or 6, got {test_views}.")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"`label_smoothing` must be in [0, 1), got {label_smoothing}.")
        if label_smoothing and loss != "cross_entropy":
            raise ValueError(f"`label_smoothing` {label_smoothing} goes with the loss cross_entropy alone, not {loss}.")
        num_classes = getattr(net, "num_classes", None)
        if not isinstance(num_classes, int) or num_classes < 2:
            raise ValueError(f"`net` must have an attribute `num_classes` of at least 2, got {num_classes}.")
        self.net = net
        self.optimizer = optimizer
        self.loss = loss
        self.label_smoothing = label_smoothing
        self.test_views = test_views
        self.num_classes = num_classes
        self.train_loss = MeanLoss()  # not a collection: that looks its metrics up anew in every step
        self.train_accuracy = TopOneAccuracy()
        self.val_metrics = _metrics("val", num_classes)
        self.test_metrics = _metrics("test", num_classes)
        self.views_accuracy = TopOneAccuracy()
        self.test_confusion = MulticlassConfusionMatrix(num_classes, validate_args=False)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The metrics that a fit logs and a callback can monitor."""
        return tuple(f"{part}/{name}" for part in ("train", "val") for name in _names(part, self.num_classes))

    def setup(self, stage: str) -> None:
        """Compare the net with the data before anything is trained."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is not None and hasattr(data, "input_shape") and not hasattr(data, "num_classes"):
            raise InputError(
                f"{type(data).__name__} has no classes, which Classification learns. Use --model Regression, or other "
                "data."
            )
        found = getattr(data, "num_classes", self.num_classes)
        if found != self.num_classes:
            raise InputError(
                f"The data have {found} classes and the net gives {self.num_classes}. "
                f"Set it with --model.net.num_classes {found}."
            )
        try_shape(self.net, data)

    def on_train_start(self) -> None:
        """Compare the net with the size of the batches."""
        check_smallest_batch(self.net, self.trainer)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (B, num_classes) from inputs (B, ...)."""
        logits: Tensor = self.net(x)
        return logits.float() if logits.dtype in HALF else logits  # loss and metrics are not for 8 bits of precision

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Compute the loss of one batch."""
        x, y, num_real, weight = take_apart(batch)
        logits = self(x)
        loss = self._loss(logits, y, self.label_smoothing)
        self.train_loss.add(loss.detach(), num_real)
        if num_real:
            self.train_accuracy.add(logits.detach(), y)
        return loss if weight == 1.0 else loss * weight

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss and accuracy."""
        self.log_dict({"train/loss": self.train_loss.compute(), "train/acc": self.train_accuracy.compute()})
        self.train_loss.reset()
        self.train_accuracy.reset()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Measure one batch."""
        x, y, num_real, _ = take_apart(batch)
        logits = self(x)
        self._update(self.val_metrics, self._loss(logits, y), logits, y, num_real)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics over every validation example."""
        self._log(self.val_metrics)

    def test_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Measure one batch and return its logits (B, num_classes), for the pictures."""
        x, y, num_real, _ = take_apart(batch)
        logits: Tensor = self(x)
        self._update(self.test_metrics, self._loss(logits, y), logits, y, num_real)
        self.test_confusion.update(logits[:num_real], y[:num_real])
        if self.test_views > 1 and num_real:
            self.views_accuracy.update(self._over_views(x, logits)[:num_real], y[:num_real])
        return logits[:num_real]

    def on_test_epoch_end(self) -> None:
        """Log the metrics over every test example."""
        self._log(self.test_metrics)
        if self.test_views > 1:
            self.log("test/acc_views", self.views_accuracy.compute())
            self.views_accuracy.reset()

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Compute class probabilities (B, num_classes).

        With the losses ``mse`` and ``norm`` the outputs themselves estimate them: what is below zero is cut, and the
        rest scaled to a sum of 1.
        """
        x, _, num_real, _ = take_apart(batch)
        logits: Tensor = self(x)[:num_real]
        if self.loss == "cross_entropy":
            return logits.softmax(dim=1)
        shares = logits.clamp_min(0) + torch.finfo(logits.dtype).tiny  # an even share where none is above zero
        return shares / shares.sum(dim=1, keepdim=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimiser; the schedule is a callback."""
        return self.optimizer(self.parameters())

    def _over_views(self, x: Tensor, logits: Tensor) -> Tensor:
        """Average the logits over views of images x (B, C, H, W); the plain view's are given."""
        total: Tensor = logits + self(x.flip(3))
        if self.test_views == 6:
            height, width = x.shape[2:]
            padded = F.pad(x, [1] * 4, mode="reflect")
            for offset in (0, 2):
                moved = padded[:, :, offset : offset + height, offset : offset + width]
                total = total + (self(moved) + self(moved.flip(3))) / 2
        return total

    def _loss(self, logits: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
        if self.loss == "cross_entropy":
            return F.cross_entropy(logits, y, label_smoothing=label_smoothing)
        target = F.one_hot(y, self.num_classes).to(logits.dtype)
        if self.loss == "mse":
            return F.mse_loss(logits, target)
        distance: Tensor = torch.linalg.vector_norm(logits - target, dim=1)
        return distance.mean()

    def _update(self, metrics: MetricCollection, loss: Tensor, logits: Tensor, y: Tensor, num_real: int) -> None:
        for name, metric in metrics.items(keep_base=True, copy_state=False):
            if name == "loss":
                metric.update(loss, num_real)
            elif num_real:
                metric.update(logits[:num_real], y[:num_real])

    def _log(self, metrics: MetricCollection) -> None:
        self.log_dict({str(name): value for name, value in metrics.compute().items()})
        metrics.reset()


def _names(part: str, num_classes: int) -> tuple[str, ...]:
    # Top-5 is 1 by definition with five classes, and costs a sort a step, so training goes without.
    return ("loss", "acc", "top5") if num_classes > 5 and part != "train" else ("loss", "acc")


def _metrics(part: str, num_classes: int) -> MetricCollection:
    metrics: dict[str, Any] = {"loss": MeanLoss(), "acc": TopOneAccuracy()}
    if "top5" in _names(part, num_classes):
        metrics["top5"] = MulticlassAccuracy(num_classes, average="micro", top_k=5, validate_args=False)
    return MetricCollection(metrics, prefix=f"{part}/", compute_groups=False)
