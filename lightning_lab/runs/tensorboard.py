"""TensorBoard as a view of the run: train and validation curves on one chart, and the run's row in the hparams tab."""

from __future__ import annotations

import os
import platform
import re
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]
from torch.utils.tensorboard import FileWriter, SummaryWriter

#: ``train/loss`` becomes the tag ``loss`` of the sub-run ``train``, and so on: TensorBoard draws equal tags of
#: several runs on one chart. ``val/loss/rank0`` joins them as the tag ``loss`` of the sub-run ``val_rank0``. Other
#: names stay with the run itself.
_NAME = re.compile(r"(?P<part>train|val|test)/(?P<tag>.+?)(?:/(?P<rank>rank\d+))?")


class RunTensorBoard(TensorBoardLogger):
    """Write a run's events into its own folder.

    It is a view: where the disk takes no more events, the run goes on without them and says so at its end.

    Args:
        folder: The run's folder. It is not made here: one that is gone was deleted.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(save_dir=folder.parent, name="", version=folder.name, default_hp_metric=False)
        self._folder = folder
        self._writers: dict[str, SummaryWriter] = {}
        self._error: OSError | None = None
        self._purge_step: int | None = None  # of the files that a continued run finds

    @rank_zero_only
    def go_on(self, last: Mapping[str, Any]) -> None:
        """Make the curves of a run that continues those of its rows, whatever the killed process had written.

        Args:
            last: The last row of metrics.jsonl that is taken over; empty if there is none. Points from it on are
                forgotten, and it is written again: it may not have been.
        """
        self._purge_step = int(last.get("step", 1)) - 1
        values = {name: value for name, value in last.items() if name not in ("epoch", "step", "time_s")}
        self.log_metrics({name: value for name, value in values.items() if value is not None}, self._purge_step)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars, each to the sub-run that its name begins with."""
        for name, value in metrics.items():
            if name == "epoch":
                continue  # the step is the axis; a curve of the epoch says nothing
            found = _NAME.fullmatch(name)
            if found is None:
                self.experiment.add_scalar(name, value, step)
            else:
                part = f"{found['part']}_{found['rank']}" if found["rank"] else found["part"]
                self.part(part).add_scalar(found["tag"], value, step)

    def part(self, name: str) -> SummaryWriter:
        """Open the writer of a sub-run, for example ``test``, at its first use."""
        if name not in self._writers:
            self._writers[name] = _LazyWriter(self._folder / name, self._folder, self._note, self._purge_step)
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
        """Close the writers; say what could not be written, unless the run has failed and says that itself."""
        self.save()
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
        error, self._error = self._error, None
        if error is not None and status == "success":
            warnings.warn(
                f"The curves in TensorBoard are not complete ({error.strerror}: {error.filename}); metrics.jsonl is.",
                stacklevel=2,
            )

    def _note(self, error: OSError) -> None:
        self._error = self._error or error


class _LazyWriter(SummaryWriter):
    """A writer that makes its file at the first event; Lightning opens one for verbs that write nothing too."""

    def __init__(self, folder: Path, run: Path, note: Callable[[OSError], None], purge_step: int | None) -> None:
        self._run = run
        self._note = note
        self._ready = False
        super().__init__(log_dir=str(folder), purge_step=purge_step)
        self._ready = True

    def _get_file_writer(self) -> Any:
        if self._ready and self.file_writer is None:
            # What FileWriter's own constructor would take has a thread, which prints a traceback on a full disk.
            self.file_writer: Any = FileWriter.__new__(FileWriter)
            self.file_writer.event_writer = _EventsFile(Path(self.log_dir), self._run, self._note)
            self.all_writers: Any = {self.log_dir: self.file_writer}
            if self.purge_step is not None:
                start = SessionLog(status=SessionLog.START)
                self.file_writer.add_event(Event(session_log=start), self.purge_step)
        return self.file_writer if self._ready else None


class _EventsFile:
    """What TensorBoard's EventFileWriter does, until the first error."""

    def __init__(self, folder: Path, run: Path, note: Callable[[OSError], None]) -> None:
        self._folder = folder
        self._run = run
        self._note = note
        self._file: Any = None
        self._lost = False
        self._try(self._open)

    def get_logdir(self) -> str:
        return str(self._folder)

    def add_event(self, event: Event) -> None:
        self._try(lambda: RecordWriter(self._file).write(event.SerializeToString()))

    def flush(self) -> None:
        self._try(lambda: self._file.flush())

    def close(self) -> None:
        self.flush()
        if self._file is not None:
            with suppress(OSError):  # noted before
                self._file.close()

    def _open(self) -> None:
        if self._folder != self._run:
            self._folder.mkdir(exist_ok=True)
        # TensorBoard reads the files by their names: that of a continued run comes last, also where the clock was set
        # back in between.
        stamps = [path.name.split(".")[3] for path in self._folder.glob("events.out.tfevents.*")]
        after = max((int(stamp) for stamp in stamps if stamp.isdigit()), default=0)
        stamp = max(int(time.time()), after + 1)
        self._file = (self._folder / f"events.out.tfevents.{stamp:010d}.{platform.node()}.{os.getpid()}").open("xb")
        self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def _try(self, write: Callable[[], Any]) -> None:
        if self._lost:
            return
        try:
            write()
        except OSError as error:
            self._lost = True
            self._note(OSError(error.errno, error.strerror, error.filename or str(self._folder)))
