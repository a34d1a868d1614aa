"""Real processes that train one run together: the same numbers as one process gets, and an end when one is lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from support import Lab
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_lab import launcher
from lightning_lab.__main__ import main
from lightning_lab.runs.agreement import everyones
from lightning_lab.runs.directory import RunDirectory

TESTS = Path(__file__).parent
COMMAND = ("-m", "lightning_lab", "fit")
MLP = ("--config=digits/mlp", "--trainer.accelerator=cpu", "--lr_schedule=null", "--trainer.max_epochs=4")
TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")
#: From the loss of a process to the end of the others.
LIMIT_S = 30
#: 913 images to train, 525 to validate and 359 to test leave last batches of 1, 45 and 23.
COUNTED = (
    "--config=digits/lenet5", "--data.val_frac=0.366", "--data.batch_size=48", "--model.optimizer.lr=0.01",
    "--trainer.max_epochs=2", "--lr_schedule=null", "--then=test",
)  # fmt: skip


class Slow(Callback):
    """Time to kill somebody."""

    def on_train_batch_end(self, *_: Any) -> None:
        time.sleep(0.02)


class RaiseInSecond(Callback):
    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_rank == 1 and trainer.global_step == 40:
            raise RuntimeError("only here")


class BusyInFirst(Callback):
    """Wait for no other process, but for somebody who never comes; the second one is gone."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 40 and trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if trainer.global_step == 40:
            time.sleep(300)


class DivergeInSecond(Callback):
    """Let the loss of one step not be finite, in one process."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_rank == 1 and trainer.global_step in (41, 43):
            outputs["loss"] = torch.tensor(float("nan"))


class AskForBuffers(Callback):
    """End the run if the processes measure nets with different running statistics."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before = everyones(total_of_buffers(pl_module))

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        sums = everyones(total_of_buffers(pl_module))
        if len(set(sums)) > 1 or sums == self.before:
            raise RuntimeError(f"buffers: {self.before}, then {sums}")


def total_of_buffers(module: LightningModule) -> float:
    return float(sum(buffer.double().sum() for buffer in module.buffers()))


def work(rank: int, size: int, port: int, folder: Path, args: tuple[str, ...], grace_s: float) -> None:
    """Be one process of a run, as torchrun starts it, with the imports done already."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    os.environ.pop("LIGHTNING_LAB_RUN", None)  # of a test that was under way when the first of these was started
    os.chdir(folder)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{name}{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    launcher.GRACE_S = grace_s
    sys.exit(main(list(args)))


@pytest.fixture(scope="module")
def warm() -> Any:
    """Processes that have done the imports: 1 second instead of 6."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lightning_lab.verbs", "sklearn.datasets", "test_several_processes"])
    return context


@pytest.fixture(scope="module")
def start(warm: Any) -> Iterator[Callable[..., list[BaseProcess]]]:
    started: list[BaseProcess] = []

    def begin(size: int, folder: Path, *args: str, grace_s: float = launcher.GRACE_S) -> list[BaseProcess]:
        folder.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        target = partial(work, size=size, port=port, folder=folder, args=args, grace_s=grace_s)
        processes = [warm.Process(target=target, args=(rank,)) for rank in range(size)]
        for process in processes:
            process.start()
        started.extend(processes)
        return processes

    yield begin
    for process in started:
        process.kill()
        process.join()


def codes(processes: list[BaseProcess], limit_s: float = 100) -> list[int | None]:
    """Wait for the ends, however long one after the other takes."""
    deadline = time.monotonic() + limit_s
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    return [process.exitcode for process in processes]


def wait_for(file: Path, alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not file.exists():
        assert alive()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def said(folder: Path, rank: int) -> str:
    return (folder / f"err{rank}").read_text()


# --- the numbers ---


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, start: Callable[..., list[BaseProcess]]) -> dict[int, RunDirectory]:
    """The same run with one, two and three processes; the two by Lightning's own launcher."""
    folder = tmp_path_factory.mktemp("counted")
    command = [sys.executable, *COMMAND, *COUNTED, "--config=trainer/ddp_cpu2", "--run.name=2"]
    with (folder / "err").open("w") as err, subprocess.Popen(command, cwd=folder, stderr=err) as two:
        # Meanwhile, for that one mostly imports.
        settings = (*COUNTED, "--trainer.accelerator=cpu", "--trainer.strategy=ddp")
        three = start(3, folder, "fit", *settings, "--trainer.devices=3", "--run.name=3")
        assert codes(three) == [0, 0, 0], [said(folder, rank) for rank in range(3)]
        one = start(1, folder, "fit", *COUNTED, "--config=trainer/cpu", "--run.name=1")
        assert codes(one) == [0], said(folder, 0)
        assert two.wait(100) == 0, (folder / "err").read_text()
    return {size: RunDirectory(folder / "logs" / "lenet5" / str(size)) for size in (1, 2, 3)}


@pytest.mark.parametrize("size", [2, 3])
def test_metrics_are_those_of_one_process(runs: dict[int, RunDirectory], size: int) -> None:
    one, several = runs[1].read_metrics(), runs[size].read_metrics()
    extra = {f"val/loss/rank{rank}" for rank in range(size)}
    assert [set(row) for row in several] == [set(row) | extra for row in one]
    for theirs, own in zip(several, one, strict=True):
        common = {name: value for name, value in own.items() if name not in ("time_s", "grad_norm")}
        assert {name: theirs[name] for name in common} == pytest.approx(common, abs=1e-6)
        assert theirs["grad_norm"] == pytest.approx(own["grad_norm"], rel=1e-4)  # of the last step, of one image
    assert runs[size].read_summary()["test"] == pytest.approx(runs[1].read_summary()["test"], abs=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_each_example_is_counted_once(runs: dict[int, RunDirectory], size: int) -> None:
    assert runs[size].read_summary()["examples"] == {"val": 525, "test": 359}


@pytest.mark.parametrize(("size", "parts"), [(2, [263, 262]), (3, [175, 175, 175])])
def test_the_losses_of_the_processes_make_up_the_whole(
    runs: dict[int, RunDirectory], size: int, parts: list[int]
) -> None:
    for row in runs[size].read_metrics():
        total = sum(row[f"val/loss/rank{rank}"] * count for rank, count in enumerate(parts))
        assert total / 525 == pytest.approx(row["val/loss"], abs=1e-6)
        assert len({row[f"val/loss/rank{rank}"] for rank in range(size)}) == size


@pytest.mark.parametrize(("size", "rank"), [(2, 0), (2, 1), (3, 2)])
def test_tensorboard_draws_them_with_the_others(runs: dict[int, RunDirectory], size: int, rank: int) -> None:
    events = EventAccumulator(str(runs[size].path / f"val_rank{rank}"))
    events.Reload()
    assert events.Tags()["scalars"] == ["loss"]  # the tag of the sub-runs train and val
    logged = [row[f"val/loss/rank{rank}"] for row in runs[size].read_metrics()]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(logged)


def test_one_process_has_no_part(runs: dict[int, RunDirectory]) -> None:
    assert not [name for row in runs[1].read_metrics() for name in row if "rank" in name]
    assert not list(runs[1].path.glob("*rank*"))


def test_the_net_that_is_measured_is_the_one_that_is_saved(
    start: Callable[..., list[BaseProcess]], tmp_path: Path, lab: Lab
) -> None:
    settings = (
        "--config=digits/lenet5", "--model.net=VGG", "--model.net.in_channels=1", "--model.net.image_size=32",
        "--data.image_size=32", "--trainer.limit_train_batches=3", "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu", "--trainer.callbacks+=test_several_processes.AskForBuffers",
        # Left on, DDP itself would do it in every step.
        "--trainer.devices=2", "--trainer.strategy=lightning.pytorch.strategies.DDPStrategy",
        "--trainer.strategy.broadcast_buffers=false",
    )  # fmt: skip
    several = start(2, tmp_path, "fit", *settings, "--run.name=one")
    assert codes(several) == [0, 0], said(tmp_path, 0)
    run = RunDirectory(tmp_path / "logs" / "lenet5" / "one")
    (row,) = run.read_metrics()
    again = (
        f"--config={run.config}",
        "--trainer.devices=1",
        "--trainer.strategy=auto",
        "--ckpt_path=last",
        "--trainer.callbacks=null",
    )
    answer = lab("validate", *again)
    assert answer.code == 0, answer.err
    printed = dict(line.split() for line in answer.out.splitlines() if line.startswith("  val/"))
    # Six digits are printed.
    assert {name: float(value) for name, value in printed.items()} == pytest.approx(
        {name: row[name] for name in printed}, rel=6e-6, abs=1e-6
    )
    assert "val/loss" in printed


def test_penalty_and_least_squares_are_those_of_one_process(
    start: Callable[..., list[BaseProcess]], tmp_path: Path
) -> None:
    settings = (
        "--config=digits/mlp", "--data.val_frac=0.366", "--data.batch_size=48", "--trainer.accelerator=cpu",
        "--trainer.strategy=ddp", "--trainer.max_epochs=2", "--lr_schedule=null", "--trainer.precision=64-true",
        "--penalty.kind=norm", "--penalty.weight=0.01", "--least_squares_head.ridge=0.001",
    )  # fmt: skip
    rows = {}
    for size in (1, 2):
        processes = start(size, tmp_path, "fit", *settings, f"--trainer.devices={size}", f"--run.name={size}")
        assert codes(processes) == [0] * size, said(tmp_path, 0)
        rows[size] = RunDirectory(tmp_path / "logs" / "mlp" / str(size)).read_metrics()
    for one, two in zip(rows[1], rows[2], strict=True):
        common = {name: value for name, value in one.items() if name not in ("time_s", "grad_norm")}
        assert {name: two[name] for name in common} == pytest.approx(common, rel=1e-6)
        assert common["train/penalty"] > 0
    assert rows[2][-1]["val/loss"] > rows[2][-1]["val/loss_before_head"] > 0
    assert (tmp_path / "out0").read_text().count("least_squares_head: ") == 1
    assert "least_squares_head" not in (tmp_path / "out1").read_text()  # said once


# --- a process that is lost ---


def test_the_first_process_ends_when_another_is_killed(start: Callable[..., list[BaseProcess]], tmp_path: Path) -> None:
    command = ("fit", *MLP, *TWO, "--trainer.callbacks+=test_several_processes.Slow", "--run.name=one")
    run = RunDirectory(tmp_path / "logs" / "mlp" / "one")
    processes = start(2, tmp_path, *command)
    wait_for(run.last, lambda: all(process.is_alive() for process in processes))
    processes[1].kill()
    assert codes(processes, LIMIT_S) == [1, -signal.SIGKILL]
    told = "Process 1 of this run was lost. Continue it with: lightning-lab fit --config logs/mlp/one/config.yaml\n"
    assert said(tmp_path, 0).endswith(told)
    assert "Traceback" not in said(tmp_path, 0)
    assert run.read_summary()["status"] == "failed"
    assert run.read_summary()["reason"] == "LostProcessError: Process 1 of this run was lost."


def test_an_exception_in_one_process_is_the_one_that_is_told(
    start: Callable[..., list[BaseProcess]], tmp_path: Path
) -> None:
    callback = "--trainer.callbacks+=test_several_processes.RaiseInSecond"
    processes = start(2, tmp_path, "fit", *MLP, *TWO, callback, "--run.name=one")
    assert codes(processes, LIMIT_S) == [1, 1]
    assert "internal error: RuntimeError: only here. This is a bug of lightning_lab.\n" in said(tmp_path, 1)
    assert "Traceback" not in said(tmp_path, 0)
    assert "Process 1 of this run was lost. Continue it with: " in said(tmp_path, 0)
    run = RunDirectory(tmp_path / "logs" / "mlp" / "one")
    assert "RuntimeError: only here" in run.traceback.read_text()
    assert run.read_summary()["status"] == "failed"


def test_a_process_that_is_busy_elsewhere_ends_too(start: Callable[..., list[BaseProcess]], tmp_path: Path) -> None:
    callback = "--trainer.callbacks+=test_several_processes.BusyInFirst"
    processes = start(2, tmp_path, "fit", *MLP, *TWO, callback, "--run.name=one", grace_s=1.0)
    assert codes(processes, LIMIT_S) == [1, -signal.SIGKILL]
    assert "Process 1 of this run was lost. Continue it with: " in said(tmp_path, 0)
    summary = RunDirectory(tmp_path / "logs" / "mlp" / "one").read_summary()
    assert (summary["status"], summary["epochs"]) == ("failed", 1)


def test_a_divergence_that_one_process_sees_ends_all(start: Callable[..., list[BaseProcess]], tmp_path: Path) -> None:
    callback = "--trainer.callbacks+=test_several_processes.DivergeInSecond"
    processes = start(2, tmp_path, "fit", *MLP, *TWO, callback, "--run.name=one")
    assert codes(processes, LIMIT_S) == [4, 4]
    assert "Training diverged: the loss of step 41 (epoch 2) is not finite; all gradients and" in said(tmp_path, 0)
    assert "diverged" not in said(tmp_path, 1)  # said once
    assert RunDirectory(tmp_path / "logs" / "mlp" / "one").read_summary()["status"] == "diverged"


# --- as users start them ---


def members(folder: Path) -> dict[int, int]:
    """The process ids of a run's processes by rank, found by the folder they work in."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit() or (entry / "cwd").readlink() != folder:
                continue
            words = (entry / "cmdline").read_bytes().split(b"\0")
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # gone, or somebody else's
            continue
        if b"fit" in words and b"torch.distributed.run" not in words:
            ranks = [int(one.partition(b"=")[2]) for one in environment if one.startswith(b"LOCAL_RANK=")]
            found[ranks[0] if ranks else 0] = int(entry.name)
    return found


def kill_after_an_epoch(command: list[str], folder: Path, rank: int) -> tuple[int, str]:
    """Start a run, kill one of its two processes, and give the exit code and what was said."""
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    with (folder / "err").open("w") as err:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=err, stderr=err)
        try:
            wait_for(folder / "logs" / "mlp" / "one" / "checkpoints" / "last.ckpt", lambda: process.poll() is None)
            os.kill(members(folder)[rank], signal.SIGKILL)
            code = process.wait(LIMIT_S)
        finally:
            process.terminate()
    deadline = time.monotonic() + LIMIT_S
    while members(folder):
        assert time.monotonic() < deadline, members(folder)
        time.sleep(0.05)
    return code, (folder / "err").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_no_process_outlives_the_first_one(tmp_path: Path) -> None:
    slow = "--trainer.callbacks+=test_several_processes.Slow"
    command = [sys.executable, *COMMAND, *MLP, *TWO, slow, "--run.name=one"]
    code, err = kill_after_an_epoch(command, tmp_path, 0)
    assert code == -signal.SIGKILL
    assert err.count("of this run was lost") == 1
    assert "Continue it with: lightning-lab fit --config " in err
    assert "Traceback" not in err


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_torchrun_ends_and_the_run_goes_on(start: Callable[..., list[BaseProcess]], tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    args = (*MLP, *TWO, "--trainer.callbacks+=test_several_processes.Slow", "--run.name=one")
    code, err = kill_after_an_epoch([*torchrun, *COMMAND, *args], tmp_path, 1)
    assert code == 1
    assert (
        "Process 1 of this run was lost. Continue it with: lightning-lab fit --config logs/mlp/one/config.yaml" in err
    )
    run = RunDirectory(tmp_path / "logs" / "mlp" / "one")
    assert run.read_summary()["status"] == "failed"
    again = start(2, tmp_path, "fit", *args)
    assert codes(again) == [0, 0], said(tmp_path, 0)
    assert (tmp_path / "out0").read_text().startswith("Continuing logs/mlp/one from its last checkpoint.")
    assert run.read_summary()["status"] == "completed"
    assert [row["epoch"] for row in run.read_metrics()] == [1, 2, 3, 4]
