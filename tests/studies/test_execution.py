"""Cells on Dask: a real scheduler and two workers as processes of their own, which are killed; crashes; stopping."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lightning_lab.rehearsal.result import compare, result_of
from lightning_lab.runs.directory import RunDirectory
from lightning_lab.studies.execution import BAD_INPUT, Order, Outcome, cluster, run_cell, submit
from lightning_lab.studies.warm import WarmProcess

FIT = ("--config=digits/mlp", "--trainer.accelerator=cpu", "--lr_schedule=null", "--run.threads=1")


def order(logs: Path, name: str, *arguments: str, epochs: int = 1) -> Order:
    place = (f"--run.logs={logs}", "--run.experiment=study", f"--run.name={name}", f"--trainer.max_epochs={epochs}")
    return Order((*FIT, *place, *arguments), str(logs / "study" / name), str(logs), str(logs / "study"))


@pytest.fixture
def warm() -> Iterator[None]:
    """One warm process for the test, closed at its end."""
    from lightning_lab.studies import execution

    yield
    while execution._all:
        execution._all.pop().close()


# --- one cell ---


@pytest.mark.usefixtures("warm")
def test_a_cell_is_what_fit_would_have_made(tmp_path: Path) -> None:
    outcome = run_cell(order(tmp_path, "cell", epochs=2))
    assert (outcome.code, outcome.attempts) == (0, 1)
    command = [sys.executable, "-m", "lightning_lab", "fit", f"--config={tmp_path}/study/cell/config.yaml"]
    again = [*command, f"--run.logs={tmp_path}", "--run.name=again", "--run.threads=1"]
    subprocess.run(again, check=True, capture_output=True)
    repeated = RunDirectory(tmp_path / "study" / "again")
    assert compare(result_of(RunDirectory(tmp_path / "study" / "cell")), result_of(repeated)) == ()
    assert json.loads((tmp_path / "study" / "output" / "cell.json").read_text())["code"] == 0


CRASHES = """
import os, signal
from pathlib import Path
from lightning.pytorch import Callback

class Crash(Callback):
    def __init__(self, number: int, times: int = 99):
        self.number, self.times = number, times
    def on_train_epoch_start(self, trainer, pl_module):
        count = Path("count-" + Path(trainer.default_root_dir).name)
        seen = int(count.read_text()) if count.exists() else 0
        if trainer.current_epoch == 1 and seen < self.times:
            count.write_text(str(seen + 1))
            os.kill(os.getpid(), self.number)
"""


@pytest.mark.usefixtures("warm")
def test_what_becomes_of_a_cell_is_said_by_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "crashes.py").write_text(CRASHES)

    def crash(name: str, number: int, times: int = 99) -> Outcome:
        callback = (
            f'--trainer.callbacks={{"class_path":"crashes.Crash","init_args":{{"number":{number},"times":{times}}}}}'
        )
        return run_cell(order(tmp_path, name, callback, epochs=3))

    segfault = crash("segfault", signal.SIGSEGV)
    assert (segfault.code, segfault.attempts) == (-signal.SIGSEGV, 2)  # once again, and no more
    once = crash("once", signal.SIGKILL, times=1)  # out of memory looks like that
    assert (once.code, once.attempts) == (0, 2)
    stopped = crash("stopped", signal.SIGTERM, times=1)
    assert (stopped.code, stopped.attempts) == (0, 2)  # pre-empted, and it went on
    for name in ("once", "stopped"):
        rows = RunDirectory(tmp_path / "study" / name).read_metrics()
        assert [row["epoch"] for row in rows] == [1, 2, 3]
    bad = run_cell(order(tmp_path, "bad", "--model.net.dropout=7"))
    assert (bad.code, bad.attempts) == (BAD_INPUT, 1)
    assert "`dropout` must be in [0, 1), got 7" in (tmp_path / "study" / "output" / "bad.log").read_text()
    diverged = run_cell(order(tmp_path, "diverged", "--model.optimizer.lr=1e30"))
    assert (diverged.code, diverged.attempts) == (4, 1)


def test_a_warm_process_is_no_task_of_a_job_of_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "2")
    warm = WarmProcess()
    environment = Path(f"/proc/{warm._process.pid}/environ").read_bytes()
    warm.close()
    assert b"PATH=" in environment
    assert b"SLURM_NTASKS" not in environment


def test_a_warm_process_whose_master_is_gone_lets_its_command_save(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom lightning_lab.studies.warm import WarmProcess\n"
        "warm = WarmProcess()\n"
        "print(warm.start(sys.argv[2:], folder=Path(sys.argv[1]), log=Path(sys.argv[1]) / 'log', variables={}),"
        " flush=True)\ntime.sleep(100)\n"
    )
    cell = order(tmp_path, "cell", epochs=2000)
    command = [sys.executable, "-c", code, str(tmp_path), "fit", *cell.arguments]
    run = RunDirectory(Path(cell.directory))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as master:
        assert master.stdout is not None
        child = int(master.stdout.readline())
        wait_for(run.metrics)
        master.kill()
    until = time.monotonic() + 15
    while Path(f"/proc/{child}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()
    assert run.read_summary()["status"] == "interrupted"


def wait_for(path: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.05)


# --- a cluster of processes ---

CLIENT = """
import json, sys
from pathlib import Path
from lightning_lab.studies.execution import Order, cluster, submit

if __name__ == "__main__":
    orders = [Order(**one) for one in json.loads(Path(sys.argv[2]).read_text())]
    with cluster(sys.argv[1], jobs=1, gpus=0, per_gpu=1) as client:
        for future, order in submit(client, orders).items():
            outcome = future.result()
            print(Path(order.directory).name, outcome.code, outcome.attempts, outcome.worker, flush=True)
"""


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """A scheduler and two workers; more can be added, and all end with the test."""
    started: list[subprocess.Popen[str]] = []
    where = tmp_path / "scheduler.json"
    common = ["--scheduler-file", str(where), "--no-dashboard", "--host", "127.0.0.1"]
    started.append(dask("dask_scheduler", *common, "--port", "0"))
    wait_for(where)
    started += [dask("dask_worker", *common, "--no-nanny", "--nthreads", "1") for _ in range(2)]
    yield started
    for process in reversed(started):
        process.kill()
        process.wait()


def dask(module: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"distributed.cli.{module}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_client_cost_nothing(
    tmp_path: Path, processes: list[subprocess.Popen[str]]
) -> None:
    epochs = 40
    orders = [
        order(tmp_path, f"cell{seed}", f"--seed_everything={seed}", "--data.batch_size=8", epochs=epochs)
        for seed in range(4)
    ]
    address = json.loads((tmp_path / "scheduler.json").read_text())["address"]
    (tmp_path / "orders.json").write_text(json.dumps([vars(one) for one in orders]))
    client = [sys.executable, "-c", CLIENT, address, str(tmp_path / "orders.json")]
    first = subprocess.Popen(client, stdout=subprocess.PIPE, text=True)
    runs = [RunDirectory(Path(one.directory)) for one in orders]
    for run in runs[:2]:  # one cell on each worker
        wait_for(run.metrics)
    processes[1].kill()  # SIGKILL
    time.sleep(1)
    first.kill()
    first.communicate()
    assert any(run.read_summary().get("status") != "completed" for run in runs)
    second = subprocess.run(client, capture_output=True, text=True, timeout=240, check=True)
    ended = [line.split() for line in second.stdout.splitlines()]
    assert sorted(line[0] for line in ended) == [f"cell{seed}" for seed in range(4)]
    assert {line[1] for line in ended} == {"0"}
    assert len({line[3] for line in ended}) == 1  # one worker is left
    print(f"{len(ended)} cells, each once; attempts of the second client: {[line[2] for line in ended]}")
    for run in runs:
        assert [row["epoch"] for row in run.read_metrics()] == list(range(1, epochs + 1))
    continued = [one for one in orders if "Continuing " in one.log.read_text()]
    assert continued
    seed = next(one for one in continued[0].arguments if one.startswith("--seed_everything"))
    alone = order(tmp_path / "alone", "one", seed, "--data.batch_size=8", epochs=epochs)
    subprocess.run([sys.executable, "-m", "lightning_lab", "fit", *alone.arguments], check=True, capture_output=True)
    whole, resumed = (result_of(RunDirectory(Path(one.directory))) for one in (alone, continued[0]))
    assert compare(whole, resumed) == ()


# --- a cluster of this process ---


def test_the_local_cluster_runs_cells_side_by_side(tmp_path: Path) -> None:
    orders = [order(tmp_path, f"cell{seed}", f"--seed_everything={seed}", epochs=2) for seed in range(6)]
    outcomes: Sequence[Outcome]
    with cluster(None, jobs=2, gpus=0, per_gpu=1) as client:
        outcomes = [future.result(timeout=120) for future in submit(client, orders)]
    assert [(outcome.code, outcome.attempts) for outcome in outcomes] == [(0, 1)] * 6
    assert all(RunDirectory(Path(one.directory)).read_summary()["status"] == "completed" for one in orders)


def test_the_stop_file_lets_cells_save(tmp_path: Path) -> None:
    orders = [order(tmp_path, f"cell{seed}", epochs=2000) for seed in range(3)]
    with cluster(None, jobs=2, gpus=0, per_gpu=1) as client:
        futures = submit(client, orders)
        for one in orders[:2]:
            wait_for(RunDirectory(Path(one.directory)).metrics)
        orders[0].stop.touch()
        outcomes = [future.result(timeout=60) for future in futures]
    assert [(outcome.code, outcome.attempts) for outcome in outcomes] == [(143, 1), (143, 1), (143, 0)]
    statuses = [RunDirectory(Path(one.directory)).read_summary().get("status") for one in orders]
    assert statuses == ["interrupted", "interrupted", None]
