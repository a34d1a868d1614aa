"""Files written beside the training: in order, the newest content, errors told, nothing lost at the end."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightning_lab.runs import writer as module
from lightning_lab.runs.errors import NotWrittenError
from lightning_lab.runs.writer import BackgroundWriter


class Disk:
    """A disk that writes one file at a time, each when it is told to, and keeps the order."""

    def __init__(self) -> None:
        self.written: list[tuple[str, bytes]] = []
        self.started = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.error: OSError | None = None

    def write(self, path: Path, content: bytes, *, keep: Path | None, new_folders: int | None) -> None:
        self.started.release()
        assert self.go_on.acquire(timeout=10)
        if self.error is not None:
            raise self.error
        self.written.append((path.name, content))

    def free(self) -> None:
        self.go_on.release(100)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr(module, "write_bytes", disk.write)
    yield disk
    disk.free()


def test_what_was_put_is_on_the_disk_after_draining(tmp_path: Path) -> None:
    writer = BackgroundWriter()
    for number in range(20):
        writer.put(tmp_path / "folder" / f"{number % 5}", bytes([number]))
    writer.drain()
    assert {path.name: path.read_bytes()[0] for path in (tmp_path / "folder").iterdir()} == {
        str(number): 15 + number for number in range(5)
    }


def test_putting_does_not_wait_and_the_newest_content_is_written(disk: Disk, tmp_path: Path) -> None:
    writer = BackgroundWriter()
    writer.put(tmp_path / "last.ckpt", b"1")
    assert disk.started.acquire(timeout=10)
    for content in (b"2", b"3", b"4"):  # while the first is being written
        writer.put(tmp_path / "last.ckpt", content)
    disk.free()
    writer.drain()
    assert disk.written == [("last.ckpt", b"1"), ("last.ckpt", b"4")]


def test_the_best_checkpoint_comes_before_the_last_and_the_views_come_behind(disk: Disk, tmp_path: Path) -> None:
    writer = BackgroundWriter()
    writer.put(tmp_path / "first", b"")
    assert disk.started.acquire(timeout=10)
    for name in ("other", "summary.json", "metrics.jsonl", "last.ckpt", "best.ckpt"):
        writer.put(tmp_path / name, b"")
    disk.free()
    writer.drain()
    assert [name for name, _ in disk.written] == [
        "first", "best.ckpt", "last.ckpt", "metrics.jsonl", "summary.json", "other",
    ]  # fmt: skip


def test_draining_waits_for_the_file_that_is_being_written(disk: Disk, tmp_path: Path) -> None:
    writer = BackgroundWriter()
    writer.put(tmp_path / "last.ckpt", b"1")
    assert disk.started.acquire(timeout=10)
    drained = threading.Thread(target=writer.drain)
    drained.start()
    drained.join(0.2)
    assert drained.is_alive()
    disk.free()
    drained.join(10)
    assert not drained.is_alive()
    assert disk.written == [("last.ckpt", b"1")]


@pytest.mark.parametrize("call", ["put", "drain"])
def test_an_error_is_raised_once_in_the_thread_of_the_caller(disk: Disk, tmp_path: Path, call: str) -> None:
    writer = BackgroundWriter()
    disk.error = OSError(28, "No space left on device")
    disk.free()
    writer.put(tmp_path / "last.ckpt", b"1")
    if call == "put":
        with writer._changed:
            assert writer._changed.wait_for(lambda: writer._error is not None, timeout=10)
    calls: dict[str, Any] = {"put": lambda: writer.put(tmp_path / "last.ckpt", b"2"), "drain": writer.drain}
    with pytest.raises(OSError, match="No space left on device"):
        calls[call]()
    disk.error = None
    writer.put(tmp_path / "last.ckpt", b"3")
    writer.drain()
    assert disk.written == [("last.ckpt", b"3")]


def test_behind_a_file_that_failed_nothing_is_written(disk: Disk, tmp_path: Path) -> None:
    writer = BackgroundWriter()
    writer.put(tmp_path / "first", b"")
    assert disk.started.acquire(timeout=10)
    for name in ("best.ckpt", "last.ckpt", "metrics.jsonl"):  # a last one must not know of a best one that is not there
        writer.put(tmp_path / name, b"1")
    disk.error = OSError(28, "No space left on device")
    disk.go_on.release()
    assert disk.started.acquire(timeout=0.2) is False
    disk.error = None
    disk.free()
    with pytest.raises(OSError, match="No space left on device"):
        writer.drain()
    assert disk.written == []


def test_last_words_that_fail_too_do_not_hide_the_first_error(disk: Disk, tmp_path: Path) -> None:
    writer = BackgroundWriter()
    disk.free()
    disk.error = OSError(28, "the first")
    writer.put(tmp_path / "last.ckpt", b"1")
    with pytest.raises(OSError, match="the first") as first:
        writer.drain()
    disk.error = OSError(28, "the second")
    for word in (b"failed", b"failed again"):
        writer.put(tmp_path / "summary.json", word)  # not refused: the first error is told already
        with writer._changed:
            assert writer._changed.wait_for(lambda: not writer._waiting and not writer._writing, timeout=10)
    with pytest.raises(OSError, match="the first") as again:
        writer.drain()
    assert again.value is first.value
    writer.drain()  # told; and everything is as it can be


@pytest.mark.parametrize("name", ["run/metrics.jsonl", "run/checkpoints/last.ckpt", "run/pictures/new.png"])
def test_a_run_that_was_deleted_is_not_made_again(tmp_path: Path, name: str) -> None:
    writer = BackgroundWriter()
    writer.put(tmp_path / "run" / "metrics.jsonl", b"")
    writer.put(tmp_path / "run" / "checkpoints" / "last.ckpt", b"")
    writer.drain()
    shutil.rmtree(tmp_path / "run")
    writer.put(tmp_path / name, b"")
    with pytest.raises(NotWrittenError, match="No such file or directory"):
        writer.drain()
    assert not (tmp_path / "run").exists()


def test_nothing_to_write_is_drained_at_once() -> None:
    BackgroundWriter().drain()
