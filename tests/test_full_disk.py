"""A disk that is full, read only or gone: one message with the remedy, exit code 2, and nothing lost."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import Answer, Lab
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_lab.__main__ import main
from lightning_lab.callbacks.pictures import Pictures
from lightning_lab.callbacks.record import RunRecord
from lightning_lab.runs.checkpoint_io import newest_sound, read_checkpoint
from lightning_lab.runs.directory import RunDirectory
from lightning_lab.runs.errors import NotWrittenError
from lightning_lab.runs.lock import RunLock
from lightning_lab.runs.tensorboard import RunTensorBoard
from lightning_lab.runs.writer import BackgroundWriter

FIT = (
    "fit", "--config=digits/mlp", "--trainer.max_epochs=3", "--trainer.limit_train_batches=4", "--run.name=one",
    "--lr_schedule=null", "--trainer.accelerator=cpu", "--progress=null",
)  # fmt: skip


class SmallDisk:
    """A file system of 4 MB in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.filler = path / "filler"

    def fill(self) -> None:
        with self.filler.open("ab", buffering=0) as file, pytest.raises(OSError, match="No space left on device"):
            file.writelines(itertools.repeat(bytes(4096)))

    def free(self) -> None:
        self.filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "logs"
    path.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount a small disk")
    yield SmallDisk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTNING_LAB_RUN", "")
        assert main([*FIT, f"--run.logs={folder}"]) == 0
    return RunDirectory(folder / "mlp" / "one")


RUN = RunDirectory(Path("logs/mlp/one"))


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int, Callable[[], None]], None]:
    """Do something just before the n-th content of a file is handed to the writer, all earlier files being written."""

    def install(name: str, number: int, act: Callable[[], None]) -> None:
        put, count = BackgroundWriter.put, itertools.count(1)

        def wrapped(self: BackgroundWriter, path: Path, content: bytes) -> None:
            if path.name == name and next(count) == number:
                self.drain()
                act()
                put(self, path, content)
                with self._changed:  # the file that fails is this one, and not one that is handed over after it
                    self._changed.wait_for(lambda: not self._waiting and not self._writing)
            else:
                put(self, path, content)

        monkeypatch.setattr(BackgroundWriter, "put", wrapped)

    return install


def assert_told(answer: Answer, message: str) -> None:
    assert (answer.code, answer.err) == (2, f"error: {message}\n")
    assert "Traceback" not in answer.out


def assert_the_same(run: RunDirectory, other: RunDirectory) -> None:
    for one, two in ((run.best, other.best), (run.last, other.last)):
        a, b = read_checkpoint(one), read_checkpoint(two)
        assert a["epoch"] == b["epoch"]
        assert all(torch.equal(a["state_dict"][key], b["state_dict"][key]) for key in b["state_dict"])
    rows = [[{k: v for k, v in row.items() if k != "time_s"} for row in each.read_metrics()] for each in (run, other)]
    assert rows[0] == rows[1]
    assert run.read_summary()["status"] == "completed"


@pytest.mark.parametrize("file", ["best.ckpt", "last.ckpt", "metrics.jsonl", "summary.json"])
def test_full_while_a_run_saves(lab: Lab, disk: SmallDisk, before: Any, uninterrupted: RunDirectory, file: str) -> None:
    number = 3 if file == "summary.json" else 2  # the first summary is of the start
    before(file, number, disk.fill)
    answer = lab(*FIT)
    path = RUN.checkpoints / file if file.endswith(".ckpt") else RUN.path / file
    remedy = f"Free some space, then continue with: lightning-lab fit --config {RUN.config}"
    assert_told(answer, f"No space left on device: {path} could not be written. {remedy}")
    assert read_checkpoint(newest_sound(RUN.last))["state_dict"]
    assert RUN.read_summary()["status"] in ("running", "failed")
    assert [row["epoch"] for row in RUN.read_metrics()] in ([1], [1, 2])
    assert list(RUN.path.rglob(".*.tmp")) == []
    disk.free()
    again = lab("fit", "--config", str(RUN.config), "--run.threads=1")
    assert (again.code, again.err) == (0, "")
    assert_the_same(RUN, uninterrupted)
    times = [row["time_s"] for row in RUN.read_metrics()]
    assert times == sorted(times)


def test_full_from_the_beginning(lab: Lab, disk: SmallDisk) -> None:
    disk.fill()
    answer = lab(*FIT)
    remedy = "Free some space, then repeat the command."
    assert_told(answer, f"No space left on device: {RUN.path}/.owner.json could not be written. {remedy}")
    assert not RUN.path.exists()
    disk.free()
    assert lab(*FIT).code == 0


def test_full_when_the_training_starts(lab: Lab, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    acquire = RunLock.acquire

    def acquire_and_fill(self: RunLock) -> None:
        acquire(self)
        disk.fill()

    monkeypatch.setattr(RunLock, "acquire", acquire_and_fill)
    answer = lab(*FIT)
    remedy = "Free some space, then repeat the command."
    assert_told(answer, f"No space left on device: {RUN.config} could not be written. {remedy}")
    assert not RUN.path.exists()


@pytest.mark.parametrize("moment", ["confusion_matrix.png", "summary.json"])
def test_full_while_the_test_writes(lab: Lab, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    assert lab(*FIT).code == 0
    summary = RUN.summary.read_bytes()
    owner, hook = {
        "confusion_matrix.png": (Pictures, "on_test_epoch_end"),
        "summary.json": (RunRecord, "on_test_end"),
    }[moment]
    real = getattr(owner, hook)

    def fill_first(self: Any, *args: Any) -> None:
        disk.fill()
        real(self, *args)

    monkeypatch.setattr(owner, hook, fill_first)
    answer = lab("test", f"--config={RUN.config}")
    remedy = "Free some space, then repeat the command."
    assert_told(answer, f"No space left on device: {RUN.path / moment} could not be written. {remedy}")
    assert RUN.summary.read_bytes() == summary
    monkeypatch.setattr(owner, hook, real)
    disk.free()
    assert lab("test", f"--config={RUN.config}").code == 0
    assert RUN.read_summary()["test"].keys() >= {"test/acc", "test/loss"}


def test_full_for_tensorboard_alone(
    lab: Lab, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, uninterrupted: RunDirectory
) -> None:
    log, count = RunTensorBoard.log_metrics, itertools.count(1)

    def full_once(self: RunTensorBoard, *args: Any, **kwargs: Any) -> None:
        full = next(count) == 2
        if full:
            disk.fill()
        log(self, *args, **kwargs)
        self.save()
        if full:
            disk.free()

    monkeypatch.setattr(RunTensorBoard, "log_metrics", full_once)
    threads = threading.active_count()
    message = r"^The curves in TensorBoard are not complete \(No space left on device: .*/one\); metrics\.jsonl is\.$"
    with pytest.warns(UserWarning, match=message) as said:
        answer = lab(*FIT)
    assert len(said) == 1
    assert (answer.code, answer.err) == (0, "")
    assert threading.active_count() <= threads + 1  # the writer's
    assert_the_same(RUN, uninterrupted)


@pytest.mark.parametrize("what", ["run", "logs"])
@pytest.mark.parametrize(("file", "number"), [("metrics.jsonl", 1), ("last.ckpt", 1), ("best.ckpt", 2)])
def test_a_run_deleted_while_it_is_under_way(
    lab: Lab, tmp_path: Path, before: Any, what: str, file: str, number: int
) -> None:
    deleted = RUN.path if what == "run" else Path("logs")
    before(file, number, lambda: shutil.rmtree(deleted))
    answer = lab(*FIT)
    path = RUN.checkpoints / file if file.endswith(".ckpt") else RUN.path / file
    remedy = "Its folder was deleted or moved: put it back, then repeat the command."
    assert_told(answer, f"No such file or directory: {path} could not be written. {remedy}")
    assert not deleted.exists()


def test_a_disk_that_can_only_be_read(lab: Lab, disk: SmallDisk) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk.path)], check=True)
    answer = lab(*FIT)
    assert_told(answer, f"The run cannot be written: {disk.path} is not writable. Choose another --run.logs.")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_of_somebody_else(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lab("fit", "--model.net.dropout=2").code == 2  # everything is imported by who may read it
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        monkeypatch.chdir(name)
        os.setresuid(65534, 65534, 0)  # the real one too: it is the one that os.access goes by
        try:
            answer = lab(*FIT, "--run.logs=.")
        finally:
            os.setresuid(0, 0, 0)
        monkeypatch.chdir(tmp_path)
    assert_told(answer, f"The run cannot be written: {name} is not writable. Choose another --run.logs.")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (5, "Input/output error: {} could not be written. The disk or its connection has failed: see to it, then"),
        (13, "Permission denied: {} could not be written. Make it writable, then"),
        (27, "File too large: {} could not be written. Raise the limit on the size of a file (ulimit -f), then"),
        (30, "Read-only file system: {} could not be written. The disk can only be read: mount it for writing, then"),
        (116, "Stale file handle: {} could not be written. The disk's server has lost it: mount it again, then"),
        (122, "Disk quota exceeded: {} could not be written. Free some space, or have your quota raised, then"),
    ],
)
def test_other_errors_of_a_disk(lab: Lab, monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    def refuse(self: RunLock) -> None:
        raise NotWrittenError(RUN.config, OSError(number, os.strerror(number)))

    monkeypatch.setattr(RunLock, "acquire", refuse)
    assert_told(lab(*FIT), f"{words.format(RUN.config)} repeat the command.")


def test_a_clock_that_is_set_back(
    lab: Lab, before: Any, monkeypatch: pytest.MonkeyPatch, uninterrupted: RunDirectory
) -> None:
    now, day = time.time, itertools.count(1)
    monkeypatch.setattr(time, "time", lambda: now() - 86400 * next(day))  # by a day at every look

    def refuse() -> None:
        raise KeyboardInterrupt

    before("metrics.jsonl", 2, refuse)
    assert lab(*FIT).code == 130
    assert lab(*FIT).code == 0
    assert_the_same(RUN, uninterrupted)
    times = [row["time_s"] for row in RUN.read_metrics()]
    assert times == sorted(times)
    events = EventAccumulator(str(RUN.path / "train"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [row["step"] - 1 for row in RUN.read_metrics()]
    (line,) = lab("runs").out.splitlines()[1:]
    assert line.endswith(" 0 s")
    assert json.loads(RUN.summary.read_text())["wall_s"] >= times[-1]
