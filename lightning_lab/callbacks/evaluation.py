"""What an evaluation measures: one net, each example once, on any number of processes."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torchmetrics import MetricCollection

from lightning_lab.runs.agreement import everyones, take_buffers_of_first


class Evaluation(Callback):
    """Count the examples that entered a mean loss, and log the validation loss of each process beside that of all.

    Works for tasks that keep their mean losses as ``val_metrics["loss"]`` and ``test_metrics["loss"]``.
    """

    def __init__(self) -> None:
        self.examples: dict[str, int] = {}  # by part, over all processes

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let all processes measure the net of the first one, which is the one that is saved."""
        take_buffers_of_first(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As before a validation."""
        take_buffers_of_first(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add up; the task has not put its sums back to zero yet."""
        sums = self._add_up("val", trainer, pl_module)
        if len(sums) > 1:
            for rank, (total, count) in enumerate(sums):
                if count:  # the mean over no example is no number
                    pl_module.log(f"val/loss/rank{rank}", total / count, rank_zero_only=False)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add up."""
        self._add_up("test", trainer, pl_module)

    def _add_up(self, part: str, trainer: Trainer, pl_module: LightningModule) -> list[tuple[float, int]]:
        metrics = getattr(pl_module, f"{part}_metrics", None)
        if not isinstance(metrics, MetricCollection) or trainer.sanity_checking:
            return []
        loss: Any = dict(metrics.items(keep_base=True, copy_state=False)).get("loss")
        if not hasattr(loss, "count"):
            return []
        sums = everyones((float(loss.total), int(loss.count)))
        self.examples[part] = sum(count for _, count in sums)
        loader: Any = getattr(trainer, f"{part}_dataloaders")
        expected = len(getattr(loader, "examples", ()))
        # With trainer.limit_* some batches are left out.
        if expected and getattr(trainer, f"num_{part}_batches") == [len(loader)] and self.examples[part] != expected:
            raise RuntimeError(
                f"{self.examples[part]} examples were evaluated and the {part} part has {expected}: each has to count "
                "exactly once."
            )
        return sums
