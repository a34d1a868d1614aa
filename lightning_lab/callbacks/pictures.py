"""What the test looks like: the confusion matrix and the images that were most surely taken for something else."""

from __future__ import annotations

from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import Metric

from lightning_lab.runs.directory import RunDirectory
from lightning_lab.runs.files import write_whole
from lightning_lab.runs.tensorboard import RunTensorBoard

#: Images on the page: 6 rows of 8.
PAGE = 48
_COLUMNS = 8


class Pictures(Callback):
    """Draw ``confusion_matrix.png`` and ``misclassified.png`` into the run's folder and into TensorBoard.

    Works for tasks that have a metric ``test_confusion`` and return their logits from ``test_step``.

    Args:
        run: Where to write.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._wrong: list[tuple[float, int, int, Tensor]] = []  # confidence, taken for, is, image

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the images of an earlier test."""
        self._wrong = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the images of the batch that were taken for something else."""
        x = batch[0]
        if not isinstance(outputs, Tensor) or x.dim() != 4 or not hasattr(pl_module, "test_confusion"):
            return
        sure, guess = outputs.float().softmax(dim=1).max(dim=1)
        y = batch[1][: len(guess)]
        for i in (guess != y).nonzero().flatten().tolist():
            self._wrong.append((float(sure[i]), int(guess[i]), int(y[i]), x[i].float().cpu()))
        self._wrong = sorted(self._wrong, key=lambda one: -one[0])[:PAGE]

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw. Every process takes part in adding up the matrix; the first one draws."""
        confusion = getattr(pl_module, "test_confusion", None)
        if not isinstance(confusion, Metric):
            return
        matrix = confusion.compute().cpu()
        confusion.reset()
        if not trainer.is_global_zero:
            return
        names = getattr(trainer.datamodule, "class_names", None)  # type: ignore[attr-defined]
        names = names or tuple(map(str, range(len(matrix))))
        self._publish(trainer, "confusion_matrix", draw_confusion(matrix, names))
        if self._wrong:
            self._publish(trainer, "misclassified", draw_misclassified(self._wrong, names))

    def _publish(self, trainer: Trainer, name: str, figure: Figure) -> None:
        write_whole(self.run.path / f"{name}.png", lambda file: figure.savefig(file, format="png", dpi=120))
        if isinstance(trainer.logger, RunTensorBoard):
            canvas: Any = FigureCanvasAgg(figure)  # untyped in matplotlib
            canvas.draw()
            image = np.asarray(canvas.buffer_rgba())[:, :, :3]  # (H, W, 3)
            trainer.logger.part("test").add_image(name, image, trainer.global_step, dataformats="HWC")


def draw_confusion(matrix: Tensor, names: tuple[str, ...]) -> Figure:
    """Draw a confusion matrix, coloured by the share of each true class.

    Args:
        matrix: Counts; rows are the true classes, columns the predicted ones. Shape (K, K).
        names: The K class names.
    """
    size = max(4.5, 0.6 * len(names) + 1.5)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    share = matrix / matrix.sum(dim=1, keepdim=True).clamp_min(1)
    axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true")
    right, total = int(matrix.diagonal().sum()), int(matrix.sum())
    axes.set_title(f"{right} of {total} right ({right / max(total, 1):.2%})")
    if len(names) <= 30:
        for i, row in enumerate(matrix.tolist()):
            for j, count in enumerate(row):
                if count:
                    colour = "white" if share[i, j] > 0.5 else "black"
                    axes.text(j, i, str(count), ha="center", va="center", color=colour, fontsize=8)
    return figure


def draw_misclassified(wrong: list[tuple[float, int, int, Tensor]], names: tuple[str, ...]) -> Figure:
    """Draw images with what they were taken for and what they are, the surest mistakes first.

    Args:
        wrong: Confidence, predicted class, true class and image (C, H, W) of each.
        names: The class names.
    """
    rows = -(-len(wrong) // _COLUMNS)
    figure = Figure(figsize=(1.4 * _COLUMNS, 1.8 * rows + 0.3), layout="constrained")
    figure.suptitle("Most confident mistakes: what the net said, how sure it was, and what is true", fontsize=10)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (sure, guess, label, image) in zip(grid.flat, wrong, strict=False):
        low, high = image.min(), image.max()
        shown = ((image - low) / (high - low).clamp_min(1e-6)).permute(1, 2, 0)  # (H, W, C)
        axes.imshow(shown.squeeze(2).numpy() if shown.shape[2] == 1 else shown.numpy(), cmap="gray")
        axes.set_title(f"{names[guess]} ({sure:.0%})\ntrue: {names[label]}", fontsize=8)
    return figure
