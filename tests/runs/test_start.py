"""Where a run goes, and whether it begins, continues, is finished or is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from lightning_lab.runs.directory import RunDirectory
from lightning_lab.runs.errors import InputError
from lightning_lab.runs.start import check_writable, choose_directory, decide, open_record, origin_of

CONFIG = "seed_everything: 1\nmodel:\n  dropout: 0.5\nprogress:\n  style: bar\n"
ORIGIN = Path("/runs/vgg/first")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process that nothing outside has started."""
    monkeypatch.delenv("LIGHTNING_LAB_RUN", raising=False)
    for variable in ("LOCAL_RANK", "WORLD_SIZE", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "logs" / "one")


def choose(**given: Any) -> Path:
    defaults: dict[str, Any] = {"logs": None, "experiment": None, "name": None, "origin": None}
    return choose_directory(**defaults | given, stem="stem", seed=7).path


def leave(run: RunDirectory, *, files: tuple[str, ...] = ("last", "best"), **summary: Any) -> None:
    run.checkpoints.mkdir(parents=True)
    run.config.write_text(CONFIG)
    run.environment.write_text("{}")
    for name in files:
        (run.checkpoints / f"{name}.ckpt").touch()
    if summary:
        run.summary.write_text(json.dumps(summary))


def tree(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


# --- where ---


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "logs/stem/slurm-12_seed7"),
        ({"name": "n"}, "logs/stem/n"),
        ({"experiment": "e"}, "logs/e/slurm-12_seed7"),
        ({"experiment": "e", "name": "n"}, "logs/e/n"),
        ({"logs": "l"}, "l/stem/slurm-12_seed7"),
        ({"logs": "l", "name": "n"}, "l/stem/n"),
        ({"logs": "l", "experiment": "e"}, "l/e/slurm-12_seed7"),
        ({"logs": "l", "experiment": "e", "name": "n"}, "l/e/n"),
        ({"origin": ORIGIN}, "/runs/vgg/first"),
        ({"origin": ORIGIN, "name": "n"}, "/runs/vgg/n"),
        ({"origin": ORIGIN, "experiment": "e"}, "/runs/e/slurm-12_seed7"),
        ({"origin": ORIGIN, "experiment": "e", "name": "n"}, "/runs/e/n"),
        ({"origin": ORIGIN, "logs": "l"}, "l/vgg/slurm-12_seed7"),
        ({"origin": ORIGIN, "logs": "l", "name": "n"}, "l/vgg/n"),
        ({"origin": ORIGIN, "logs": "l", "experiment": "e"}, "l/e/slurm-12_seed7"),
        ({"origin": ORIGIN, "logs": "l", "experiment": "e", "name": "n"}, "l/e/n"),
    ],
)
def test_what_is_not_given_comes_from_the_origin_or_the_defaults(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], expected: str
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert choose(**given) == Path(expected)
    assert "LIGHTNING_LAB_RUN" not in os.environ  # another run of this process is none of this one


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"SLURM_JOB_ID": "12"}, "slurm-12_seed7"),
        ({"TORCHELASTIC_RUN_ID": "abc"}, "torchelastic-abc_seed7"),
        ({"TORCHELASTIC_RUN_ID": "abc", "WORLD_SIZE": "2"}, "torchelastic-abc_seed7"),
        ({"SLURM_JOB_ID": "12", "TORCHELASTIC_RUN_ID": "abc"}, "slurm-12_seed7"),
        ({"SLURM_JOB_ID": "12", "TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2"}, "slurm-12_seed7"),
    ],
)
def test_processes_started_from_outside_share_a_name(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], name: str
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert choose() == Path("logs/stem") / name


@pytest.mark.parametrize("variables", [{}, {"WORLD_SIZE": "1"}, {"TORCHELASTIC_RUN_ID": "none"}])
def test_the_default_name_is_the_time_and_the_seed(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{3}_seed7", choose().name)


@pytest.mark.parametrize("run_id", [None, "none"])  # torchrun says "none" unless told a name
def test_several_processes_without_a_name_are_refused(monkeypatch: pytest.MonkeyPatch, run_id: str | None) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    if run_id is not None:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", run_id)
    message = "Several processes were started from outside: name the run they share with --run.name."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        choose()
    assert choose(name="n") == Path("logs/stem/n")


def test_a_process_that_the_run_started_takes_its_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_LAB_RUN", "/runs/mlp/first")
    assert choose(name="other", logs="other") == Path("/runs/mlp/first")


@pytest.mark.parametrize(
    ("name", "environment", "is_run"),
    [("config.yaml", True, True), ("config.yaml", False, False), ("other.yaml", True, False)],
)
def test_a_configuration_is_known_as_the_record_of_a_run(
    tmp_path: Path, name: str, environment: bool, is_run: bool
) -> None:
    (tmp_path / name).touch()
    if environment:
        (tmp_path / "environment.json").touch()
    assert origin_of(tmp_path / name) == (tmp_path if is_run else None)


# --- what is done ---


@pytest.mark.parametrize(
    ("status", "files", "decision"),
    [
        ("completed", ("last", "best"), "finished"),
        ("stopped_early", ("last", "best"), "finished"),
        ("diverged", ("last", "best"), "finished"),
        ("completed", ("best",), "finished"),
        ("interrupted", ("last", "best"), "continue"),
        ("failed", ("last", "best"), "continue"),
        ("failed", ("last",), "continue"),
        ("interrupted", (), "begin"),
        ("completed", (), "finished"),
    ],
)
@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_there_decides(
    run: RunDirectory, status: str, files: tuple[str, ...], decision: str, overwrite: bool
) -> None:
    leave(run, files=files, status=status)
    before = tree(run.path)
    assert decide(run, CONFIG, overwrite=overwrite) == ("begin" if overwrite else decision)
    assert tree(run.path) == before


@pytest.mark.parametrize("overwrite", [True, False])
def test_an_empty_folder_and_none_begin(run: RunDirectory, overwrite: bool) -> None:
    assert decide(run, CONFIG, overwrite=overwrite) == "begin"
    assert not run.path.exists()
    run.path.mkdir(parents=True)
    assert decide(run, CONFIG, overwrite=overwrite) == "begin"


@pytest.mark.parametrize("option", ["name", "experiment"])
@pytest.mark.parametrize("value", ["", ".", "..", "a/b", "../up", "/abs", "a/"])
def test_a_name_is_a_plain_folder_name(option: str, value: str) -> None:
    given = {"logs": None, "experiment": None, "name": None, option: value}
    message = f"`run.{option}` must be a plain folder name, got {value!r}."
    with pytest.raises(InputError, match=re.escape(message)):
        choose_directory(**given, origin=None, stem="stem", seed=0)


def test_a_folder_that_cannot_be_written_is_told_first(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(InputError, match=r"is not writable. Choose another --run.logs"):
        check_writable(run)


def test_another_configuration_is_refused_with_what_differs(run: RunDirectory) -> None:
    leave(run, status="completed")
    other = CONFIG.replace("0.5", "0.25").replace("seed_everything: 1", "seed_everything: 2") + "then: test\n"
    message = (
        f"The run {run.path} was made with another configuration (there -> now):\n"
        "  seed_everything  1 -> 2\n"
        "  model.dropout    0.5 -> 0.25\n"
        "  then             - -> test\n"
        f"Choose another --run.name, let a new run go on from where this one is (`lightning-lab runs fork {run.path} "
        "--KEY VALUE`), or start over with --run.overwrite true."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        decide(run, other, overwrite=False)
    assert decide(run, other, overwrite=True) == "begin"


@pytest.mark.parametrize(
    "config", [CONFIG.replace("bar", "lines"), CONFIG.split("progress")[0], CONFIG.split("progress")[0] + "progress:\n"]
)
def test_how_a_run_is_shown_makes_no_difference(run: RunDirectory, config: str) -> None:
    leave(run, status="interrupted")
    assert decide(run, config, overwrite=False) == "continue"


def test_a_file_in_the_place_of_the_directory_is_refused(run: RunDirectory) -> None:
    run.path.parent.mkdir()
    run.path.touch()
    message = f"The run directory {run.path} is a file. Choose another --run.name."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        check_writable(run)


# --- the record ---


@pytest.mark.parametrize(("is_run", "begins", "kept"), [(True, True, False), (True, False, True), (False, True, True)])
def test_only_a_run_is_deleted(run: RunDirectory, is_run: bool, begins: bool, kept: bool) -> None:
    run.checkpoints.mkdir(parents=True)
    (run.checkpoints / "last.ckpt").touch()
    if is_run:
        run.config.write_text("old: 1\n")
    open_record(run, CONFIG, begins=begins)
    assert run.last.exists() is kept
    assert run.config.read_text() == CONFIG
    assert json.loads(run.environment.read_text()).keys() >= {"commit", "dirty", "versions", "hardware", "command"}


def test_a_kill_while_a_run_is_deleted_leaves_no_checkpoint_to_a_configuration_that_is_not_its_own(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(run, status="completed")
    (run.path / ".lock").touch()
    (run.path / "train").mkdir()
    states = []
    real_rmtree, real_unlink = shutil.rmtree, Path.unlink

    def note(call: Any) -> Any:
        def noted(path: Path, *args: Any, **kwargs: Any) -> None:
            call(path, *args, **kwargs)
            states.append((run.config.exists(), run.last.exists() or run.best.exists()))

        return noted

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", note(real_rmtree))
        patch.setattr(Path, "unlink", note(real_unlink))
        open_record(run, "another: 1\n", begins=True)
    assert states == [(True, True)] + [(True, False)] * (len(states) - 2) + [(False, False)]  # the summary goes first
    assert (run.path / ".lock").exists()


def test_checkpoints_that_belong_to_no_configuration_are_not_taken(run: RunDirectory) -> None:
    leave(run, status="interrupted")
    run.config.unlink()
    for overwrite in (True, False):
        with pytest.raises(InputError, match=r"holds checkpoints but no config\.yaml that says what they are of"):
            decide(run, CONFIG, overwrite=overwrite)


def test_logs_at_an_address_are_refused() -> None:
    message = "`run.logs` must be a local folder, got s3://bucket/logs. Copy the runs there when they are done."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        choose(logs="s3://bucket/logs")


@pytest.mark.parametrize("left", ["best.ckpt", "metrics.jsonl"])
def test_results_that_cannot_be_continued_are_not_given_to_another_configuration(run: RunDirectory, left: str) -> None:
    leave(run, files=(), status="interrupted")
    (run.best if left == "best.ckpt" else run.metrics).write_text('{"epoch": 1}\n')
    assert decide(run, CONFIG, overwrite=False) == "begin"  # the same is computed again
    with pytest.raises(InputError, match=r"was made with another configuration \(there -> now\):"):
        decide(run, CONFIG + "other: 1\n", overwrite=False)
    assert decide(run, CONFIG + "other: 1\n", overwrite=True) == "begin"


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_not_the_runs_is_deleted_on_request_only(run: RunDirectory, overwrite: bool) -> None:
    leave(run, status="interrupted")
    for name in ("notes.txt", "val_rank1", "events.out.tfevents.1.host.2"):
        (run.path / name).touch()
    open_record(run, CONFIG, begins=True, overwrite=overwrite)
    kept = {"config.yaml", "environment.json"} | (set() if overwrite else {"notes.txt"})
    assert {path.name for path in run.path.iterdir()} == kept
