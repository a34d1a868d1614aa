"""A file is there whole or not at all: failures at every point of the writing, and what a plain file would have."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from lightning_lab.runs.errors import NotWrittenError
from lightning_lab.runs.files import remove_unfinished, write_bytes, write_json, write_text, write_whole


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "file.txt"
    path.parent.mkdir()
    path.write_bytes(b"old")
    return path


def refuse(*args: Any, **kwargs: Any) -> None:
    raise OSError("disk full")


def refuse_with(number: int) -> Callable[..., None]:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def folders_only(refuse: Callable[[int], None]) -> Callable[[int], None]:
    fsync = os.fsync
    return lambda file: refuse(file) if Path(f"/proc/self/fd/{file}").is_dir() else fsync(file)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("error", [ValueError("half"), KeyboardInterrupt("half"), OSError("half")])
def test_a_failure_in_the_middle_of_writing_leaves_the_old_file(old: Path, error: BaseException) -> None:
    def half(file: BinaryIO) -> None:
        file.write(b"new" * 100_000)  # more than a buffer, so that some of it is in the temporary file
        raise error

    with pytest.raises(type(error), match="half"):
        write_whole(old, half)
    assert {path: path.read_bytes() for path in old.parent.iterdir()} == {old: b"old"}


@pytest.mark.parametrize(("owner", "name"), [(os, "fsync"), (Path, "replace"), (Path, "chmod")])
def test_a_failure_of_the_disk_leaves_the_old_file(
    old: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, refuse)
        with pytest.raises(NotWrittenError, match=f"disk full: '{re.escape(str(old))}'$"):
            write_text(old, "new")
    assert {path: path.read_bytes() for path in old.parent.iterdir()} == {old: b"old"}


def test_the_bytes_are_on_disk_before_the_name_and_the_folder_after_it(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bytes]] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        seen.append(("folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file", old.read_bytes()))

    def replaced(self: Path, target: Path) -> Path:
        seen.append(("replace", self.read_bytes()))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    write_text(old, "new")
    assert seen == [("file", b"old"), ("replace", b"new"), ("folder", b"new")]


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_without_hard_links_the_old_file_is_kept_all_the_same(
    old: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "link", refuse_with(number))
    write_bytes(old, b"new", keep=old.with_name("kept"))
    assert contents(old.parent) == {"file.txt": b"new", "kept": b"old"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_link_that_fails_for_another_reason_leaves_everything(
    old: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write_bytes(old, b"newer", keep=old.with_name("kept"))
    monkeypatch.setattr(os, "link", refuse_with(number))
    with pytest.raises(NotWrittenError) as caught:
        write_bytes(old, b"newest", keep=old.with_name("kept"))
    assert caught.value.errno == number
    assert contents(old.parent) == {"file.txt": b"newer", "kept": b"old"}


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_cannot_sync_a_folder_will_do(
    old: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", folders_only(refuse_with(number)))
    write_text(old, "new")
    assert contents(old.parent) == {"file.txt": b"new"}


def test_a_folder_that_fails_to_reach_the_disk_is_told(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", folders_only(refuse_with(errno.EIO)))
    with pytest.raises(NotWrittenError, match=os.strerror(errno.EIO)):
        write_text(old, "new")
    assert contents(old.parent) == {"file.txt": b"new"}


@pytest.mark.parametrize(
    ("allowed", "name", "made"),
    [(None, "a/b/file", True), (1, "a/file", True), (1, "a/b/file", False), (0, "file", True), (0, "a/file", False)],
)
def test_how_many_folders_are_made(tmp_path: Path, allowed: int | None, name: str, made: bool) -> None:
    with nullcontext() if made else pytest.raises(NotWrittenError, match="No such file or directory"):
        write_bytes(tmp_path / name, b"", new_folders=allowed)
    assert (tmp_path / name).exists() == made
    assert made or list(tmp_path.iterdir()) == []


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = {"last.ckpt", "note.tmp", ".hidden", ".predictions.csv.a1b2.tmp"}
    for name in (*kept, ".last.ckpt.a1b2.tmp", ".last.ckpt.a1b2.keep.tmp", ".last.ckpt.123.keep.tmp"):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path, but=("predictions.csv",))
    remove_unfinished(tmp_path / "missing")
    assert {path.name for path in tmp_path.iterdir()} == kept


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_permissions_are_those_of_a_plain_file(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        (tmp_path / "plain").touch()
        write_text(tmp_path / "whole", "text")
    finally:
        left = os.umask(before)
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert left == mask


def test_the_folder_is_created(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_text(path, "text")
    assert [one.name for one in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("text", ["", "one\ntwo\n", "one\r\ntwo", "ä β 数 \N{ELECTRIC LIGHT BULB}", "\x00"])
def test_text_is_written_as_utf_8_without_a_change(tmp_path: Path, text: str) -> None:
    write_text(tmp_path / "file", text)
    assert (tmp_path / "file").read_bytes() == text.encode("utf-8")


@pytest.mark.parametrize("value", [{}, [], None, {"a": [1, 2.5, None, True, "ä"], "b": {"c": 1e-300}}])
def test_json_comes_back_and_ends_with_a_line_feed(tmp_path: Path, value: Any) -> None:
    write_json(tmp_path / "file", value)
    text = (tmp_path / "file").read_text()
    assert json.loads(text) == value
    assert text.endswith("\n")


def test_what_json_cannot_hold_leaves_the_old_file(old: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(old, {"a": object()})
    assert {path: path.read_bytes() for path in old.parent.iterdir()} == {old: b"old"}
