"""Cells in processes: by themselves, together, and on a cluster of this process; crashes; stopping."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from distributed import Reschedule

from lightning_lab.rehearsal.result import compare, result_of
from lightning_lab.runs.directory import RunDirectory
from lightning_lab.runs.lock import OWNER
from lightning_lab.studies import attempts
from lightning_lab.studies.attempts import close_warm_processes, run_cell, run_orders
from lightning_lab.studies.execution import cluster, submit
from lightning_lab.studies.orders import BAD_INPUT, Order, Outcome, last_line
from lightning_lab.studies.warm import WarmProcess

FIT = ("--config=digits/mlp", "--trainer.accelerator=cpu", "--lr_schedule=null", "--run.threads=1")


def order(logs: Path, name: str, *arguments: str, epochs: int = 1) -> Order:
    place = (f"--run.logs={logs}", "--run.experiment=study", f"--run.name={name}", f"--trainer.max_epochs={epochs}")
    return Order((*FIT, *place, *arguments), str(logs / "study" / name), str(logs), str(logs / "study"))


@pytest.fixture(scope="module")
def warm() -> Iterator[None]:
    """The warm process of this thread, which serves the tests one after the other."""
    attempts._own.process = WarmProcess()
    attempts._all.append(attempts._own.process)
    yield
    close_warm_processes()


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


@contextmanager
def meanwhile(act: Callable[[], object], *, upon: Path) -> Iterator[None]:
    """Do something while a cell trains, soon after a file is there."""

    def wait() -> None:
        wait_for(upon)
        time.sleep(0.7)
        act()

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(wait)
        yield
        done.result()


def wait_for(path: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.05)


@pytest.mark.usefixtures("warm")
def test_a_killed_warm_process_costs_its_cell_an_attempt(tmp_path: Path) -> None:
    one = order(tmp_path, "cell", epochs=60)
    run = RunDirectory(Path(one.directory))
    with meanwhile(attempts._own.process._process.kill, upon=run.last):
        outcome = run_cell(one)
    assert (outcome.code, outcome.attempts) == (0, 2)
    assert "Stopped by SIGTERM. Continue it with" in one.log.read_text()  # its child has noticed
    assert f"Continuing {run.path} from its last checkpoint." in one.log.read_text()
    assert [row["epoch"] for row in run.read_metrics()] == list(range(1, 61))


@pytest.mark.slow
def test_a_cell_of_two_processes_is_a_process_of_its_own(tmp_path: Path) -> None:
    two = ("--config=trainer/ddp_cpu2", "--trainer.limit_train_batches=3")
    one = replace(order(tmp_path, "cell", *two), warm=False)
    outcome = run_cell(one)
    assert (outcome.code, outcome.attempts) == (0, 1), one.log.read_text()
    (row,) = RunDirectory(Path(one.directory)).read_metrics()
    assert {"val/loss/rank0", "val/loss/rank1"} <= set(row)


# --- cells that are trained together ---


def owner(one: Order) -> int:
    """The process that has the cell's lock."""
    path = Path(one.directory) / OWNER
    wait_for(path)
    return int(json.loads(path.read_text())["pid"])


def seeds(logs: Path, *arguments: str, epochs: int) -> list[Order]:
    return [order(logs, f"cell{seed}", f"--seed_everything={seed}", *arguments, epochs=epochs) for seed in range(3)]


def test_cells_are_not_begun_together_on_a_worker_that_has_begun_to_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def leaves() -> bool:  # since the second time that it is asked: while the cells wait for their locks
        asked.append(len(asked) > 0)
        return asked[-1]

    monkeypatch.setattr("lightning_lab.studies.worker.is_leaving", leaves)
    orders = seeds(tmp_path, epochs=2)
    with pytest.raises(Reschedule):
        run_orders(orders)
    assert all(one.begins for one in orders)
    assert not orders[0].together_log.exists()


@pytest.mark.usefixtures("warm")
def test_cells_that_are_trained_together_each_have_record_log_and_outcome(tmp_path: Path) -> None:
    orders = seeds(tmp_path, "--model.optimizer.lr=0.01", epochs=2)
    outcomes = run_orders(orders)
    assert [(one.code, one.attempts) for one in outcomes if one is not None] == [(0, 1)] * 3
    assert len({one.wall_s for one in outcomes if one is not None}) == 1  # a third each
    for index, one in enumerate(orders):
        environment = RunDirectory(Path(one.directory)).read_environment()
        assert environment["replicates"] == {"count": 3, "index": index, "seeds": [0, 1, 2]}
        assert environment["command"][1:] == ["lightning-lab", "fit", *one.arguments]
        assert json.loads(one.outcome.read_text())["code"] == 0
        text = one.log.read_text()
        assert text.count("completed: 2 epochs") == 1
        assert f"record: {one.directory}" in text
    assert orders[0].together_log.read_text() == "Trained together: ended.\n"
    alone = order(tmp_path / "alone", "cell1", "--seed_everything=1", "--model.optimizer.lr=0.01", epochs=2)
    assert run_cell(alone).code == 0
    ours, theirs = (RunDirectory(Path(one.directory)).read_metrics() for one in (orders[1], alone))
    assert [row["val/loss"] for row in ours] == pytest.approx([row["val/loss"] for row in theirs], rel=1e-3)
    # Again, for example because the worker was lost after they had ended: nothing is trained.
    assert [(one.code, one.attempts) for one in run_orders(orders) if one is not None] == [(0, 0)] * 3


@pytest.mark.usefixtures("warm")
def test_what_cannot_be_trained_together_is_left_to_be_run_one_by_one(tmp_path: Path) -> None:
    orders = seeds(tmp_path, "--model.net.normalisation=batch", epochs=1)
    assert run_orders(orders) == [None] * 3
    assert "cannot be trained as replicates: batch norm keeps running means" in last_line(orders[0].together_log)
    assert not any(Path(one.directory).exists() or one.outcome.exists() for one in orders)
    bad = seeds(tmp_path, "--model.net.dropout=7", epochs=1)
    assert run_orders(bad) == [None] * 3
    assert "`dropout` must be in [0, 1), got 7" in last_line(bad[0].together_log)


@pytest.mark.usefixtures("warm")
def test_one_that_diverges_or_cannot_begin_leaves_the_others(tmp_path: Path) -> None:
    orders = seeds(tmp_path, "--model.optimizer.lr=1e30", epochs=1)
    Path(orders[1].directory).parent.mkdir(parents=True)
    Path(orders[1].directory).write_text("a file where the run's folder should be")
    outcomes = run_orders(orders)
    assert [one and one.code for one in outcomes] == [4, None, 4]
    assert run_cell(orders[1]).code == BAD_INPUT
    assert "is a file. Choose another --run.name." in last_line(orders[1].log)


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash_of_all_leaves_them_to_be_run_one_by_one(number: int, tmp_path: Path) -> None:
    orders = seeds(tmp_path, epochs=400)
    with meanwhile(lambda: os.kill(owner(orders[0]), number), upon=RunDirectory(Path(orders[2].directory)).environment):
        assert run_orders(orders) == [None] * 3
    how = {signal.SIGKILL: "killed (signal 9), as by a system out of memory", signal.SIGSEGV: "signal 11"}[number]
    assert last_line(orders[0].together_log) == f"Trained together: {how}."
    assert all(one.begins for one in orders)  # within half a minute nothing was kept


@pytest.mark.usefixtures("warm")
def test_the_stop_file_lets_all_save_and_each_goes_on_by_itself(tmp_path: Path) -> None:
    orders = seeds(tmp_path, "--model.optimizer.lr=0.01", epochs=120)
    with meanwhile(orders[0].stop.touch, upon=RunDirectory(Path(orders[2].directory)).environment):
        outcomes = run_orders(orders)
    assert [(one.code, one.attempts) for one in outcomes if one is not None] == [(143, 1)] * 3
    runs = [RunDirectory(Path(one.directory)) for one in orders]
    assert [run.read_summary()["status"] for run in runs] == ["interrupted"] * 3
    before = [run.read_metrics() for run in runs]
    assert 0 < len(before[0]) < 120
    assert {len(rows) for rows in before} == {len(before[0])}
    orders[0].stop.unlink()
    assert run_orders(orders) == [None] * 3
    assert last_line(orders[0].together_log) == "They have begun already."
    assert run_cell(orders[1]).code == 0
    after = runs[1].read_metrics()
    assert after[: len(before[1])] == before[1]  # not trained again
    assert [row["epoch"] for row in after] == list(range(1, 121))
    assert f"Continuing {runs[1].path} from its last checkpoint." in orders[1].log.read_text()


# --- a cluster of this process ---


def test_the_local_cluster_runs_cells_side_by_side(tmp_path: Path) -> None:
    orders = [order(tmp_path, f"cell{seed}", f"--seed_everything={seed}", epochs=2) for seed in range(6)]
    outcomes: Sequence[Outcome]
    with cluster(None, jobs=2, gpus=0, per_gpu=1) as client:
        outcomes = [future.result(timeout=120)[0] for future in submit(client, [(one,) for one in orders])]
    assert [(outcome.code, outcome.attempts) for outcome in outcomes] == [(0, 1)] * 6
    assert all(RunDirectory(Path(one.directory)).read_summary()["status"] == "completed" for one in orders)


def test_the_stop_file_lets_cells_save(tmp_path: Path) -> None:
    orders = [order(tmp_path, f"cell{seed}", epochs=2000) for seed in range(3)]
    with cluster(None, jobs=2, gpus=0, per_gpu=1) as client:
        futures = submit(client, [(one,) for one in orders])
        for one in orders[:2]:
            wait_for(RunDirectory(Path(one.directory)).metrics)
        orders[0].stop.touch()
        outcomes = [future.result(timeout=60)[0] for future in futures]
    assert [(outcome.code, outcome.attempts) for outcome in outcomes] == [(143, 1), (143, 1), (143, 0)]
    statuses = [RunDirectory(Path(one.directory)).read_summary().get("status") for one in orders]
    assert statuses == ["interrupted", "interrupted", None]
