"""The events of a run, read back with TensorBoard's own reader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from lightning_lab.runs.tensorboard import RunTensorBoard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "logs" / "one"
    folder.mkdir(parents=True)  # as the run's lock does
    return folder


@pytest.fixture
def logger(folder: Path) -> Iterator[RunTensorBoard]:
    logger = RunTensorBoard(folder)
    yield logger
    logger.finalize("success")


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def files(folder: Path) -> list[str]:
    return sorted(str(path.parent.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_there_is_no_file_before_the_first_event(logger: RunTensorBoard, folder: Path) -> None:
    logger.part("train")
    assert logger.experiment is logger.part(".")
    logger.log_hyperparams({"lr": 0.1})
    logger.save()
    logger.finalize("success")
    assert files(folder) == []


@pytest.mark.parametrize(
    ("name", "part", "tag"),
    [
        ("train/loss", "train", "loss"),
        ("val/loss", "val", "loss"),
        ("test/acc", "test", "acc"),
        ("val/loss/rank0", "val_rank0", "loss"),
        ("val/loss/rank12", "val_rank12", "loss"),
        ("val/loss/other", "val", "loss/other"),
        ("lr", ".", "lr"),
        ("other/loss", ".", "other/loss"),
        ("train", ".", "train"),
        ("train/", ".", "train/"),
    ],
)
def test_a_name_says_which_sub_run_a_scalar_belongs_to(
    logger: RunTensorBoard, folder: Path, name: str, part: str, tag: str
) -> None:
    logger.log_metrics({name: 0.5, "epoch": 0}, step=3)
    logger.log_metrics({name: 0.25, "epoch": 1}, step=6)
    logger.save()
    assert files(folder) == [part]
    assert read(folder / part).Tags()["scalars"] == [tag]
    assert points(folder / part, tag) == [(3, 0.5), (6, 0.25)]


def test_a_part_is_one_writer(logger: RunTensorBoard, folder: Path) -> None:
    writer = logger.part("test")
    assert logger.part("test") is writer
    writer.add_text("note", "words")
    logger.log_metrics({"test/loss": 0.5}, step=1)
    logger.save()
    assert files(folder) == ["test"]
    assert read(folder / "test").Tags()["tensors"] == ["note/text_summary"]
    assert points(folder / "test", "loss") == [(1, 0.5)]


def test_the_result_is_a_row_of_the_hparams_tab(logger: RunTensorBoard, folder: Path) -> None:
    settings = {"lr": 0.5, "epochs": 3, "on": True, "net": None, "sizes": [1, 2]}
    logger.log_result(settings, {"best/val/loss": 0.25})
    logger.save()
    events = read(folder)
    assert events.Tags()["scalars"] == ["best/val/loss"]
    assert points(folder, "best/val/loss") == [(0, 0.25)]
    data = HParamsPluginData.FromString(events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    row = {name: getattr(value, value.WhichOneof("kind")) for name, value in data.session_start_info.hparams.items()}
    assert row == {"lr": 0.5, "epochs": 3, "on": True, "net": "None", "sizes": "[1, 2]"}
    assert files(folder) == ["."]  # and no hparams.yaml


def test_after_the_end_it_can_write_again(logger: RunTensorBoard, folder: Path) -> None:
    logger.log_metrics({"train/loss": 0.5}, step=1)
    logger.finalize("success")
    logger.log_metrics({"test/loss": 0.25}, step=1)
    logger.finalize("success")
    assert (points(folder / "train", "loss"), points(folder / "test", "loss")) == ([(1, 0.5)], [(1, 0.25)])


def test_a_run_that_continues_forgets_what_it_does_again_and_writes_what_was_lost(folder: Path) -> None:
    killed = RunTensorBoard(folder)
    for step, value in ((1, 1.0), (3, 2.0), (4, 9.0)):  # the last one after its save
        killed.log_metrics({"val/loss": value, "lr": value}, step)
    killed.finalize("failed")
    continued = RunTensorBoard(folder)
    continued.go_on({"epoch": 2, "step": 4, "time_s": 1.0, "val/loss": 2.0, "lr": 2.0, "val/acc": None})
    continued.log_metrics({"val/loss": 3.0, "lr": 3.0}, 5)
    continued.finalize("success")
    for part, tag in (("val", "loss"), (".", "lr")):
        events = EventAccumulator(str(folder / part)).Reload()
        assert [(event.step, event.value) for event in events.Scalars(tag)] == [(1, 1.0), (3, 2.0), (5, 3.0)]
        assert events.Tags()["scalars"] == [tag]
