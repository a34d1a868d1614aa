"""Real processes: two that train together, one that is told to stop, and a wheel in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support import Lab

import lightning_lab
from lightning_lab import shipped
from lightning_lab.__main__ import main
from lightning_lab.rehearsal.result import compare, result_of
from lightning_lab.runs.directory import RunDirectory

REPOSITORY = Path(lightning_lab.__file__).parents[1]
COMMAND = [sys.executable, "-m", "lightning_lab"]


def summary(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "summary.json").read_text()))


STOPPED = (
    "fit", "--config=digits/mlp", "--config=trainer/cpu", "--trainer.max_epochs=15", "--data.batch_size=4",
    "--lr_schedule=null", "--model.net.dropout=0.2",
)  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    logs = tmp_path_factory.mktemp("uninterrupted")
    assert main([*STOPPED, f"--run.logs={logs}", "--run.name=one"]) == 0
    return result_of(RunDirectory(logs / "mlp" / "one"))


def wait_for(path: Path, *processes: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        for process in processes:
            assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_told_command_goes_on(
    lab: Lab, number: signal.Signals, code: int, tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    run = tmp_path / "logs" / "mlp" / "one"
    command = [*COMMAND, *STOPPED, "--run.name=one"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(run / "metrics.jsonl", process)
    sent = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - sent < 5
    assert process.returncode == code, err
    assert f"Stopped by {number.name}. Continue it with: lightning-lab fit --config logs/mlp/one/config.yaml" in err
    assert "Traceback" not in err
    assert summary(run)["status"] == "interrupted"
    assert summary(run)["reason"].startswith(number.name)
    assert 1 <= summary(run)["epochs"] < 15
    answer = lab(*err.rsplit("lightning-lab ", 1)[1].split())
    assert answer.code == 0, answer.err
    assert answer.out.startswith("Continuing ")
    assert "logs/mlp/one from its last checkpoint." in answer.out
    assert compare(uninterrupted, result_of(RunDirectory(run))) == ()


def test_a_signal_before_the_training_ends_the_command_at_once(tmp_path: Path) -> None:
    command = [*COMMAND, *STOPPED, "--run.name=one"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(1)  # it imports for some seconds
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    assert "Traceback" not in err
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("to", ["the launcher", "one of the processes"])
def test_a_signal_to_two_processes_under_torchrun(to: str, tmp_path: Path) -> None:
    run = tmp_path / "logs" / "mlp" / "one"
    command = [
        str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node=2", "-m", "lightning_lab", *STOPPED,
        "--trainer.devices=2", "--trainer.strategy=ddp", "--run.name=one",
    ]  # fmt: skip
    launcher = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(run / "metrics.jsonl", launcher)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    assert len(children) == 2
    sent = time.monotonic()
    os.kill(launcher.pid if to == "the launcher" else int(children[1]), signal.SIGTERM)
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() - sent < 30:
        time.sleep(0.01)
    assert time.monotonic() - sent < 5
    _, err = launcher.communicate(timeout=30)
    assert launcher.returncode != 0
    assert err.count("Stopped by SIGTERM. Continue it with: ") == 1, err
    assert summary(run)["status"] == "interrupted"
    assert summary(run)["reason"].startswith("SIGTERM in epoch ")
    if to == "one of the processes":
        assert err.count("exitcode  : 143 ") == 2, err  # torchrun's own code is 1


def test_the_wheel_carries_the_configurations(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import lightning_lab.shipped as s; print(s.FOLDER); print(*s.names())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    folder, listed = done.stdout.splitlines()
    assert folder == str(tmp_path / "site" / "lightning_lab" / "configs")
    assert listed.split() == shipped.names()


def test_a_reader_that_is_gone_costs_the_run_nothing(tmp_path: Path) -> None:
    # `fit 2>&1 | tee log`, where Ctrl-C ends tee before it.
    run = tmp_path / "logs" / "mlp" / "one"
    command = [*COMMAND, *STOPPED, "--run.name=one"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(run / "metrics.jsonl", process)
    assert process.stdout is not None
    process.stdout.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert summary(run)["status"] == "interrupted"
