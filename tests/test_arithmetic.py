"""Which precision and how many threads are chosen, from facts of the machine and the net."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from support import QUICK, Lab
from torch import nn

from lightning_lab import arithmetic
from lightning_lab.arithmetic import choose_precision, choose_threads, device_kind

CONVOLVES = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
DENSE = nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))


@pytest.mark.parametrize(
    ("accelerator", "there", "expected"),
    [
        ("auto", "", "cpu"),
        ("auto", "cuda", "cuda"),
        ("auto", "mps", "mps"),
        ("auto", "cuda mps", "cuda"),
        ("gpu", "cuda", "cuda"),
        ("gpu", "mps", "mps"),
        ("gpu", "", "gpu"),  # Lightning refuses it
        ("cuda", "cuda", "cuda"),
        ("mps", "cuda mps", "mps"),
        ("cpu", "cuda mps", "cpu"),
        ("tpu", "cuda", "tpu"),
    ],
)
def test_the_kind_of_device(monkeypatch: pytest.MonkeyPatch, accelerator: str, there: str, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    assert device_kind(accelerator) == expected


@pytest.mark.parametrize(
    ("net", "device", "units", "capability", "expected", "why"),
    [
        (CONVOLVES, "cpu", "amx", None, "bf16-mixed", "(amx)"),
        (CONVOLVES, "cpu", "avx512", None, "bf16-mixed", "(avx512)"),
        (CONVOLVES, "cpu", "none", None, "32-true", "no bf16 units"),
        (CONVOLVES, "cuda", "none", (9, 0), "bf16-mixed", "Ampere or newer"),
        (CONVOLVES, "cuda", "none", (8, 0), "bf16-mixed", "Ampere or newer"),
        (CONVOLVES, "cuda", "amx", (7, 5), "32-true", "older than Ampere"),
        (CONVOLVES, "mps", "amx", None, "32-true", "not tried on mps"),
        (DENSE, "cpu", "amx", None, "32-true", "no convolution"),
        (DENSE, "cuda", "amx", (9, 0), "32-true", "no convolution"),
    ],
)
def test_precision(
    monkeypatch: pytest.MonkeyPatch,
    net: nn.Module,
    device: str,
    units: str,
    capability: object,
    expected: str,
    why: str,
) -> None:
    monkeypatch.setattr(arithmetic, "bf16_units", lambda: units)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    found, reason = choose_precision(net, device)
    assert found == expected
    assert why in reason


@pytest.mark.parametrize(
    ("net", "batch_size", "expected"),
    [(DENSE, 64, 1), (DENSE, 293, 1), (DENSE, 294, 5), (CONVOLVES, 1, 5), (nn.Identity(), 1, 5)],
)
def test_threads(monkeypatch: pytest.MonkeyPatch, net: nn.Module, batch_size: int, expected: int) -> None:
    # 256 x 128 + 128 x 10 products an example: ten million are reached at 294.
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(arithmetic, "_threads_at_first", lambda: 5)
    assert choose_threads(net, batch_size)[0] == expected


def test_threads_set_from_outside_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(arithmetic, "_threads_at_first", lambda: 3)
    assert choose_threads(DENSE, 64) == (3, "OMP_NUM_THREADS")


def recorded(tmp_path: Path) -> dict[str, object]:
    (file,) = tmp_path.glob("logs/*/*/config.yaml")
    config: dict[str, object] = yaml.safe_load(file.read_text())
    return config


@pytest.mark.parametrize(("units", "chosen"), [("avx512", "bf16-mixed"), ("none", "32-true")])
def test_what_was_chosen_is_said_and_recorded(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, units: str, chosen: str
) -> None:
    monkeypatch.setattr(arithmetic, "bf16_units", lambda: units)
    # A configuration that leaves the precision open; the shipped one for the digits does not.
    (tmp_path / "open.yaml").write_text("trainer: {precision: null}\n")
    answer = lab("fit", "--config=digits/lenet5", "--config=open.yaml", "--lr_schedule=null", *QUICK)
    assert answer.code == 0, answer.err
    assert f"cpu, {chosen}, " in answer.out
    assert recorded(tmp_path)["trainer"]["precision"] == chosen  # type: ignore[index]


def test_a_value_of_the_users_own_stands(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "bf16_units", lambda: "amx")
    answer = lab(
        "fit", "--config=digits/lenet5", "--lr_schedule=null", "--trainer.precision=32-true", "--channels_last=false",
        "--model.optimizer.fused=false", "--run.threads=1", *QUICK,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    config = recorded(tmp_path)
    assert config["trainer"]["precision"] == "32-true"  # type: ignore[index]
    assert config["channels_last"] is False
    assert config["model"]["init_args"]["optimizer"]["init_args"]["fused"] is False  # type: ignore[index]


@pytest.mark.filterwarnings("ignore:.*AMP with fp16 is not supported on CPU")
@pytest.mark.parametrize(
    ("setting", "expected"),
    [([], True), (["--model.optimizer.foreach=true"], None), (["--trainer.precision=16-mixed"], None)],
)
def test_the_fused_step_is_taken_where_nothing_else_was_asked_for(
    lab: Lab, tmp_path: Path, setting: list[str], expected: bool | None
) -> None:
    assert lab("fit", "--config=digits/mlp", "--lr_schedule=null", *setting, *QUICK).code == 0
    optimizer = recorded(tmp_path)["model"]["init_args"]["optimizer"]  # type: ignore[index]
    assert optimizer["init_args"]["fused"] is expected


def test_an_optimiser_without_the_fused_step_trains(lab: Lab) -> None:
    answer = lab("fit", "--config=digits/mlp", "--lr_schedule=null", "--model.optimizer=RMSprop", *QUICK)
    assert answer.code == 0, answer.err


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_a_number_of_threads_that_cannot_be_is_refused(lab: Lab, value: str) -> None:
    answer = lab("fit", f"--run.threads={value}", *QUICK)
    assert answer.code == 2
    assert "run.threads" in answer.err


@pytest.mark.parametrize(("processes", "expected"), [(1, 8), (2, 4), (3, 2), (16, 1)])
def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch, processes: int, expected: int) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("lightning_lab.arithmetic._threads_at_first", lambda: 8)
    assert choose_threads(nn.Conv2d(3, 4, 3), 64, processes)[0] == expected
