"""What docs/clusters.md tells people to type and to copy: flags that exist, ports and names that agree."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_lab.__main__ import main

DOCS = Path(__file__).parents[1] / "docs"
FILES = DOCS / "clusters"
TEXTS = {path.name: path.read_text() for path in (DOCS / "clusters.md", *sorted(FILES.iterdir()))}
#: A command of Dask, and what tells it from prose.
_COMMAND = re.compile(r"dask (scheduler|worker|ssh) (?:[^\n#&>|]|\\\n)*--(?:[^\n#&>|]|\\\n)*")


def commands() -> list[tuple[str, str, str]]:
    found = [
        (name, match[1], match[0])
        for name, text in TEXTS.items()
        if name != "kubernetes.yaml"
        for match in _COMMAND.finditer(text)
    ]
    return found + [("kubernetes.yaml", one[1], shlex.join(one)) for one in _container_commands() if one[0] == "dask"]


def _manifests() -> dict[tuple[str, str], dict[str, Any]]:
    documents = list(yaml.safe_load_all(TEXTS["kubernetes.yaml"]))
    return {(one["kind"], one["metadata"]["name"]): one for one in documents}


def _pods() -> dict[str, dict[str, Any]]:
    return {
        one["spec"]["template"]["metadata"]["labels"]["part"]: one["spec"]["template"]
        for one in _manifests().values()
        if "template" in one["spec"]
    }


def _container_commands() -> list[list[str]]:
    return [container["command"] for pod in _pods().values() for container in pod["spec"]["containers"]]


# --- commands ---


def test_every_page_has_the_commands_it_is_about() -> None:
    assert sorted(TEXTS) == ["clusters.md", "kubernetes.yaml", "slurm.py", "slurm.sbatch", "ssh.sh"]
    found = {(name, what) for name, what, _ in commands()}
    pairs = {
        (name, what)
        for name in ("clusters.md", "kubernetes.yaml", "slurm.sbatch", "ssh.sh")
        for what in ("scheduler", "worker")
    }
    assert found == {*pairs, ("clusters.md", "ssh")}


@pytest.mark.parametrize(("name", "what", "line"), commands())
def test_the_flags_of_dask_exist(name: str, what: str, line: str) -> None:
    command = import_module(f"distributed.cli.dask_{what}").main
    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", line))
    assert used
    assert used <= known


@pytest.mark.parametrize(("name", "what", "line"), [one for one in commands() if one[1] in ("scheduler", "worker")])
def test_no_dashboard_is_open_to_others(name: str, what: str, line: str) -> None:
    assert "--dashboard-address 127.0.0.1:0" in line or "$quiet" in line
    if what == "scheduler" and name != "kubernetes.yaml":  # there, a policy keeps others out
        assert "--host " in line


def test_the_warning_stands_before_the_first_command() -> None:
    text = TEXTS["clusters.md"]
    assert text.index("Dask authenticates nobody") < text.index("dask scheduler --host")
    assert "## TLS" in text


def test_the_command_of_the_study_exists(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["study", "run", "--help"])
    assert "--scheduler ADDRESS" in capsys.readouterr().out
    lines = [line for text in TEXTS.values() for line in text.splitlines() if "lightning-lab study run" in line]
    assert len(lines) >= 3
    assert all(re.search(r"study run \S+ --scheduler \S+", line) for line in lines)


def test_the_variables_of_tls_are_dasks(monkeypatch: pytest.MonkeyPatch) -> None:
    from dask import config
    from distributed.security import Security

    block = re.search(r"( {4}export DASK_.*?done\n)", TEXTS["clusters.md"], re.DOTALL)
    assert block
    shown = subprocess.run(["bash", "-c", f"{block[1]}env"], capture_output=True, text=True, check=True).stdout
    variables = dict(line.split("=", 1) for line in shown.splitlines() if line.startswith("DASK_DISTRIBUTED__COMM"))
    assert len(variables) == 8
    with config.set(config.merge(config.config, config.collect(paths=[], env=variables))):
        security = Security()
    assert security.require_encryption is True
    assert security.tls_ca_file == "ca.pem"
    for role in ("scheduler", "worker", "client"):
        assert security.get_tls_config_for_role(role)["cert"] == "cert.pem"
        assert security.get_tls_config_for_role(role)["key"] == "key.pem"


def test_the_page_names_every_file() -> None:
    assert set(re.findall(r"\]\(clusters/([\w.]+)\)", TEXTS["clusters.md"])) == set(TEXTS) - {"clusters.md"}


# --- scripts ---


@pytest.mark.parametrize("name", ["ssh.sh", "slurm.sbatch"])
def test_scripts_parse(name: str) -> None:
    subprocess.run(["bash", "-n", str(FILES / name)], check=True)


def test_every_directive_is_one_of_sbatch() -> None:
    directives = re.findall(r"^#SBATCH (--[a-z-]+)", TEXTS["slurm.sbatch"], re.MULTILINE)
    assert len(directives) == 7
    if shutil.which("sbatch") is None:
        pytest.skip("install slurm-client: `sbatch --help` says which directives there are")
    told = subprocess.run(["sbatch", "--help"], capture_output=True, text=True, check=False)
    if told.returncode:
        pytest.skip(f"sbatch has no cluster: {told.stderr.strip()}")
    assert [one for one in directives if one not in told.stdout] == []


def test_every_argument_is_one_of_dask_jobqueue() -> None:
    tree = ast.parse(TEXTS["slurm.py"])
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    arguments = {word.arg for call in calls if call.func.id == "SLURMCluster" for word in call.keywords}  # type: ignore[attr-defined]
    assert {"cores", "walltime", "worker_extra_args"} <= arguments
    jobqueue = pytest.importorskip("dask_jobqueue", reason="pip install dask-jobqueue")
    classes = (jobqueue.SLURMCluster, jobqueue.slurm.SLURMJob, jobqueue.slurm.Job)
    known = {name for one in classes for name in inspect.signature(one.__init__).parameters}
    assert arguments <= known


# --- Kubernetes ---


def test_the_manifests_agree_with_each_other() -> None:
    manifests, pods = _manifests(), _pods()
    service = manifests["Service", "study-scheduler"]
    (port,) = service["spec"]["ports"]
    assert service["spec"]["type"] == "ClusterIP"
    assert service["spec"]["selector"].items() <= pods["scheduler"]["metadata"]["labels"].items()
    (scheduler,) = pods["scheduler"]["spec"]["containers"]
    assert [one["containerPort"] for one in scheduler["ports"]] == [port["targetPort"]]
    assert scheduler["command"][scheduler["command"].index("--port") + 1] == str(port["targetPort"])
    for part in ("worker", "client"):
        (container,) = pods[part]["spec"]["containers"]
        assert f"tcp://study-scheduler:{port['port']}" in container["command"]
        assert [container["workingDir"]] == [mount["mountPath"] for mount in container["volumeMounts"]] == ["/study"]
        (volume,) = pods[part]["spec"]["volumes"]
        assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in manifests
        # They read and write the same files.
        assert pods[part]["spec"]["securityContext"] == pods["worker"]["spec"]["securityContext"]
    policy = manifests["NetworkPolicy", "study"]["spec"]["podSelector"]["matchLabels"]
    for pod in pods.values():
        assert policy.items() <= pod["metadata"]["labels"].items()
        assert pod["spec"]["enableServiceLinks"] is False  # its variables would be taken for Dask's settings
    for (kind, _), one in manifests.items():
        if kind == "Deployment":
            assert one["spec"]["selector"]["matchLabels"] == one["spec"]["template"]["metadata"]["labels"]
    assert len({container["image"] for pod in pods.values() for container in pod["spec"]["containers"]}) == 1


def test_a_worker_of_kubernetes_has_memory_for_its_cells() -> None:
    (worker,) = _pods()["worker"]["spec"]["containers"]
    cells = int(worker["command"][worker["command"].index("--nthreads") + 1])
    limits = worker["resources"]["limits"]["memory"]
    assert int(limits.removesuffix("Gi")) >= 1.5 * cells  # what `study run` reckons with for a cell
    assert int(worker["resources"]["requests"]["cpu"]) == cells


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_the_manifests_fit_the_schemas(version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for manifest in _manifests().values():
        validate.validate(manifest, version, strict=True)
