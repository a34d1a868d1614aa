"""Real processes: two that train together, one that is told to stop, and a wheel in a folder of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

import lightning_lab
from lightning_lab import shipped

REPOSITORY = Path(lightning_lab.__file__).parents[1]
COMMAND = [sys.executable, "-m", "lightning_lab"]


def summary(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "summary.json").read_text()))


def test_two_processes_end_where_one_does(tmp_path: Path) -> None:
    # 1151 images in batches of 32 leave a last one of 31: 16 for one process and 15 for the other.
    common = [*COMMAND, "fit", "--config", "digits/lenet5", "--trainer.max_epochs", "3", "--lr_schedule", "null"]
    for name, machine in (("one", "trainer/cpu"), ("two", "trainer/ddp_cpu2")):
        command = [*common, "--config", machine, "--run.name", name]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
    one, two = (summary(tmp_path / "logs" / "lenet5" / name) for name in ("one", "two"))
    assert two["status"] == "completed"
    assert two["steps"] == one["steps"]
    for metric in ("val/loss", "val/acc", "train/loss", "train/acc"):
        assert two["last"][metric] == pytest.approx(one["last"][metric], abs=1e-5)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_told_command_goes_on(number: signal.Signals, code: int, tmp_path: Path) -> None:
    command = [
        *COMMAND, "fit", "--config", "digits/mlp", "--config", "trainer/cpu", "--trainer.max_epochs", "40",
        "--data.batch_size", "4", "--lr_schedule", "null", "--run.name", "one",
    ]  # fmt: skip
    run = tmp_path / "logs" / "mlp" / "one"
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert "Continue it with: lightning-lab fit --config logs/mlp/one/config.yaml" in err
    assert "Traceback" not in err
    assert summary(run)["status"] == "interrupted"
    assert summary(run)["reason"].startswith(number.name)
    epochs = summary(run)["epochs"]
    assert 1 <= epochs < 40
    told = [*COMMAND, *err.rsplit("lightning-lab ", 1)[1].split()]
    again = subprocess.run(told, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("Continuing ")
    assert "logs/mlp/one from its last checkpoint." in again.stdout
    assert summary(run)["status"] == "completed"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, 41))
    assert [row["step"] for row in rows] == [288 * epoch for epoch in range(1, 41)]


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
