"""The listing of runs, read from the standard output of its verbs."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import QUICK, Lab

from lightning_lab.runs import listing
from lightning_lab.runs.directory import RunDirectory
from lightning_lab.runs.listing import differences, find_runs, flatten, status_of
from lightning_lab.runs.lock import RunLock

BEST = {"metric": "val/loss", "value": 0.123456, "epoch": 2}
NOW = 1_700_000_000.0


def leave(path: str, *, config: str = "a: 1\n", age_s: float = 0.0, **summary: Any) -> RunDirectory:
    run = RunDirectory(Path(path))
    run.path.mkdir(parents=True)
    run.config.write_text(config)
    run.environment.write_text(json.dumps({"commit": path}))
    run.summary.write_text(json.dumps({"status": "completed", "epochs": 3, **summary}))
    os.utime(run.environment, (NOW - age_s, NOW - age_s))
    return run


# --- dotted keys and differences ---


@pytest.mark.parametrize(
    ("tree", "flat"),
    [
        ({}, {}),
        ({"a": 1}, {"a": 1}),
        ({"a": {"b": {"c": 1}, "d": None}}, {"a.b.c": 1, "a.d": None}),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}),
        ({"model": {"class_path": "A", "init_args": {"net": None}}}, {"model": "A", "model.net": None}),
        (
            {"model": {"class_path": "A", "init_args": {"net": {"class_path": "B", "init_args": {"x": 1}}}}},
            {"model": "A", "model.net": "B", "model.net.x": 1},
        ),
    ],
)
def test_nested_settings_become_dotted_keys(tree: dict[str, Any], flat: dict[str, Any]) -> None:
    assert flatten(tree) == flat


def test_differences_are_aligned_and_numbers_short() -> None:
    a = {"same": 1, "rate": 0.1 + 0.2, "gone": "x", "whole": 1234567}
    b = {"same": 1, "rate": 1e-7 / 3, "whole": 7, "new": None}
    assert differences(a, b) == [
        "  rate   0.3 -> 3.3333e-08",
        "  gone   x -> -",
        "  whole  1234567 -> 7",
        "  new    - -> None",
    ]
    assert differences(a, a) == []


# --- the status ---


@pytest.mark.parametrize("status", ["completed", "stopped_early", "diverged", "interrupted", "failed"])
def test_a_status_is_believed(tmp_path: Path, status: str) -> None:
    run = leave(str(tmp_path / "run"), status=status)
    assert status_of(run) == status


def test_a_run_runs_as_long_as_its_lock_is_held(tmp_path: Path) -> None:
    held, left, never = (leave(str(tmp_path / name), status="running") for name in ("held", "left", "never"))
    locks = [RunLock(run.path) for run in (held, left)]
    for lock in locks:
        lock.acquire()
    locks[1].release()
    assert [status_of(run) for run in (held, left, never)] == ["running", "killed", "killed"]
    locks[0].release()
    assert status_of(held) == "killed"


def test_a_run_without_a_summary_is_unknown(tmp_path: Path) -> None:
    assert status_of(RunDirectory(tmp_path)) == "unknown"


# --- runs ---


def test_without_runs_it_says_how_to_start_one(lab: Lab) -> None:
    assert lab("runs").out == "No runs in logs/ yet. Start one: lightning-lab fit\n"
    assert lab("runs", "--run.logs=other").out == "No runs in other/ yet. Start one: lightning-lab fit\n"


def test_a_line_a_run_oldest_first(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "time", SimpleNamespace(time=lambda: NOW))
    test = {"test/loss": 0.5, "test/acc": 0.98765, "test/top5": 1.0}
    leave("logs/mlp/b", age_s=30)
    leave("logs/mlp/a", age_s=7200, best=BEST, last={"val/loss": 0.25}, test=test)
    leave("logs/vgg/c", age_s=90_000, best=BEST, last={"val/loss": None}, status="diverged")
    lines = [re.split(" {2,}", line) for line in lab("runs").out.splitlines()]
    best = "val/loss 0.1235 (epoch 2)"
    assert lines == [
        ["RUN", "STATUS", "EPOCHS", "BEST", "LAST", "TEST", "AGE"],
        ["vgg/c", "diverged", "3", best, "-", "-", "1 d"],
        ["mlp/a", "completed", "3", best, "0.25", "test/acc 0.9877 test/loss 0.5", "2 h"],
        ["mlp/b", "completed", "3", "-", "-", "-", "30 s"],
    ]
    assert (
        len(
            {
                line.index(age)
                for line, age in zip(lab("runs").out.splitlines(), ("AGE", "1 d", "2 h", "30 s"), strict=True)
            }
        )
        == 1
    )


@pytest.mark.parametrize(
    ("age_s", "shown"),
    [
        (-100, "0 s"),
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (100, "2 min"),
        (3600, "1 h"),
        (86_399, "24 h"),
        (86_400, "1 d"),
        (864_000, "10 d"),
    ],
)
def test_ages_have_the_unit_that_fits(lab: Lab, monkeypatch: pytest.MonkeyPatch, age_s: float, shown: str) -> None:
    monkeypatch.setattr(listing, "time", SimpleNamespace(time=lambda: NOW))
    leave("logs/mlp/a", age_s=age_s)
    assert lab("runs").out.splitlines()[1].endswith(f"  {shown}")


def test_runs_are_found_at_any_depth_and_nothing_else_is(lab: Lab) -> None:
    leave("logs/studies/x/y", age_s=3)
    leave("logs/mlp/a", age_s=2)
    leave("logs/mlp/no_config").config.unlink()
    leave("logs/mlp/no_summary").summary.unlink()
    assert [run.path for run in find_runs(Path("logs"))] == [Path("logs/studies/x/y"), Path("logs/mlp/a")]
    assert [line.split()[0] for line in lab("runs").out.splitlines()] == ["RUN", "studies/x/y", "mlp/a"]
    assert lab("runs", "show", "x/y").out.startswith("logs/studies/x/y\n")


DAMAGED_SUMMARIES = [
    (b"{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    (b"", "Expecting value: line 1 column 1 (char 0)"),
    (b"\xff\xfe", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    (b"[]", "not a mapping"),
    (b"null", "not a mapping"),
    (b'{"best": [1]}', "`best` is not a mapping"),
    (b'{"best": {"metric": "val/loss", "epoch": 1}}', "`best` has no value"),
    (b'{"best": {"metric": "val/loss", "value": "low", "epoch": 1}}', "`best` has no value"),
    (b'{"best": {"metric": [], "value": 0.5, "epoch": 1}}', "`best` has no metric"),
    (b'{"best": {"metric": "val/loss", "value": 0.5}}', "`best` has no epoch"),
    (b'{"last": null}', "`last` is not a mapping"),
    (b'{"last": "val/loss"}', "`last` is not a mapping"),
    (b'{"test": [0.5]}', "`test` is not a mapping"),
    (b'{"examples": null}', "`examples` is not a mapping"),
]


@pytest.mark.parametrize(("content", "what"), DAMAGED_SUMMARIES)
def test_a_damaged_summary_hides_no_other_run(lab: Lab, content: bytes, what: str) -> None:
    leave("logs/mlp/a", age_s=3)
    leave("logs/mlp/b", age_s=2).summary.write_bytes(content)
    leave("logs/mlp/c", age_s=1, best=BEST)
    listed = lab("runs")
    lines = [line.split()[:4] for line in listed.out.splitlines()[1:4]]
    assert (listed.code, listed.err) == (0, "")
    assert lines == [
        ["mlp/a", "completed", "3", "-"],
        ["mlp/b", "damaged", "-", "-"],
        ["mlp/c", "completed", "3", "val/loss"],
    ]
    assert listed.out.splitlines()[4:] == [
        "",
        "damaged: `lightning-lab runs show RUN` says which file, and the way on.",
    ]
    for command in (("show", "mlp/b"), ("diff", "mlp/a", "mlp/b")):
        answer = lab("runs", *command)
        assert (answer.code, answer.out) == (2, "")
        assert answer.err == (
            f"error: logs/mlp/b/summary.json is damaged ({what}). Restore it from a copy, or start over with "
            "`lightning-lab fit --config logs/mlp/b/config.yaml --run.overwrite true`: there is no last checkpoint to "
            "write it anew from.\n"
        )


def test_what_a_run_without_a_finite_value_writes_is_not_damaged(lab: Lab) -> None:
    leave("logs/mlp/a", best=None, last={}, test={})
    assert lab("runs").out.splitlines()[1].split()[:6] == ["mlp/a", "completed", "3", "-", "-", "-"]
    assert lab("runs", "show", "mlp/a").code == 0


def test_a_summary_that_cannot_be_read_is_named(lab: Lab) -> None:
    run = leave("logs/mlp/a")
    run.summary.unlink()
    run.summary.mkdir()
    assert lab("runs").out.splitlines()[1].split()[:2] == ["mlp/a", "damaged"]
    message = "logs/mlp/a/summary.json cannot be read (Is a directory). Put it back, or give yourself access."
    assert lab("runs", "show", "mlp/a").err == f"error: {message}\n"


def test_the_remedy_for_a_damaged_summary_works(lab: Lab) -> None:
    assert lab("fit", *QUICK, "--lr_schedule=null", "--run.experiment=mlp", "--run.name=a").code == 0
    run = RunDirectory(Path("logs/mlp/a"))
    before = run.read_summary()
    run.summary.write_text(json.dumps(before)[:40])
    assert lab("runs", "show", "mlp/a").err.endswith(
        "). Move it aside, and `lightning-lab fit --config logs/mlp/a/config.yaml` writes it anew from the last "
        "checkpoint; the test result in it is lost, and the data are not compared with its split.\n"
    )
    run.summary.rename(run.path / "aside.json")
    assert lab("fit", "--config", "logs/mlp/a/config.yaml").code == 0
    kept = ("status", "reason", "epochs", "steps", "best", "last", "seed", "split")
    assert [run.read_summary()[key] for key in kept] == [before[key] for key in kept]


def test_the_remedy_without_a_last_checkpoint_works(lab: Lab) -> None:
    assert (
        lab("fit", *QUICK, "--lr_schedule=null", "--checkpoint=null", "--run.experiment=mlp", "--run.name=a").code == 0
    )
    run = RunDirectory(Path("logs/mlp/a"))
    run.summary.write_text("{")
    assert (
        "start over with `lightning-lab fit --config logs/mlp/a/config.yaml --run.overw" in lab("runs", "show", "a").err
    )
    assert lab("fit", "--config", "logs/mlp/a/config.yaml", "--run.overwrite", "true").code == 0
    assert run.read_summary()["status"] == "completed"


# --- the other files of a damaged run ---


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b'{"commit": "a"', "Expecting ',' delimiter: line 1 column 15 (char 14)"),
        (b"null", "not a mapping"),
        (b"[1]", "not a mapping"),
        (b"\x80", "'utf-8' codec can't decode byte 0x80 in position 0: invalid start byte"),
    ],
)
def test_without_an_environment_the_rest_is_told(lab: Lab, content: bytes, what: str) -> None:
    leave("logs/mlp/a", config="x: 1\n")
    leave("logs/mlp/b", config="x: 2\n", epochs=4).environment.write_bytes(content)
    message = (
        f"  not compared: logs/mlp/b/environment.json is damaged ({what}). Leave it: a run that continues writes it "
        "anew, and no result depends on it."
    )
    for pair, x, epochs in ((("mlp/a", "mlp/b"), "1 -> 2", "3 -> 4"), (("mlp/b", "mlp/a"), "2 -> 1", "4 -> 3")):
        answer = lab("runs", "diff", *pair)
        assert (answer.code, answer.err) == (0, "")
        assert answer.out.splitlines()[3:] == [
            "configuration", f"  x  {x}", "", "environment", message, "", "results", f"  epochs  {epochs}",
        ]  # fmt: skip
    assert lab("runs").code == lab("runs", "show", "mlp/b").code == 0


def test_runs_without_an_environment_can_be_compared(lab: Lab) -> None:
    for name in ("a", "b"):
        leave(f"logs/mlp/{name}").environment.unlink()
    assert lab("runs", "diff", "mlp/a", "mlp/b").out.count("  the same\n") == 3


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"null", "not a JSON object"),
        (b"[1]", "not a JSON object"),
        (b"7", "not a JSON object"),
        (b'{"epo', "Unterminated string starting at: line 1 column 2 (char 1)"),
        (b'{"epoch": "\xff"}', "'utf-8' codec can't decode byte 0xff in position 11: invalid start byte"),
    ],
)
def test_a_damaged_line_of_the_metrics_is_named(lab: Lab, line: bytes, what: str) -> None:
    run = leave("logs/mlp/a")
    run.metrics.write_bytes(b'{"epoch": 1}\n\n' + line + b'\n{"epoch": 3}\n')
    answer = lab("runs", "show", "mlp/a")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        f"error: logs/mlp/a/metrics.jsonl is damaged (line 3: {what}). Mend or remove that line; an unfinished run "
        "writes the file anew when it continues (`lightning-lab fit --config logs/mlp/a/config.yaml`).\n"
    )
    run.metrics.write_bytes(b'{"epoch": 1}\n\n{"epoch": 3}\n')
    assert run.read_metrics() == [{"epoch": 1}, {"epoch": 3}]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\xff\xfe", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"[1]", "not a mapping"),
        (
            b"a: [",
            "while parsing a flow node expected the node content, but found '<stream end>' in "
            '"<unicode string>", line 1, column 5: a: [ ^',
        ),
    ],
)
def test_a_damaged_configuration_is_named_in_one_line(lab: Lab, content: bytes, what: str) -> None:
    leave("logs/mlp/a")
    run = leave("logs/mlp/b")
    run.config.write_bytes(content)
    message = (
        f"logs/mlp/b/config.yaml is damaged ({what}). Restore it from a copy, or start over with another --run.name."
    )
    assert lab("runs", "diff", "mlp/a", "mlp/b").err == f"error: {message}\n"
    run.config.unlink()
    message = "logs/mlp/b/config.yaml cannot be read (No such file or directory). Put it back, or give yourself access."
    assert lab("runs", "diff", "mlp/a", "logs/mlp/b").err == f"error: {message}\n"


# --- which run is meant ---


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("mlp/one", "logs/mlp/one"),  # whole, though a part of another name
        ("one_more", "logs/mlp/one_more"),
        ("vgg", "logs/vgg/two"),
        ("logs/mlp/one", "logs/mlp/one"),  # a folder
        ("other/three", "other/three"),
    ],
)
def test_a_run_is_found_by_a_unique_part_or_as_a_folder(lab: Lab, name: str, found: str) -> None:
    for path in ("logs/mlp/one", "logs/mlp/one_more", "logs/vgg/two", "other/three"):
        leave(path)
    assert lab("runs", "show", name).out.splitlines()[0] == found


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mlp", "'mlp' fits several runs: mlp/one, mlp/two. Write more of the name."),
        ("mlp/onne", "Unknown run 'mlp/onne'. Did you mean 'mlp/one'? Known: mlp/one, mlp/two, vgg/three."),
        ("zzz", "Unknown run 'zzz'. Known: mlp/one, mlp/two, vgg/three."),
    ],
)
def test_a_name_of_none_or_of_several_is_refused(lab: Lab, name: str, message: str) -> None:
    for age_s, path in enumerate(("logs/vgg/three", "logs/mlp/two", "logs/mlp/one")):
        leave(path, age_s=age_s)
    answer = lab("runs", "show", name)
    assert (answer.code, answer.err) == (2, f"error: {message}\n")


def test_a_name_too_long_for_a_file_is_unknown(lab: Lab) -> None:
    leave("logs/mlp/a")
    name = 300 * "x"
    for command in ("show", "fork"):
        answer = lab("runs", command, name)
        assert (answer.code, answer.err) == (2, f"error: Unknown run {name!r}. Known: mlp/a.\n")
    answer = lab("runs", "--run.logs", name)
    message = f"`run.logs` {name} cannot be read (File name too long). Name the folder of the runs."
    assert (answer.code, answer.err) == (2, f"error: {message}\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("show",), "the following arguments are required: run. See lightning-lab runs show --help."),
        (("diff", "a"), "the following arguments are required: b. See lightning-lab runs diff --help."),
        (("--nothing",), "unrecognized arguments: --nothing. See lightning-lab runs --help."),
    ],
)
def test_a_mistake_is_told_in_one_sentence(lab: Lab, args: tuple[str, ...], message: str) -> None:
    answer = lab("runs", *args)
    assert (answer.code, answer.out, answer.err) == (2, "", f"error: {message}\n")


# --- runs show, runs diff ---


def test_show_has_status_metrics_and_commands(lab: Lab) -> None:
    run = leave(
        "logs/mlp/a", status="failed", reason="OSError: disk", steps=9, wall_s=1.5, seed=7, split="abc", best=BEST,
        last={"val/loss": 0.1 + 0.2, "val/acc": None}, test={"test/acc": 1.0},
    )  # fmt: skip
    rows = [{"epoch": i, "step": 3 * i, "train/loss": 1 / i, "val/loss": None, "lr": 0.1} for i in range(1, 21)]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = lab("runs", "show", "mlp/a").out.splitlines()
    assert lines[:10] == [
        "logs/mlp/a",
        "  status   failed: OSError: disk",
        "  epochs   3",
        "  steps    9",
        "  wall_s   1.5",
        "  seed     7",
        "  split    abc",
        "  best     val/loss 0.123456 at epoch 2",
        "  last     val/loss 0.3  val/acc None",
        "  test     test/acc 1",
    ]
    assert lines[11].split() == ["epoch", "train/loss", "val/loss", "lr"]
    shown = [line.split() for line in lines[12:23]]  # the first three and the last eight
    assert shown == [[str(i), f"{1 / i:.5g}", "None", "0.1"] for i in (1, 2, 3, *range(13, 21))]
    assert lines[24:] == [
        "  continue or repeat: lightning-lab fit --config logs/mlp/a/config.yaml",
        "  curves:             tensorboard --logdir logs/mlp/a",
    ]


def test_diff_has_what_differs_in_configuration_environment_and_result(lab: Lab) -> None:
    leave("logs/mlp/a", config="x: 1\ny: {z: 2}\n", best=BEST)
    leave("logs/mlp/b", config="x: 1\ny: {z: 3}\n", best={**BEST, "value": 0.5})
    assert lab("runs", "diff", "mlp/a", "mlp/b").out.splitlines() == [
        "a: logs/mlp/a",
        "b: logs/mlp/b",
        "",
        "configuration",
        "  y.z  2 -> 3",
        "",
        "environment",
        "  commit  logs/mlp/a -> logs/mlp/b",
        "",
        "results",
        "  best.value  0.12346 -> 0.5",
    ]


def test_a_run_does_not_differ_from_itself(lab: Lab) -> None:
    leave("logs/mlp/a", best=BEST)
    assert lab("runs", "diff", "mlp/a", "mlp/a").out.count("  the same\n") == 3


def test_a_test_metric_that_was_not_finite_is_a_dash(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "mlp" / "a"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed_everything: 0\n")
    (folder / "summary.json").write_text('{"status": "completed", "test": {"test/loss": null, "test/acc": 0.1}}')
    assert "test/acc 0.1 test/loss -" in lab("runs").out


def test_one_is_not_true() -> None:
    assert differences({"a": 1, "b": 0.0}, {"a": True, "b": 0.0}) == ["  a  1 -> True"]
