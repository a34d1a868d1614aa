"""Cells: what a key depends on, the command line of each, and what is read back."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from study_files import GOOD, leave, study_of

from lightning_lab import shipped
from lightning_lab.runs.lock import RunLock
from lightning_lab.studies.cells import Arm, Budget, read_result
from lightning_lab.studies.design import cells_of, read_study
from lightning_lab.studies.values import argument, canonical, level_text, merge_bases

DROPOUT = "model.net.dropout"
BASE = "data: lightning_lab.data.Digits\nmodel: {class_path: A, init_args: {x: 1, y: 2}}\n"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


def keys(folder: Path, base: Path, **changes: Any) -> dict[tuple[str, int], str]:
    study = study_of(folder, **{"base": str(base), **changes})
    return {(cell.arm, cell.seed): cell.key for cell in cells_of(study, folder / "logs")}


def test_a_key_is_twelve_digits_and_no_two_are_equal(tmp_path: Path, base: Path) -> None:
    found = keys(tmp_path, base)
    assert len(found) == len(set(found.values())) == 9
    assert {len(key) for key in found.values()} == {12}
    assert set("".join(found.values())) <= set("0123456789abcdef")


def test_keys_stay_as_they_are(tmp_path: Path, base: Path) -> None:
    # Another one would train every study there is anew.
    content = (
        '{"base": {"data": "lightning_lab.data.Digits", "model": {"class_path": "A", "init_args": {"x": 1, "y": 2}}}, '
        '"budget": ["epochs", 2], "overrides": {"model.net.dropout": 0.5}, "seed": 1}'
    )
    assert keys(tmp_path, base)["dropout=0.5", 1] == hashlib.sha256(content.encode()).hexdigest()[:12] == "cf56049af9d4"


def test_a_changed_level_gives_a_new_key_to_its_arm_alone(tmp_path: Path, base: Path) -> None:
    before = keys(tmp_path, base)
    after = keys(tmp_path, base, factors={DROPOUT: [0.0, 0.2, 0.6]})
    assert set(before.items()) - set(after.items()) == {item for item in before.items() if item[0][0] == "dropout=0.5"}


def test_an_added_seed_adds_cells_and_changes_none(tmp_path: Path, base: Path) -> None:
    before, after = keys(tmp_path, base), keys(tmp_path, base, seeds=4)
    assert {name: key for name, key in after.items() if name[1] < 3} == before
    assert len(after) == 12


@pytest.mark.parametrize(
    "text", [BASE.replace("x: 1", "x: 3"), BASE.replace("A", "B"), BASE + "trainer: {precision: 64-true}\n"]
)
def test_another_content_of_the_base_gives_new_keys(text: str, tmp_path: Path, base: Path) -> None:
    before = keys(tmp_path, base)
    base.write_text(text)
    assert not set(before.values()) & set(keys(tmp_path, base).values())


@pytest.mark.parametrize("budget", [{"epochs": 3}, {"without": ("epochs",), "steps": 2}])
def test_another_budget_gives_new_keys(budget: dict[str, Any], tmp_path: Path, base: Path) -> None:
    assert not set(keys(tmp_path, base).values()) & set(keys(tmp_path, base, **budget).values())


@pytest.mark.parametrize(
    "text",
    [
        "model: {init_args: {y: 2, x: 1}, class_path: A}\ndata: lightning_lab.data.Digits\n",
        "# a comment\n" + BASE,
        BASE.replace("x: 1", "x: 1.0"),
    ],
)
def test_the_same_content_in_another_order_has_the_same_keys(text: str, tmp_path: Path, base: Path) -> None:
    before = keys(tmp_path, base)
    base.write_text(text)
    assert keys(tmp_path, base) == before


def test_a_reordered_study_has_the_same_keys(tmp_path: Path, base: Path) -> None:
    before = keys(tmp_path, base)
    content = {**GOOD, "base": str(base), "seeds": [2, 0, 1], "factors": {DROPOUT: [0.5, 0, 0.2]}}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(dict(reversed(content.items())), sort_keys=False))
    after = {(cell.arm, cell.seed): cell.key for cell in cells_of(read_study(path), tmp_path / "logs")}
    assert after == before


def test_a_renamed_arm_is_found_where_it_was_trained(tmp_path: Path) -> None:
    old, new = (
        study_of(tmp_path, without=("factors",), arms={"plain": {}, name: {DROPOUT: 0.5}}, reference="plain", seeds=1)
        for name in ("half", "a half")
    )
    before = cells_of(old, tmp_path)[1]
    leave(before, "completed")
    after = cells_of(new, tmp_path)[1]
    assert (after.arm, after.key, after.directory) == ("a half", before.key, before.directory)
    assert after.arguments == before.arguments
    assert read_result(after).done


def test_a_file_laid_over_another_counts_with_its_order(tmp_path: Path) -> None:
    for name, value in (("one", 1), ("two", 2)):
        (tmp_path / f"{name}.yaml").write_text(f"trainer: {{x: {value}, {name}: 0}}\n")
    one, two = str(tmp_path / "one.yaml"), str(tmp_path / "two.yaml")
    assert merge_bases((one, two)) == {"trainer": {"x": 2, "one": 0, "two": 0}}
    assert merge_bases((two, one)) == {"trainer": {"x": 1, "one": 0, "two": 0}}


@pytest.mark.parametrize(
    ("below", "above", "merged"),
    [
        ("data: A", "data: {init_args: {x: 1}}", {"data": {"class_path": "A", "init_args": {"x": 1}}}),
        ("data: {class_path: A, init_args: {x: 1}}", "data: B", {"data": {"class_path": "B", "init_args": {"x": 1}}}),
        ("slot: {x: 1}", "slot: null", {"slot": None}),
        ("list: [1, 2]", "list: [3]", {"list": [3]}),
        ("a: 1", "", {"a": 1}),
    ],
)
def test_configurations_are_laid_over_one_another(
    below: str, above: str, merged: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "below.yaml").write_text(below)
    (tmp_path / "above.yaml").write_text(above)
    assert merge_bases((str(tmp_path / "below.yaml"), str(tmp_path / "above.yaml"))) == merged


# --- the command line ---


def test_a_cell_is_one_fit(tmp_path: Path) -> None:
    study = study_of(tmp_path, base=["digits/lenet5", "trainer/cpu"])
    cell = cells_of(study, Path("there"))[-1]
    name = f"dropout-0.5_seed2_{cell.key}"
    assert cell.directory.path == Path("there/studies/drop") / name
    assert cell.arguments == (
        "--config=digits/lenet5",
        "--config=trainer/cpu",
        "--trainer.max_epochs=2",
        "--model.net.dropout=0.5",
        "--seed_everything=2",
        "--run.logs=there/studies",
        "--run.experiment=drop",
        f"--run.name={name}",
    )


@pytest.mark.parametrize(
    ("budget", "arguments"),
    [
        (Budget("epochs", 3), ["--trainer.max_epochs=3"]),
        (Budget("steps", 30), ["--trainer.max_epochs=-1", "--trainer.max_steps=30"]),
        (Budget("samples", 65), ["--trainer.max_epochs=-1", "--trainer.max_steps=3"]),
        (Budget("seconds", 93784), ["--trainer.max_epochs=-1", "--trainer.max_time=01:02:03:04"]),
    ],
    ids=str,
)
def test_a_budget_is_a_limit_of_the_trainer(budget: Budget, arguments: list[str]) -> None:
    assert budget.arguments({"data.batch_size": 32}) == arguments


def test_a_budget_switches_off_what_the_base_limits_in_another_unit() -> None:
    limited = {"trainer.max_steps": 5, "trainer.max_time": "00:00:01:00"}
    assert Budget("epochs", 3).arguments(limited) == [
        "--trainer.max_epochs=3", "--trainer.max_steps=-1", "--trainer.max_time=null"
    ]  # fmt: skip


def test_samples_of_several_batches_a_step_are_fewer_steps() -> None:
    settings = {"data.batch_size": 64, "trainer.accumulate_grad_batches": 4}
    assert Budget("samples", 6400).arguments(settings)[-1] == "--trainer.max_steps=25"
    assert Budget("samples", 6400).arguments(settings | {"trainer.accumulate_grad_batches": None})[-1].endswith("=100")


def test_samples_are_steps_by_each_arms_batch_size(tmp_path: Path) -> None:
    study = study_of(
        tmp_path,
        without=("epochs",),
        samples=1000,
        reference={"data.batch_size": 32},
        factors={"data.batch_size": [32, 100]},
    )
    steps = [arg for cell in cells_of(study, tmp_path)[:2] for arg in cell.arguments if "max_steps" in arg]
    assert steps == ["--trainer.max_steps=32", "--trainer.max_steps=10"]


def test_the_command_line_of_fit_takes_every_cell(tmp_path: Path) -> None:
    from lightning_lab.studies.check import check_arms

    wide = {"class_path": "LeNet5", "init_args": {"image_size": 28, "channels": [4, 4], "activation": "relu"}}
    factors = {"model.net": [wide], "lr_schedule": [None], "data.augment.crop": [1], "model.optimizer": ["Adam"]}
    check_arms(study_of(tmp_path, reference={}, factors=factors, without=("epochs",), seconds=30))


# --- values as text ---


@pytest.mark.parametrize(
    ("value", "text", "on_the_command_line"),
    [
        (0.0, "0", "0.0"),
        (5, "5", "5"),
        ("1e-3", "0.001", "1e-3"),
        (True, "true", "true"),
        (None, "null", "null"),
        ("gelu", "gelu", "gelu"),
        ([64, 0.5], "[64,0.5]", "[64, 0.5]"),
    ],
)
def test_a_level_has_one_text(value: Any, text: str, on_the_command_line: str) -> None:
    assert level_text(value) == text
    assert argument(value) == on_the_command_line


def test_true_and_one_are_not_the_same_level() -> None:
    assert canonical(True) != canonical(1) == canonical(1.0)


@pytest.mark.parametrize(
    ("name", "slug"), [("../../x y", "x-y"), ("a" * 80, "a" * 60), ("ä", "arm"), ("net=VGG,lr=0.1", "net-VGG-lr-0.1")]
)
def test_an_arms_name_becomes_part_of_a_plain_folder_name(name: str, slug: str) -> None:
    assert Arm(name, {}, ()).slug == slug


# --- what is read back ---


@pytest.mark.parametrize(
    ("left", "status", "done"),
    [
        ("completed", "completed", True),
        ("stopped_early", "stopped_early", True),
        ("diverged", "diverged", True),
        ("failed", "failed", False),
        ("interrupted", "interrupted", False),
        ("running", "killed", False),  # nobody has its lock
    ],
)
def test_the_status_is_the_records(left: str, status: str, done: bool, tmp_path: Path) -> None:
    cell = cells_of(study_of(tmp_path), tmp_path)[0]
    leave(cell, left, [0.5, 0.75])
    result = read_result(cell)
    assert (result.status, result.done, len(result.rows)) == (status, done, 2)
    assert result.summary["wall_s"] == 10.0


def test_a_cell_without_a_record_is_missing_running_or_killed(tmp_path: Path) -> None:
    cell = cells_of(study_of(tmp_path), tmp_path)[0]
    assert read_result(cell).status == "missing"
    lock = RunLock(cell.directory.path)
    lock.acquire()
    assert read_result(cell).status == "running"
    cell.directory.config.write_text("model: {}\n")
    lock.release()
    assert read_result(cell).status == "killed"
    assert not read_result(cell).done


def test_shipped_bases_are_known_by_name(tmp_path: Path) -> None:
    assert merge_bases(("digits/mlp",)) == yaml.safe_load((shipped.FOLDER / "digits/mlp.yaml").read_text())
