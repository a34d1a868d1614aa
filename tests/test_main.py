"""The verbs that need no torch do not import it, and answer at once."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import Lab

from lightning_lab import __version__

TORCH_FREE = [["--help"], ["--version"], ["configs"], ["study"], ["runs"], ["runs", "--help"], ["doctor", "--brief"]]


@pytest.mark.parametrize("args", TORCH_FREE, ids=" ".join)
def test_answers_without_torch_in_under_a_second(args: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from lightning_lab.__main__ import main\n"
        f"try: code = main({args})\nexcept SystemExit as stop: code = stop.code\n"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    times = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        times.append(time.perf_counter() - started)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
    assert min(times) < 1.0


def test_help_names_every_verb_and_the_exit_codes(lab: Lab) -> None:
    out = lab("--help").out
    verbs = ("fit", "validate", "test", "predict", "configs", "runs", "schedule", "augment", "export", "doctor")
    assert [verb for verb in verbs if f"\n  {verb} " not in out] == []
    assert "130 SIGINT" in out


def test_no_arguments_is_help(lab: Lab) -> None:
    assert lab() == lab("--help")


def test_version(lab: Lab) -> None:
    assert lab("--version").out == f"lightning-lab {__version__}\n"


def test_unknown_verb_names_the_close_one(lab: Lab) -> None:
    answer = lab("fti")
    assert answer.code == 2
    assert answer.err.startswith("error: Unknown verb 'fti'. Did you mean 'fit'?")


def test_runs_without_any_run_says_so(lab: Lab) -> None:
    assert lab("runs") == (0, "No runs in logs/ yet. Start one: lightning-lab fit\n", "")


def test_doctor_tells_accelerator_threads_and_data(lab: Lab) -> None:
    answer = lab("doctor")
    assert answer.code == 0
    assert "accelerator:" in answer.out
    assert "threads: " in answer.out
    assert "precision: 32-true for nets of dense layers; no convolution in the net" in answer.out
    assert "switches: --trainer.precision, --run.threads" in answer.out
    assert "CIFAR-10:" in answer.out


def test_doctor_refuses_what_it_does_not_know(lab: Lab) -> None:
    answer = lab("doctor", "--quick")
    assert answer.code == 2
    assert answer.err == "error: unrecognized arguments: --quick. See lightning-lab doctor --help.\n"


def test_configs_lists_each_with_its_first_line(lab: Lab) -> None:
    lines = lab("configs").out.splitlines()
    assert lines[1].split(maxsplit=1) == ["cifar10/lenet5", "LeNet-5 (the labs' wide one) on CIFAR-10."]
    studies = lines[lines.index("studies:") :]
    assert studies[1].split(maxsplit=1)[0] == "digits_dropout"
    assert studies[1].split(maxsplit=1)[1].startswith("Dropout in the dense layers of LeNet-5")


def test_configs_takes_no_arguments(lab: Lab) -> None:
    assert lab("configs", "digits").err == "error: `configs` takes no arguments, got digits.\n"
