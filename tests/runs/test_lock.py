"""The lock of a run directory, with real processes: who has it, what a crash does to it, what is left behind."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_lab.runs.errors import InputError
from lightning_lab.runs.lock import LOCK, OWNER, RunLock, is_locked, owner_of

HOLDER = """
import sys, time
from pathlib import Path
from lightning_lab.runs.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_told_who_has_it_and_a_crash_frees_it(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    message = (
        rf"^The run {re.escape(str(tmp_path))} is under way: process {holder.pid} on {re.escape(platform.node())} "
        r"since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00\. Wait for it, stop it, or choose another --run\.name\.$"
    )
    with pytest.raises(InputError, match=message):
        RunLock(tmp_path).acquire()
    assert is_locked(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not is_locked(tmp_path)
    lock = RunLock(tmp_path)
    lock.acquire()
    assert owner_of(tmp_path).startswith(f"process {os.getpid()} on {platform.node()} since ")
    lock.release()


def test_an_owner_file_that_a_crash_left_says_nothing_about_the_lock(tmp_path: Path) -> None:
    (tmp_path / OWNER).write_text('{"pid": 1, "host": "elsewhere", "since": "long ago"}')
    (tmp_path / LOCK).touch()
    assert not is_locked(tmp_path)
    RunLock(tmp_path).acquire()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null"])
def test_an_owner_that_cannot_be_read_is_another_process(tmp_path: Path, content: str) -> None:
    (tmp_path / OWNER).write_text(content)
    assert owner_of(tmp_path) == "another process has its lock"


def test_a_run_that_wrote_nothing_leaves_no_folder(tmp_path: Path) -> None:
    lock = RunLock(tmp_path / "experiment" / "run")
    lock.acquire()
    lock.release()
    assert not (tmp_path / "experiment" / "run").exists()
    lock.release()  # twice is no mistake


def test_a_run_that_wrote_something_keeps_it(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    lock.acquire()
    (tmp_path / "config.yaml").touch()
    lock.release()
    assert {path.name for path in tmp_path.iterdir()} == {LOCK, "config.yaml"}
    assert not is_locked(tmp_path)


def test_a_folder_without_a_lock_is_not_locked(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "missing")
    assert not is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []
