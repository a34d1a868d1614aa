"""Mean and 95 % interval of each arm's curves as TensorBoard runs. Free of torch, unlike `runs.tensorboard`."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

from lightning_lab.runs.errors import NotWrittenError
from lightning_lab.studies.cells import Arm
from lightning_lab.studies.report.curves import band_of, line_of
from lightning_lab.studies.report.results import Comparison

#: The runs of an arm.
RUNS = ("mean", "ci_low", "ci_high")


def write_events(comparison: Comparison, folder: Path) -> None:
    """Write the curves of the runs that are in the statistics; the step is the epoch.

    Args:
        comparison: The study's results.
        folder: Where the runs go, ``<folder>/<arm>/mean`` and so on; what was there is deleted.

    Raises:
        NotWrittenError: If the folder cannot be written.
    """
    study = comparison.study
    metrics = list(dict.fromkeys([study.metric, "train/loss", "val/loss"]))
    try:
        if folder.exists():
            shutil.rmtree(folder)
        for arm, name in zip(study.arms, folder_names(study.arms), strict=True):
            rows = [result.rows for result in comparison.of(arm.name) if comparison.is_counted(result)]
            bands = {metric: band_of([line_of(of_run, metric) for of_run in rows]) for metric in metrics}
            for run, part in zip(RUNS, ("mean", "low", "high"), strict=True):
                lines = {
                    metric: list(zip(band.epochs.tolist(), getattr(band, part).tolist(), strict=True))
                    for metric, band in bands.items()
                }
                _write(folder / name / run, lines)
    except OSError as error:
        raise NotWrittenError(folder, error) from error


def folder_names(arms: Sequence[Arm]) -> list[str]:
    """Name a folder for each arm, also where two names differ only in what a folder's name cannot hold."""
    names: list[str] = []
    for arm in arms:
        count = sum(name == arm.slug or name.startswith(f"{arm.slug}~") for name in names)
        names.append(f"{arm.slug}~{count + 1}" if count else arm.slug)
    return names


def _write(folder: Path, lines: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    now = time.time()
    events = [
        Event(wall_time=now, step=epoch, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))
        for tag, line in lines.items()
        for epoch, value in line
        if math.isfinite(value)
    ]
    if not events:
        return
    folder.mkdir(parents=True)
    with (folder / f"events.out.tfevents.{int(now):010d}.report").open("wb") as file:
        writer = RecordWriter(file)
        for event in [Event(wall_time=now, file_version="brain.Event:2"), *events]:
            writer.write(event.SerializeToString())
