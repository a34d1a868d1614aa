"""TensorBoard as a view of the run: train and validation curves on one chart, and the run's row in the hparams tab."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard import SummaryWriter

#: ``train/loss`` becomes the tag ``loss`` of the sub-run ``train``, and so on: TensorBoard draws equal tags of
#: several runs on one chart. Other names stay with the run itself.
_PARTS = ("train", "val", "test")


class RunTensorBoard(TensorBoardLogger):
    """Write a run's events into its own folder.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(save_dir=folder.parent, name="", version=folder.name, default_hp_metric=False)
        self._folder = folder
        self._writers: dict[str, SummaryWriter] = {}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars, each to the sub-run that its name begins with."""
        for name, value in metrics.items():
            part, _, tag = name.partition("/")
            if name == "epoch":
                continue  # the step is the axis; a curve of the epoch says nothing
            if part in _PARTS and tag:
                self.part(part).add_scalar(tag, value, step)
            else:
                self.experiment.add_scalar(name, value, step)

    def part(self, name: str) -> SummaryWriter:
        """Open the writer of a sub-run, for example ``test``, at its first use."""
        if name not in self._writers:
            self._writers[name] = _LazyWriter(self._folder / name)
        return self._writers[name]

    @property
    @rank_zero_experiment
    def experiment(self) -> SummaryWriter:
        """TensorBoard's own writer, for everything this class does not know."""
        return self.part(".")

    @rank_zero_only
    def log_result(self, settings: Mapping[str, Any], result: Mapping[str, float]) -> None:
        """Write the run's row of the hparams tab, once, when the result is known.

        Args:
            settings: Dotted keys and their values.
            result: Metrics by name.
        """
        kept = {key: value if isinstance(value, bool | int | float) else str(value) for key, value in settings.items()}
        super().log_hyperparams(kept, metrics=dict(result), step=0)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: Lightning calls it before there is a result to show."""

    @rank_zero_only
    def save(self) -> None:
        """Force the events to disk; there is no hparams.yaml, because config.yaml has it all."""
        for writer in self._writers.values():
            writer.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the writers."""
        self.save()
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


class _LazyWriter(SummaryWriter):
    """A writer that makes its file at the first event; Lightning opens one for verbs that write nothing too."""

    def __init__(self, folder: Path) -> None:
        self._ready = False
        super().__init__(log_dir=str(folder))
        self._ready = True

    def _get_file_writer(self) -> Any:
        return super()._get_file_writer() if self._ready else None  # type: ignore[no-untyped-call]
