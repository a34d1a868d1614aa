"""environment.json: against git itself, and against given processors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from lightning_lab.runs import environment


def git(folder: Path, *args: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *args]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "--message=one")
    monkeypatch.setattr(environment, "_SOURCE", tmp_path)
    return tmp_path


def test_everything_a_result_depends_on_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lightning-lab", "fit"])
    described = environment.describe_environment()
    assert described.keys() == {
        "lightning_lab", "commit", "dirty", "started", "command", "folder", "python", "versions", "hardware",
    }  # fmt: skip
    assert json.loads(json.dumps(described)) == described
    assert described["command"] == [sys.executable, "lightning-lab", "fit"]
    assert described["folder"] == str(tmp_path)
    assert described["versions"]["torch"] == metadata.version("torch")
    hardware = described["hardware"]
    assert hardware.keys() == {"host", "system", "processor", "cores", "memory_bytes", "bf16_units", "threads", "gpus"}
    assert hardware["threads"] == torch.get_num_threads()
    assert hardware["cores"] == len(os.sched_getaffinity(0))
    assert len(hardware["gpus"]) == torch.cuda.device_count()


def test_the_commit_is_the_one_that_git_names(checkout: Path) -> None:
    described = environment.describe_environment()
    assert (described["commit"], described["dirty"]) == (git(checkout, "rev-parse", "HEAD"), False)


@pytest.mark.parametrize("name", ["file", "other"])
def test_a_changed_and_a_new_file_make_it_dirty(checkout: Path, name: str) -> None:
    (checkout / name).write_text("two")
    described = environment.describe_environment()
    assert (described["commit"], described["dirty"]) == (git(checkout, "rev-parse", "HEAD"), True)


@pytest.mark.parametrize("missing", ["checkout", "commit", "git"])
def test_without_a_commit_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkout: Path, missing: str
) -> None:
    if missing == "checkout":
        (tmp_path / ".git").rename(tmp_path / "elsewhere")
    elif missing == "commit":
        (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/nothing\n")
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    described = environment.describe_environment()
    assert (described["commit"], described["dirty"]) == (None, None)


def test_a_package_that_is_missing_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "no-such-package-here"))
    assert environment.versions() == {
        "numpy": metadata.version("numpy"),
        "no-such-package-here": "not installed",
    }


@pytest.mark.parametrize(
    ("flags", "units"),
    [
        ("fpu avx512_bf16 amx_bf16 amx_tile amx_int8", "amx"),
        ("fpu amx_bf16 amx_tile", "amx"),
        ("fpu avx512_bf16 amx_tile", "avx512"),
        ("fpu avx512_bf16", "avx512"),
        ("fpu avx512f avx512_bf16x", "none"),
        ("", "none"),
    ],
)
def test_units_for_bf16_are_read_from_the_flags(monkeypatch: pytest.MonkeyPatch, flags: str, units: str) -> None:
    monkeypatch.setattr(environment, "_cpu_field", {"flags": flags, "model name": "a processor"}.__getitem__)
    assert environment.bf16_units() == units
    assert environment.hardware()["bf16_units"] == units
    assert environment.hardware()["processor"] == "a processor"
