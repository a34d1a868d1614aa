"""Whatever happens to a save, at whichever system call: a valid checkpoint is there, and the next save works."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faulty_disk
import pytest
import torch
from faulty_disk import CALLS, FAULTS

from lightning_lab.runs.checkpoint_io import newest_sound, read_checkpoint, with_digest

#: Before this call the old generation stands under the name, after it the new one.
DECISIVE = "rename to last"


def generation(number: int) -> bytes:
    content = io.BytesIO()
    torch.save({"epoch": number, "state_dict": {"weight": torch.full((5000,), float(number))}}, content)
    return with_digest(content.getvalue())


class Saver:
    """Saves generation 3, with a fault, where 2 (and 1 before it) are; then generation 4 without one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def save(self, run: Path, start: list[int], **order: Any) -> dict[str, Any]:
        (run / "checkpoints").mkdir(parents=True)
        for name, number in zip(("last", "last.previous"), start, strict=False):
            (run / "checkpoints" / f"{name}.ckpt").write_bytes(generation(number))
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"run": str(run), "links": True, **order}), file=self.process.stdin, flush=True)
        return dict(json.loads(self.process.stdout.readline()))


@pytest.fixture(scope="module")
def saver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saver]:
    folder = tmp_path_factory.mktemp("generations")
    for number in (3, 4):
        (folder / str(number)).write_bytes(generation(number))
    command = [sys.executable, faulty_disk.__file__, str(folder / "3"), str(folder / "4")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Saver(process)
        assert process.stdin is not None
        process.stdin.close()


def generations(run: Path) -> dict[str, int]:
    files = {path.name: path for path in (run / "checkpoints").iterdir() if path.suffix == ".ckpt"}
    return {name.removesuffix(".ckpt"): read_checkpoint(path)["epoch"] for name, path in sorted(files.items())}


def unfinished(run: Path) -> list[str]:
    return [path.name for path in (run / "checkpoints").iterdir() if path.suffix == ".tmp"]


def after(run: Path) -> Path:
    return run.with_name(f"{run.name}.after")


STARTS = pytest.mark.parametrize("start", [[2], [2, 1]], ids=["first", "later"])


@STARTS
def test_the_calls_are_these_and_in_this_order(saver: Saver, tmp_path: Path, start: list[int]) -> None:
    answer = saver.save(tmp_path / "run", start, at=None, fault="EIO")
    assert answer == {"code": 0, "error": None, "calls": list(CALLS)}
    assert generations(after(tmp_path / "run")) == {"last": 3, "last.previous": 2}


@STARTS
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.startswith("E")])
@pytest.mark.parametrize("at", [call for call in CALLS if call != "mkdir"])
def test_an_error(saver: Saver, tmp_path: Path, start: list[int], at: str, fault: str) -> None:
    run = tmp_path / "run"
    answer = saver.save(run, start, at=at, fault=fault)
    number = getattr(errno, fault)
    assert answer["error"] == f"[Errno {number}] {os.strerror(number)}: '{run}/checkpoints/last.ckpt'"
    there = generations(after(run))
    newest = 3 if CALLS.index(at) > CALLS.index(DECISIVE) else 2
    assert read_checkpoint(newest_sound(after(run) / "checkpoints" / "last.ckpt"))["epoch"] == newest
    assert there["last"] == newest
    assert there.keys() >= {"last", "last.previous"} or (len(start) == 1 and newest == 2)
    assert unfinished(after(run)) == []
    assert answer["code"] == 0
    assert generations(run) == {"last": 4, "last.previous": newest}  # the next save, of the same process
    assert unfinished(run) == []


@STARTS
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.startswith("kill")])
@pytest.mark.parametrize("at", CALLS)
def test_a_kill(saver: Saver, tmp_path: Path, start: list[int], at: str, fault: str) -> None:
    run = tmp_path / "run"
    answer = saver.save(run, start, at=at, fault=fault)
    assert answer == {"code": -signal.SIGKILL, "next": 0}
    there = generations(after(run))
    done = CALLS.index(at) + (fault == "kill after") > CALLS.index(DECISIVE)
    newest = 3 if done else 2
    assert read_checkpoint(newest_sound(after(run) / "checkpoints" / "last.ckpt"))["epoch"] == newest
    assert there["last"] == newest
    assert there.keys() >= {"last", "last.previous"} or (len(start) == 1 and newest == 2)
    assert generations(run) == {"last": 4, "last.previous": newest}  # the next process
    assert unfinished(run) == []


@STARTS
def test_a_short_write_is_continued(saver: Saver, tmp_path: Path, start: list[int]) -> None:
    answer = saver.save(tmp_path / "run", start, at="write", fault="short write")
    assert answer["error"] is None
    assert answer["calls"].count("write") > 1
    assert generations(after(tmp_path / "run")) == {"last": 3, "last.previous": 2}


@STARTS
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "short write"])
def test_without_hard_links_the_generation_before_serves(
    saver: Saver, tmp_path: Path, start: list[int], fault: str
) -> None:
    run = tmp_path / "run"
    at = "rename to previous" if fault == "kill after" else DECISIVE  # the moment without a last one
    answer = saver.save(run, start, at=at, fault=fault, links=False)
    assert answer["code"] == (-signal.SIGKILL if fault.startswith("kill") else 0)
    assert generations(after(run)) == {"last.previous": 2}
    with pytest.warns(UserWarning, match=r"There is no checkpoint .*last\.ckpt\. The one before it is used"):
        found = newest_sound(after(run) / "checkpoints" / "last.ckpt")
    assert found.name == "last.previous.ckpt"
    assert generations(run) == {"last": 4, "last.previous": 2}
    assert unfinished(run) == []
