"""The recipes of docs/clusters.md with a real sshd and a real SLURM on loopback, where they are installed."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from clusters import PYTHONPATH, DaskProcesses, dask_processes

from lightning_lab.rehearsal.result import compare, result_of
from lightning_lab.runs.directory import RunDirectory

RECIPES = Path(__file__).parents[2] / "docs" / "clusters"
STUDY = """name: small
base: digits/mlp
reference: {{model.net.dropout: 0.0}}
factors: {{model.net.dropout: [0.0, 0.3]}}
seeds: 1
metric: val/acc
goal: max
epochs: {epochs}
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a user has it: a study file, and an environment in .venv."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    environment = {"PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1", "PATH": f"{tmp_path}/.venv/bin:$PATH"}
    exports = "".join(f'export {name}="{value}"\n' for name, value in environment.items())
    (tmp_path / ".venv" / "bin" / "activate").write_text(exports)
    for name, module in (("dask", "dask"), ("lightning-lab", "lightning_lab")):
        script = tmp_path / ".venv" / "bin" / name
        script.write_text(f'#!/bin/sh\n{exports}exec {sys.executable} -m {module} "$@"\n')
        script.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _wait_until(is_so: Callable[[], object], what: str, seconds: float = 200) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, what
        time.sleep(0.1)


def _write_study(place: Path, epochs: int) -> None:
    (place / "my_study.yaml").write_text(STUDY.format(epochs=epochs))


def _runs(place: Path) -> list[RunDirectory]:
    return [RunDirectory(path) for path in sorted(place.glob("logs/studies/small/dropout*_seed0_*"))]


def _begun(place: Path) -> bool:
    runs = _runs(place)
    return len(runs) == 2 and all(run.read_metrics() for run in runs)


def _check_whole(place: Path, epochs: int, *, continued: bool) -> None:
    """Every cell has every epoch once; one that went on elsewhere is what it would have been without."""
    assert len(_runs(place)) == 2
    for run in _runs(place):
        assert [row["epoch"] for row in run.read_metrics()] == list(range(1, epochs + 1))
    logs = {run.path.name: place / "logs/studies/small/output" / f"{run.path.name}.log" for run in _runs(place)}
    again = [run for run in _runs(place) if "Continuing " in logs[run.path.name].read_text()]
    assert bool(again) is continued
    for run in again[:1]:
        command = [sys.executable, "-m", "lightning_lab", "fit", f"--config={run.config}"]
        where = [f"--run.logs={place / 'alone'}", "--run.experiment=alone", "--run.name=alone", "--run.threads=1"]
        subprocess.run([*command, *where], check=True, capture_output=True)
        assert compare(result_of(RunDirectory(place / "alone" / "alone" / "alone")), result_of(run)) == ()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


# --- SSH ---


@pytest.fixture
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[psutil.Process, str]]:
    """A server on two addresses of loopback, with keys of its own, and the command that reaches it."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None or shutil.which("ssh") is None:
        pytest.skip("install openssh-server and openssh-client")
    folder, port = tmp_path_factory.mktemp("ssh"), _free_port()
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it of root
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    listen = "".join(f"ListenAddress 127.0.0.{number}\n" for number in (2, 3))
    (folder / "sshd_config").write_text(
        f"Port {port}\n{listen}HostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\nPidFile none\n"
        "UsePAM no\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    )
    (folder / "config").write_text(
        f"Host *\nPort {port}\nIdentityFile {folder}/user\nUserKnownHostsFile {folder}/known\n"
        "StrictHostKeyChecking accept-new\nBatchMode yes\n"
    )
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        yield psutil.Process(server.pid), f"ssh -F {folder}/config"
    finally:
        server.kill()
        server.wait()


def test_ssh_and_a_session_that_is_lost(place: Path, sshd: tuple[psutil.Process, str]) -> None:
    server, ssh = sshd
    epochs = 150
    _write_study(place, epochs)
    variables = {
        "HOSTS": "127.0.0.2 127.0.0.3",
        "HEAD": "127.0.0.1",
        "PORT": str(_free_port()),
        "CELLS": "1",
        "SSH": ssh,
    }
    study = subprocess.Popen(
        ["bash", str(RECIPES / "ssh.sh"), "my_study.yaml"],
        env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    _wait_until(lambda: study.poll() is not None or _begun(place), "both cells begin")
    server.children()[0].kill()
    out, _ = study.communicate(timeout=400)
    assert study.returncode == 0, out
    assert "1 worker is gone and its cells go on elsewhere: 1 worker, 1 cell at once." in out
    _check_whole(place, epochs, continued=True)
    _wait_until(lambda: not server.children(), "the workers end with the script", 30)


# --- SLURM ---


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A SLURM of one node on loopback, without accounting; `$SLURM_CONF` leads to it."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    needed = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "squeue")
    missing = [name for name in needed if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"install slurm-wlm and munge ({', '.join(missing)} not found)")
    if os.getuid() != 0:
        pytest.skip("slurmd starts jobs as root alone")
    folder, host = tmp_path_factory.mktemp("slurm"), platform.node().split(".")[0]
    for parent in (folder, folder.parent, folder.parent.parent):  # munge trusts no socket behind closed doors
        parent.chmod(0o755)
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    (folder / "cgroup.conf").write_text(
        f"CgroupPlugin={'cgroup/v1' if Path('/sys/fs/cgroup/cpuset').is_dir() else 'autodetect'}\n"
    )
    (folder / "slurm.conf").write_text(
        f"ClusterName=trial\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser=root\nSlurmdUser=root\n"
        f"SlurmctldPort={_free_port()}\nSlurmdPort={_free_port()}\nCommunicationParameters=NoInAddrAny,NoCtldInAddrAny\n"
        f"AuthType=auth/munge\nAuthInfo=socket={folder}/munge.socket\nMpiDefault=none\nReturnToService=2\n"
        f"StateSaveLocation={folder}/state\nSlurmdSpoolDir={folder}/spool\n"
        f"SlurmctldPidFile={folder}/slurmctld.pid\nSlurmdPidFile={folder}/slurmd.pid\n"
        f"SlurmctldLogFile={folder}/slurmctld.log\nSlurmdLogFile={folder}/slurmd.log\n"
        "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nJobAcctGatherType=jobacct_gather/none\n"
        "SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\nSlurmdParameters=config_overrides\n"
        f"NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000\nPartitionName=main Nodes=ALL Default=YES\n"
    )
    for name in ("state", "spool"):
        (folder / name).mkdir()
    programs = [
        ["munged", "-F", "--force", f"--socket={folder}/munge.socket", f"--key-file={folder}/munge.key",
         f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/seed"],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D"],
    ]  # fmt: skip
    daemons = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PATH", path)
        try:
            for program in programs:
                with (folder / f"{program[0]}.out").open("w") as log:
                    daemons.append(subprocess.Popen(program, stdout=log, stderr=log))
                time.sleep(2)
            _wait_until(lambda: "idle" in _output("sinfo"), f"the node is idle; the logs are in {folder}", 60)
            yield folder
        finally:
            subprocess.run(["scancel", "--user=root"], check=False)
            time.sleep(2)
            for daemon in reversed(daemons):
                daemon.send_signal(signal.SIGTERM)
                daemon.wait(60)
            _end_what_is_left(folder)


def _end_what_is_left(folder: Path) -> None:
    # A SLURM with cgroups would have done it; this one loses sight of a process whose parent is gone.
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            variables = process.environ()
            if variables.get("SLURM_CONF") == f"{folder}/slurm.conf" and "SLURM_JOB_ID" in variables:
                process.kill()


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _recipe(place: Path, name: str, changes: dict[str, str]) -> str:
    text = (RECIPES / name).read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (place / name).write_text(text)
    return name


@pytest.mark.usefixtures("slurm")
def test_slurm_in_one_job(place: Path) -> None:
    _write_study(place, 3)
    small = {"--ntasks=4 ": "--ntasks=2 ", "--cpus-per-task=2 ": "--cpus-per-task=1 ", "2G": "1G"}
    job = _output("sbatch", "--parsable", _recipe(place, "slurm.sbatch", small), "my_study.yaml").strip()
    _wait_until(lambda: not _output("squeue", "--noheader"), "the job ends", 400)
    log = (place / f"study-{job}.log").read_text()
    assert "Done: 2 of 2 cells" in log, log
    assert "JobState=COMPLETED" in _output("scontrol", "show", "job", job)
    _check_whole(place, 3, continued=False)


@pytest.mark.usefixtures("slurm")
def test_slurm_and_a_job_that_is_cancelled(place: Path) -> None:
    epochs = 150
    _write_study(place, epochs)
    with dask_processes(place / "dask") as dask:
        worker = f"srun .venv/bin/dask worker {dask.address} --nthreads 1 --no-nanny --host 127.0.0.1 --no-dashboard"
        submit = ["sbatch", "--parsable", "--ntasks=1", "--wrap", f"{worker} --dashboard-address 127.0.0.1:0"]
        jobs = [_output(*submit).strip() for _ in range(2)]
        study = _study(dask)
        _wait_until(lambda: study.poll() is not None or _begun(place), "both cells begin")
        _output("scancel", jobs[0])
        out, _ = study.communicate(timeout=400)
    assert study.returncode == 0, out
    assert "1 worker is gone and its cells go on elsewhere: 1 worker, 1 cell at once." in out
    logs = [path.read_text() for path in place.glob("logs/studies/small/output/*.log")]
    assert any("Stopped by SIGTERM" in text for text in logs)  # saved at once, not when the time was over
    _check_whole(place, epochs, continued=True)


def _study(dask: DaskProcesses) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lightning_lab", "study", "run", "my_study.yaml", "--scheduler", dask.address]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.skipif(importlib.util.find_spec("dask_jobqueue") is None, reason="pip install dask-jobqueue")
@pytest.mark.usefixtures("slurm")
def test_slurm_by_dask_jobqueue(place: Path) -> None:
    _write_study(place, 3)
    small = {
        "JOBS = 8": "JOBS = 2",
        "CELLS = 2 ": "CELLS = 1 ",
        '"4GB"': '"1GB"',
        "INTERFACE = None": 'INTERFACE = "lo"',
    }
    command = [sys.executable, _recipe(place, "slurm.py", small), "my_study.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert "Done: 2 of 2 cells" in done.stdout
    _check_whole(place, 3, continued=False)
    _wait_until(lambda: not _output("squeue", "--noheader"), "the jobs are cancelled", 60)
