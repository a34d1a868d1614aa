"""``study run`` as a user has it: processes of their own, crashes, Ctrl-C, a cluster whose parts are killed."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from study_files import write_study
from support import Lab

from lightning_lab.rehearsal.result import compare, result_of
from lightning_lab.runs.directory import RunDirectory
from lightning_lab.runs.lock import RunLock
from lightning_lab.studies.cells import CellResult, read_result
from lightning_lab.studies.design import cells_of, read_study
from lightning_lab.studies.orders import read_outcome

DENSE: dict[str, Any] = {"base": "digits/mlp", "seeds": 2, "epochs": 1}
#: The command line in a process of its own, which says at its end whether it has imported torch.
COMMAND = (
    "import sys; from lightning_lab.__main__ import main\ntry: code = main(sys.argv[1:])\n"
    "finally: print('torch' if 'torch' in sys.modules else 'no torch', file=sys.stderr)\nsys.exit(code)"
)


def table(folder: Path) -> list[CellResult]:
    return [read_result(cell) for cell in cells_of(read_study(folder / "study.yaml"), folder / "logs")]


def study(*arguments: str) -> list[str]:
    return [sys.executable, "-c", COMMAND, "study", *arguments]


def wait_until(holds: Callable[[], object], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.05)


def rows(folder: Path) -> list[int]:
    return [len(result.rows) for result in table(folder)]


def when(results: list[CellResult]) -> dict[str, float]:
    return {result.cell.key: result.cell.directory.summary.stat().st_mtime for result in results}


def test_what_is_done_is_not_trained_again(lab: Lab, tmp_path: Path) -> None:
    arms = {"plain": {}, "normalised": {"model.net.normalisation": "batch"}}
    write_study(tmp_path, **DENSE, without=("factors",), arms=arms, reference="plain")
    first = subprocess.run(study("run", "study.yaml", "--jobs", "1"), cwd=tmp_path, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert first.stderr.endswith("no torch\n")  # what imports it is not this process
    lines = first.stdout.splitlines()
    assert lines[:3] == [
        "drop: 4 cells, 0 done, 4 to do.",
        "Trained together, all seeds of an arm in one process: plain, normalised.",
        "Results equal separate runs to rounding; --replicates never: one by one.",
    ]
    assert (
        "normalised: 2 cells one by one (error: These runs cannot be trained as replicates: batch norm" in first.stderr
    )
    assert sum(line.startswith("[") for line in lines) == 4
    known = table(tmp_path)
    assert [result.status for result in known] == ["completed"] * 4
    noted = ["replicates" in result.cell.directory.read_environment() for result in known]
    assert noted == [result.cell.arm == "plain" for result in known]
    before = when(known)

    again = lab("study", "run", "study.yaml")
    assert (again.code, again.out.splitlines()[0]) == (0, "drop: 4 cells, 4 done, 0 to do.")
    write_study(
        tmp_path, **{**DENSE, "seeds": 3}, without=("factors",),
        arms={**arms, "smooth": {"model.net.activation": "tanh"}}, reference="plain",
    )  # fmt: skip
    more = lab("study", "run", "study.yaml", "--replicates", "never", "--jobs", "1")
    assert more.code == 0, more.err
    assert more.out.splitlines()[0] == "drop: 9 cells, 4 done, 5 to do."
    assert "All seeds" not in more.out
    after = when(table(tmp_path))
    assert {key: after[key] for key in before} == before
    added = [result for result in table(tmp_path) if result.cell.key not in before]
    assert [(result.cell.arm, result.cell.seed) for result in added] == [
        ("smooth", 0), ("smooth", 1), ("plain", 2), ("normalised", 2), ("smooth", 2),
    ]  # fmt: skip
    assert not any("replicates" in result.cell.directory.read_environment() for result in added)


CRASHES = """
import ctypes, os, signal
from pathlib import Path
from lightning.pytorch import Callback

class Crash(Callback):
    def __init__(self, how: str):
        self.how = how
    def on_train_epoch_start(self, trainer, pl_module):
        if self.how == "segfault":
            ctypes.string_at(0)
        seen = Path(trainer.default_root_dir + ".seen")
        if not seen.exists():
            seen.touch()
            os.kill({"child": os.getpid(), "warm": os.getppid()}[self.how], signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_crash_costs_its_own_cell_alone(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "crashes.py").write_text(CRASHES)
    arms: dict[str, Any] = {"plain": {}}
    for how in ("segfault", "child", "warm"):
        arms[how] = {"trainer.callbacks": [{"class_path": "crashes.Crash", "init_args": {"how": how}}]}
    write_study(tmp_path, **DENSE, without=("factors",), arms=arms, reference="plain")
    answer = lab("study", "run", "study.yaml", "--replicates", "never")
    assert answer.code == 1
    assert "Done: 6 of 8 cells" in answer.out
    ended = {(result.cell.arm, result.cell.seed): read_outcome(result.cell.directory) for result in table(tmp_path)}
    assert {key: one and (one.code, one.attempts) for key, one in ended.items()} == {
        (arm, seed): {"plain": (0, 1), "segfault": (-signal.SIGSEGV, 2)}.get(arm, (0, 2))
        for arm in arms
        for seed in (0, 1)
    }
    assert "] segfault  seed 0  failed: signal 11, 2 attempts" in answer.out
    plan = lab("study", "plan", "study.yaml").out
    assert "cells   6 done, 2 failed\n" in plan
    assert "! segfault  seed 0 and 1 more  signal 11: " in plan


# --- stopping ---


def stop_at_terminal(folder: Path, number: int, stop: Callable[[], None]) -> tuple[int, str]:
    """Run a study at a terminal, and type Ctrl-C."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execv(sys.executable, study("run", "study.yaml"))
    stop()
    os.write(terminal, b"\x03")
    said = b""
    while True:
        try:
            said += os.read(terminal, 65536)
        except OSError:  # its other end is closed
            break
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said.decode()


def stop_by_signal(folder: Path, number: int, stop: Callable[[], None]) -> tuple[int, str]:
    """Run a study without a terminal, and send it a signal."""
    command = subprocess.Popen(
        study("run", "study.yaml"), cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    stop()
    command.send_signal(number)
    said, _ = command.communicate(timeout=60)
    return command.returncode, said


@pytest.mark.parametrize(
    ("run", "number"),
    [
        (stop_at_terminal, signal.SIGINT),
        pytest.param(stop_by_signal, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(stop_by_signal, signal.SIGTERM, marks=pytest.mark.slow),
    ],
    ids=["Ctrl-C at a terminal", "SIGINT without one", "SIGTERM"],
)
def test_a_stopped_study_has_saved_and_goes_on(
    run: Callable[[Path, int, Callable[[], None]], tuple[int, str]], number: int, lab: Lab, tmp_path: Path
) -> None:
    # One arm that is trained together, one that cannot be: of that one rows can be waited for.
    arms = {"plain": {}, "normalised": {"model.net.normalisation": "batch"}}
    write_study(tmp_path, **{**DENSE, "epochs": 80}, without=("factors",), arms=arms, reference="plain")
    (tmp_path / "logs").mkdir()
    environments = [result.cell.directory.environment for result in table(tmp_path)]
    refused = []

    def ready() -> None:
        wait_until(lambda: max(rows(tmp_path)) >= 2 and environments[2].exists())
        refused.append(lab("study", "run", "study.yaml"))

    code, said = run(tmp_path, number, ready)
    assert code == 128 + number, said
    assert "Stopping: the cells that run are saved; the same command goes on with them." in said
    assert refused[0].code == 2
    assert refused[0].err.startswith("error: The study drop is under way: process ")
    assert refused[0].err.endswith("Wait for it, or stop it with Ctrl-C there.\n")
    results = table(tmp_path)
    statuses = {result.status for result in results}
    assert "interrupted" in statuses
    assert not statuses & {"killed", "running", "failed"}
    saved = {result.cell.key: result.rows for result in results}
    again = lab("study", "run", "study.yaml")
    assert again.code == 0, again.err
    for result in table(tmp_path):
        before = saved[result.cell.key]
        assert result.rows[: len(before)] == before  # not trained again
        assert [row["epoch"] for row in result.rows] == list(range(1, 81))


def test_a_study_under_way_is_left_alone(lab: Lab, tmp_path: Path) -> None:
    write_study(tmp_path)
    lock = RunLock(tmp_path / "logs" / "studies" / "drop")
    lock.acquire()
    answer = lab("study", "run", "study.yaml")
    lock.release()
    assert answer.code == 2
    assert answer.err.startswith(f"error: The study drop is under way: process {os.getpid()} on ")


def test_logs_that_cannot_be_written_are_told(lab: Lab, tmp_path: Path) -> None:
    write_study(tmp_path)
    (tmp_path / "logs").write_text("a file")
    answer = lab("study", "run", "study.yaml")
    assert answer.code == 2
    assert answer.err == f"error: The run cannot be written: {tmp_path}/logs is a file. Choose another --run.logs.\n"


# --- a cluster of processes ---


class Dask:
    """A scheduler on loopback, and workers, as processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.common = ["--scheduler-file", str(folder / "scheduler.json"), "--no-dashboard", "--host", "127.0.0.1"]
        self.started: list[subprocess.Popen[bytes]] = []
        self.start("scheduler", "--port", "0")
        wait_until((folder / "scheduler.json").exists)
        self.address = str(json.loads((folder / "scheduler.json").read_text())["address"])

    def start(self, what: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *self.common, *arguments]
        self.started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return self.started[-1]

    def worker(self, *arguments: str) -> subprocess.Popen[bytes]:
        return self.start("worker", "--no-nanny", *arguments)


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Dask]:
    cluster = Dask(tmp_path)
    yield cluster
    for process in reversed(cluster.started):
        process.kill()
        process.wait()


def attempts_in(result: CellResult) -> int:
    log = result.cell.directory.path.parent / "output" / f"{result.cell.directory.path.name}.log"
    return log.read_text().count("parameters) on Digits")


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_client_cost_nothing(tmp_path: Path, dask: Dask) -> None:
    workers = [dask.worker("--nthreads", "1") for _ in range(2)]
    changes = {"seeds": 2, "epochs": 40, "factors": {"data.batch_size": [8, 16]}, "reference": {"data.batch_size": 8}}
    write_study(tmp_path, **{**DENSE, **changes})
    (tmp_path / "logs").mkdir()
    command = study("run", "study.yaml", "--scheduler", dask.address, "--replicates", "never")
    client = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: rows(tmp_path)[:2] > [2, 2] and rows(tmp_path)[1] > 2)  # a cell on each worker
    workers[0].kill()
    time.sleep(1)
    client.kill()
    client.communicate()
    between = rows(tmp_path)
    assert min(between) < 40
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert second.returncode == 0, second.stderr
    results = table(tmp_path)
    assert [result.status for result in results] == ["completed"] * 4
    for result in results:
        assert [row["epoch"] for row in result.rows] == list(range(1, 41))
        assert result.summary["steps"] == 40 * {8: 144, 16: 72}[8 if result.cell.arm.endswith("=8") else 16]
    told = [line for line in second.stdout.splitlines() if line.startswith("[")]
    folders = [path.name for path in (tmp_path / "logs" / "studies" / "drop").iterdir() if "_seed" in path.name]
    assert len(told) == len(set(told)) == 4 - sum(count == 40 for count in between)
    assert sorted(folders) == sorted(result.cell.directory.path.name for result in results)
    resumed = [result for result in results if attempts_in(result) > 1]
    assert resumed
    print(
        f"{len(results)} cells in the table, each once; epochs when the client was killed: {between}; begun again from "
        f"a checkpoint: {len(resumed)}; told by the second client: {len(told)}"
    )
    cell = resumed[0].cell
    alone = [*cell.arguments, "--checkpoint.monitor=val/acc", "--checkpoint.mode=max", "--run.threads=1"]
    alone = [argument for argument in alone if not argument.startswith("--run.logs")] + ["--run.logs=alone"]
    fit = [sys.executable, "-m", "lightning_lab", "fit", *alone]
    subprocess.run(fit, check=True, capture_output=True, cwd=tmp_path)
    whole = RunDirectory(tmp_path / "alone" / "drop" / cell.directory.path.name)
    assert compare(result_of(whole), result_of(cell.directory)) == ()  # weights and metrics, to the last bit


@pytest.mark.slow
def test_each_cell_claims_its_share_of_a_worker(tmp_path: Path, dask: Dask) -> None:
    dask.worker("--nthreads", "4")
    write_study(tmp_path, **{**DENSE, "seeds": 4, "epochs": 20}, without=("factors",), arms={"a": {}}, reference="a")
    command = study(
        "run", "study.yaml", "--scheduler", dask.address, "--resources", "CARD=0.5", "--replicates", "never"
    )
    client = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    said = [client.stdout.readline() for _ in range(2)]
    assert said[1] == "No worker with what a cell claims is there yet: the cells wait for one.\n"
    carries = dask.worker("--nthreads", "4", "--resources", "CARD=1")
    most = 0
    while client.poll() is None:
        most = max(most, sum(result.status == "running" for result in table(tmp_path)))
        time.sleep(0.05)
    assert client.wait() == 0
    client.stdout.close()
    assert most == 2  # half a card each, though the worker has four threads
    results = table(tmp_path)
    outcomes = [read_outcome(result.cell.directory) for result in results]
    assert {one.worker.rpartition(":")[2] for one in outcomes if one is not None} == {str(carries.pid)}
    assert [result.status for result in results] == ["completed"] * 4


@pytest.mark.slow
def test_a_lost_scheduler_is_told_and_the_cells_save(tmp_path: Path, dask: Dask) -> None:
    dask.worker("--nthreads", "1", "--death-timeout", "5")
    write_study(tmp_path, **{**DENSE, "epochs": 400}, without=("factors",), arms={"a": {}}, reference="a")
    command = study("run", "study.yaml", "--scheduler", dask.address, "--replicates", "never")
    (tmp_path / "logs").mkdir()
    client = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    wait_until(lambda: max(rows(tmp_path)) > 0)
    dask.started[0].kill()
    _, said = client.communicate(timeout=120)
    assert client.returncode == 1, said
    assert "was lost. Cells that run save or go on; start the scheduler again if it is gone." in said
    wait_until(lambda: table(tmp_path)[0].status == "interrupted")
