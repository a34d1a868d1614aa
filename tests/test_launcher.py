"""Who is lost and how that is told, with real processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from lightning_lab.launcher import Launcher, watch_processes
from lightning_lab.runs import agreement

SLEEPS = "import time; time.sleep(60)"


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def launcher(*processes: subprocess.Popen[bytes]) -> Launcher:
    built = Launcher(_SubprocessScriptLauncher(LightningEnvironment(), 1 + len(processes), 1), lambda error: None)
    built.procs = list(processes)
    built.others = {rank: process.pid for rank, process in enumerate(processes, start=1)}
    return built


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (SLEEPS, None),
        ("", None),  # it was done
        ("raise SystemExit(3)", "Process 2 of this run ended with code 3. It may have said why."),
        ("import os; os.kill(os.getpid(), 9)", "Process 2 of this run was lost to SIGKILL."),
    ],
)
def test_how_a_process_that_was_started_here_has_ended(
    children: list[subprocess.Popen[bytes]], code: str, told: str | None
) -> None:
    children += [subprocess.Popen([sys.executable, "-c", one]) for one in (SLEEPS, code)]
    watch = launcher(*children)
    assert watch._who() == told


def test_a_dead_process_that_nobody_asked_after_is_lost(children: list[subprocess.Popen[bytes]]) -> None:
    children.append(subprocess.Popen([sys.executable, "-c", ""]))
    watch = launcher()
    watch.others = {0: children[0].pid}
    assert watch._who() == "Process 0 of this run was lost."


def test_only_processes_of_this_machine_are_watched(children: list[subprocess.Popen[bytes]]) -> None:
    children += [subprocess.Popen([sys.executable, "-c", SLEEPS]) for _ in range(2)]
    watch = launcher()
    watch.meet(0, [(0, children[0].pid), (1, children[1].pid), (0, 2**22 + 1)])
    assert watch.others == {0: children[0].pid}


def test_what_hangs_is_killed(children: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_lab.launcher.GRACE_S", 0.2)
    children.append(subprocess.Popen([sys.executable, "-c", SLEEPS]))
    launcher(*children)._end_others()
    assert children[0].wait(5) == -9


def test_a_run_of_one_process_is_left_alone(tmp_path: Path) -> None:
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path)
    before = list(trainer.callbacks)
    watch_processes(trainer, lambda error: None)
    assert trainer.strategy.launcher is None
    assert trainer.callbacks == before


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[pair.cc:537] Connection closed by peer [127.0.0.1]:1"), True),
        (RuntimeError("Timed out waiting 1800000ms for recv operation to complete"), True),
        (dist.DistBackendError("NCCL error in: x, remote process exited or there was a network error"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("gloo"), False),
    ],
)
@pytest.mark.parametrize("several", [True, False])
def test_which_errors_tell_of_a_lost_process(
    error: Exception, lost: bool, several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "_are_several", lambda: several)
    assert agreement.tells_of_a_lost_process(error) is (lost and several)


def test_one_process_agrees_with_itself() -> None:
    assert (agreement.largest(-3), agreement.everyones((1.5, 2))) == (-3, [(1.5, 2)])
