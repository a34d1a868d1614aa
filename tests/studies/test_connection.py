"""A cluster that others run, on loopback: what can be wrong with it, and what the user is told."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import remote
from clusters import PYTHONPATH, DaskProcesses, dask_processes
from support import Lab

from lightning_lab.runs.errors import InputError, LostProcessError
from lightning_lab.runs.lock import RunLock
from lightning_lab.runs.vault import STUDY
from lightning_lab.studies import connection
from lightning_lab.studies.connection import changes, connected
from lightning_lab.studies.execution import cluster
from lightning_lab.studies.worker import shortcomings


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    """A scheduler for all tests."""
    with dask_processes(tmp_path_factory.mktemp("dask")) as processes:
        yield processes


@pytest.fixture
def dask(running: DaskProcesses) -> Iterator[DaskProcesses]:
    """The scheduler; workers are added by the tests."""
    yield running
    running.end_workers()


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Path]:
    """A study's folder as `study run` has it: with the file, and locked."""
    folder = tmp_path / "logs" / "studies" / "drop"
    lock = RunLock(folder)
    lock.acquire()
    (folder / STUDY).write_text("name: drop\n")
    yield folder
    lock.release()


def installed(folder: Path, package: str, version: str) -> dict[str, str]:
    """Make a package count as installed in another version, for who gets this environment."""
    (folder / f"{package}-{version}.dist-info").mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    (folder / f"{package}-{version}.dist-info" / "METADATA").write_text(metadata)
    return {"PYTHONPATH": f"{folder}:{PYTHONPATH}"}


# --- the scheduler ---


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("tcp://127.0.0.1:9", r"Timed out trying to connect to tcp://127\.0\.0\.1:9 after 1 s"),
        ("head", "missing port number in address 'head'"),
        ("http://127.0.0.1:8786", "unknown address scheme 'http'"),
        ("tls://127.0.0.1:8786", "TLS expects"),
    ],
)
def test_an_address_without_a_scheduler(monkeypatch: pytest.MonkeyPatch, address: str, reason: str) -> None:
    assert connection.CONNECT_S <= 30
    loops = _loops()
    monkeypatch.setattr(connection, "CONNECT_S", 1)
    told = f"`scheduler`: no Dask scheduler answers at {address} \\(.*{reason}.*It is written tcp://HOST:PORT"
    with pytest.raises(InputError, match=told), connected(address, study=None):
        pytest.fail("connected")
    assert _loops() == loops  # what is left of a client can stop the next one


def _loops() -> int:
    return [thread.name for thread in threading.enumerate()].count("IO loop")


def test_another_server_is_no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_S", 5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_answer, args=(server,))
        thread.start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(InputError, match=f"no Dask scheduler answers at {address}"), connected(address, study=None):
            pytest.fail("connected")
        thread.join()


def _answer(server: socket.socket) -> None:
    with server.accept()[0] as other:
        other.sendall(b"SSH-2.0-OpenSSH_9.2p1 and more\r\n")


def test_the_command_ends_with_one_message(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_S", 1)
    answer = lab("study", "run", "digits_dropout", "--scheduler", "tcp://127.0.0.1:9")
    assert answer.code == 2
    assert answer.err.startswith("error: `scheduler`: no Dask scheduler answers at tcp://127.0.0.1:9 ")
    assert len(answer.err.splitlines()) == 1


def test_a_scheduler_that_is_lost_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told = r"^The connection to the scheduler tcp://\S+ was lost\. .*The same command takes the study up again\.$"
    with dask_processes(tmp_path / "dask") as dask:
        dask.add_worker()
        with pytest.raises(LostProcessError, match=told), connected(dask.address, study=None) as client:
            _lose_scheduler(dask, client)
    assert "Traceback" not in capfd.readouterr().err


def _lose_scheduler(dask: DaskProcesses, client: Any) -> None:
    future = client.submit(time.sleep, 60)
    _wait_until(lambda: any(client.processing().values()))
    dask.scheduler.kill()
    _wait_until(future.done)
    future.result()


def test_a_lost_process_is_one_message_and_exit_code_1(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(*_: Any) -> int:
        raise LostProcessError("The connection to the scheduler was lost.")

    monkeypatch.setattr("lightning_lab.studies.main.main", lose)
    assert lab("study", "run") == (1, "", "error: The connection to the scheduler was lost.\n")


@pytest.mark.slow
def test_many_lost_workers_do_not_end_a_cell(dask: DaskProcesses) -> None:
    dask.add_worker()
    with connected(dask.address, study=None) as client:
        future = client.submit(remote.lose_worker, pure=False)
        for _ in range(5):  # three are Dask's own limit
            dask.workers[-1].wait(30)
            dask.add_worker()
        time.sleep(1)
        assert future.status == "pending"


# --- its workers ---


def test_workers_are_waited_for_and_their_coming_and_going_is_told(
    dask: DaskProcesses, study: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    threading.Timer(1, dask.add_worker).start()
    with connected(dask.address, study=study) as client:
        assert client.submit(sum, [1, 2]).result(30) == 3
        second = dask.add_worker()
        _wait_until(lambda: len(client.nthreads()) == 2)
        time.sleep(2 * connection._LOOK_S)
        second.kill()
        _wait_until(lambda: len(client.nthreads()) == 1)
        time.sleep(2 * connection._LOOK_S)
    assert capfd.readouterr().err.splitlines() == [
        f"Waiting for workers: none is connected to {dask.address} yet. Ctrl-C stops.",
        f"Scheduler {dask.address}: 1 worker, 1 cell at once.",
        "1 worker joined: 2 workers, 2 cells at once.",
        "1 worker is gone and its cells go on elsewhere: 1 worker, 1 cell at once.",
    ]


def _wait_until(is_so: Any, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_workers_with_other_versions_are_refused(dask: DaskProcesses, study: Path, tmp_path: Path) -> None:
    dask.add_worker(installed(tmp_path / "other", "torch", "1.0.0"))
    told = r"Workers cannot take part\.\n  tcp://127\.0\.0\.1:\d+: has other versions: torch 1\.0\.0, here \d.*\nMend"
    with pytest.raises(InputError, match=told), connected(dask.address, study=study):
        pytest.fail("connected")


def test_a_scheduler_with_another_version_is_refused(study: Path, tmp_path: Path) -> None:
    told = r"The scheduler cannot take part\.\n  .*: has other versions: dask 2000\.1\.0, here "
    with (
        dask_processes(tmp_path / "dask", installed(tmp_path / "other", "dask", "2000.1.0")) as dask,
        pytest.raises(InputError, match=told),
        connected(dask.address, study=study),
    ):
        pytest.fail("connected")


def test_the_build_of_torch_and_pythons_last_number_may_differ() -> None:
    here = connection._plain({"torch": "2.15.0+cpu", "python": "3.11.7.final.0"})
    assert connection._other_versions({"a": {"torch": "2.15.0+cu128", "python": "3.11.9.final.0"}}, here) == {}
    assert connection._other_versions({"a": {"torch": None, "python": "3.12.1.final.0"}}, here) == {
        "a": ["has other versions: torch missing, here 2.15.0; python 3.12, here 3.11"]
    }


def test_workers_that_do_not_see_the_folder_are_refused(dask: DaskProcesses, tmp_path: Path) -> None:
    for _ in range(2):
        dask.add_worker()
    elsewhere = tmp_path / "elsewhere"
    _wait_until(lambda: dask.count_workers() == 2)
    told = f": does not see the study's folder {elsewhere}: it must be under the same path on all machines\nMend"
    with pytest.raises(InputError, match=told), connected(dask.address, study=elsewhere):
        pytest.fail("connected")


def _without_studies(folder: Path) -> dict[str, str]:
    (folder / "lightning_lab").mkdir(parents=True)
    (folder / "lightning_lab" / "__init__.py").write_text('__version__ = "0.0.1"\n')
    return {"PYTHONPATH": str(folder)}


def test_a_scheduler_with_another_lightning_lab_is_refused(study: Path, tmp_path: Path) -> None:
    told = r"The scheduler cannot take part\.\n  .*: cannot be asked .*: install the same lightning_lab everywhere"
    with (
        dask_processes(tmp_path / "dask", _without_studies(tmp_path / "other")) as dask,
        pytest.raises(InputError, match=told),
        connected(dask.address, study=study),
    ):
        pytest.fail("connected")


def test_a_worker_with_another_lightning_lab_is_refused(dask: DaskProcesses, study: Path, tmp_path: Path) -> None:
    dask.add_worker(_without_studies(tmp_path / "other"))
    told = "cannot be asked .*No module named 'lightning_lab.studies'.*: install the same lightning_lab everywhere"
    with pytest.raises(InputError, match=told), connected(dask.address, study=study):
        pytest.fail("connected")


def test_a_worker_that_comes_later_and_does_not_fit_is_sent_away(
    dask: DaskProcesses, study: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dask.add_worker()
    with connected(dask.address, study=study) as client:
        assert dask.add_worker(installed(tmp_path / "other", "torch", "1.0.0")).wait(30) == 0
        assert len(client.nthreads()) == 1
    told = capfd.readouterr().err.splitlines()
    assert re.fullmatch(
        r"The worker tcp://127\.0\.0\.1:\d+ has other versions: torch 1\.0\.0, here .*\. It is sent away\.", told[-1]
    )


# --- the worker's side ---


def test_what_a_worker_says_of_a_folder(study: Path, tmp_path: Path) -> None:
    assert shortcomings(str(study), str(tmp_path)) == []
    assert shortcomings(str(study), str(tmp_path / "gone")) == [
        f"does not see the folder {tmp_path}/gone that the command was started in: it must be under the same path on "
        "all machines"
    ]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "does not see the study's folder" in shortcomings(str(empty), str(tmp_path))[0]
    (empty / STUDY).touch()
    assert f"does not see that {empty} is locked: mount" in shortcomings(str(empty), str(tmp_path))[0]


@pytest.mark.skipif(psutil.Process().uids().real == 0, reason="root may write everywhere")
def test_a_worker_that_may_not_write_says_so(study: Path, tmp_path: Path) -> None:
    study.chmod(0o500)
    try:
        assert f"may not write into {study}: start it as the user" in shortcomings(str(study), str(tmp_path))[0]
    finally:
        study.chmod(0o700)


@pytest.mark.parametrize("how", ["SIGTERM", "lifetime"])
def test_a_worker_that_is_leaving_hands_its_cell_back(dask: DaskProcesses, study: Path, how: str) -> None:
    dask.add_worker()
    with connected(dask.address, study=study) as client:
        first = next(iter(client.nthreads()))
        (study / "hold").write_text(first)
        kept = client.submit(sum, [1, 2])  # a result that has to be moved before the worker may leave
        assert kept.result(30) == 3
        future = client.submit(remote.cell, str(study), pure=False, retries=0)
        _wait_until(lambda: client.processing()[first])
        dask.add_worker()
        _wait_until(lambda: len(client.nthreads()) == 2)
        started = time.monotonic()
        if how == "SIGTERM":  # as SLURM and Kubernetes do
            dask.workers[0].terminate()
        else:
            client.run(remote.leave, workers=[first], wait=False)
        _wait_until(future.done)
        assert future.result(30) != first
        assert dask.workers[0].wait(30) == 0
        assert time.monotonic() - started < 8  # Dask itself waits ten seconds for the cell, or thirty


def test_a_cell_has_no_outcome_on_a_worker_that_is_leaving(dask: DaskProcesses, study: Path) -> None:
    dask.add_worker()
    with connected(dask.address, study=study) as client:
        assert client.submit(remote.is_handed_back, str(study)).result(30) == [False, True]


def test_a_cell_is_not_begun_where_nobody_looks_for_it(dask: DaskProcesses, tmp_path: Path) -> None:
    dask.add_worker()
    elsewhere = tmp_path / "elsewhere"
    with connected(dask.address, study=None) as client:
        future = client.submit(remote.cell, str(elsewhere), pure=False, retries=0)
        time.sleep(3)
        assert future.status == "pending"
        assert not elsewhere.exists()
        elsewhere.mkdir()
        assert future.result(30)


# --- wording, and the cluster of this machine ---


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ("a", "abc", "2 workers joined: 3 workers, 3 cells at once."),
        ("abc", "a", "2 workers are gone and their cells go on elsewhere: 1 worker, 1 cell at once."),
        ("ab", "bc", "1 worker joined, 1 is gone and its cells go on elsewhere: 2 workers, 2 cells at once."),
    ],
)
def test_who_came_and_who_went(before: str, now: str, told: str) -> None:
    assert changes(dict.fromkeys(before, 1), dict.fromkeys(now, 1)) == told


def test_the_cluster_of_this_machine_is_closed_to_others() -> None:
    before = _listening()
    with cluster(None, jobs=1, gpus=0, per_gpu=1) as client:
        assert client.submit(sum, [1, 2]).result() == 3
        assert {ip for ip, _ in _listening() - before} <= {"127.0.0.1"}


def _listening() -> set[tuple[str, int]]:
    connections = psutil.Process().net_connections(kind="inet")
    return {tuple(one.laddr) for one in connections if one.status == psutil.CONN_LISTEN}
