"""The test set of a study: closed until an arm is chosen, opened once, every reading kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import Lab

from lightning_lab.runs.errors import InputError
from lightning_lab.studies import vault
from lightning_lab.studies.warm import WarmProcess

STUDY = """
name: tiny
base: digits/mlp
reference: {model.net.dropout: 0.0}
factors: {model.net.dropout: [0.0, 0.9]}
seeds: 2
metric: val/acc
goal: max
epochs: 1
overrides: {dropout=0.9: {lr_schedule: null}}
"""
VALUES = {"a": {0: 0.9, 1: 0.8}, "b": {0: 0.95, 1: 0.9}, "c": {0: 0.99}}


def choose(folder: Path, **changes: object) -> dict[str, object]:
    arguments: dict[str, object] = {"metric": "val/acc", "goal": "max", "seeds": (0, 1), **changes}
    return vault.select(folder, VALUES, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(("goal", "arm"), [("max", "b"), ("min", "a")])
def test_the_best_mean_of_the_complete_arms_is_chosen(tmp_path: Path, goal: str, arm: str) -> None:
    selection = choose(tmp_path, goal=goal)
    assert (selection["arm"], selection["left_out"]) == (arm, ["c"])
    assert json.loads((tmp_path / vault.SELECTION).read_text()) == selection


def test_without_a_complete_arm_nothing_is_chosen(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^No arm has a result for each of its seeds: finish the study first"):
        choose(tmp_path, seeds=(0, 1, 2))


def test_nothing_is_opened_before_a_choice(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No arm of .* was selected yet: the test set is read for one arm, chosen on"):
        vault.check_open(tmp_path, VALUES, again=None)


def test_a_choice_on_other_results_is_none(tmp_path: Path) -> None:
    choose(tmp_path)
    assert vault.check_open(tmp_path, VALUES, again=None)["arm"] == "b"
    changed = {**VALUES, "a": {0: 0.9, 1: 0.8000001}}
    with pytest.raises(InputError, match=r"The validation results of .* have changed since b was selected"):
        vault.check_open(tmp_path, changed, again=None)


def test_the_order_of_arms_and_seeds_says_nothing() -> None:
    turned = {arm: dict(reversed(of.items())) for arm, of in reversed(VALUES.items())}
    assert vault.digest(VALUES) == vault.digest(turned)


def test_a_second_look_needs_a_reason_and_forbids_another_choice(tmp_path: Path) -> None:
    choose(tmp_path)
    (tmp_path / vault.LEDGER).write_text('{"event": "opened"}\n{"event": "read", "result": {}}\n')
    for again in (None, "", "  "):
        with pytest.raises(InputError, match=r"was read already .1 readings in "):
            vault.check_open(tmp_path, VALUES, again=again)
    assert vault.check_open(tmp_path, VALUES, again="the wrong file")["arm"] == "b"
    with pytest.raises(InputError, match=r"was opened already .*Start a new study for another choice"):
        choose(tmp_path)


def test_a_look_that_a_crash_ended_is_a_look(tmp_path: Path) -> None:
    choose(tmp_path)
    failed = '{"event": "opened"}\n{"event": "failed"}\n'
    (tmp_path / vault.LEDGER).write_text(failed)
    assert vault.check_open(tmp_path, VALUES, again=None)["arm"] == "b"
    (tmp_path / vault.LEDGER).write_text(failed + '{"event": "opened"}\n')
    with pytest.raises(InputError, match=r"was read already .1 readings in "):
        vault.check_open(tmp_path, VALUES, again=None)
    with pytest.raises(InputError, match="was opened already"):
        choose(tmp_path)


def test_a_study_from_its_file_to_its_test(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(STUDY)
    ran = lab("study", "run", "tiny.yaml")
    assert ran.code == 0, ran.err
    assert "tiny: 4 cells, 0 done, 4 to do." in ran.out
    assert "Done: 4 of 4 cells" in ran.out
    assert "4 done, 0 to do.\nNothing to do." in lab("study", "run", "tiny.yaml").out
    folder = tmp_path / "logs" / "studies" / "tiny"
    cells = sorted(path.parent for path in folder.glob("*/summary.json"))
    assert len(cells) == 4
    assert not any("test" in json.loads((cell / "summary.json").read_text()) for cell in cells)
    early = lab("study", "test", "tiny.yaml")
    assert early.code == 2
    assert "was selected yet" in early.err
    around = lab("test", f"--config={cells[0]}/config.yaml")
    assert around.code == 2
    assert "belongs to the study tiny, whose test set is opened once" in around.err
    then = lab("fit", f"--config={cells[0]}/config.yaml", "--then=test")
    assert then.code == 2
    assert lab("study", "select", "tiny.yaml").out.startswith("Selected dropout=0: the largest mean of val/acc over 2")
    tested = lab("study", "test", "tiny.yaml")
    assert tested.code == 0, tested.err
    assert "2 readings of the test set in " in tested.out
    measured = [cell for cell in cells if "test" in json.loads((cell / "summary.json").read_text())]
    assert [cell.name.rpartition("_")[0] for cell in measured] == ["dropout-0_seed0", "dropout-0_seed1"]
    assert lab("study", "test", "tiny.yaml").code == 2
    (tmp_path / "tiny.yaml").write_text(STUDY.replace("seeds: 2", "seeds: 3"))
    assert "6 cells, 4 done, 2 to do." in lab("study", "run", "tiny.yaml").out
    assert "5 readings" not in lab("study", "report", "tiny.yaml").out
    assert (folder / "report.html").exists()


@pytest.mark.parametrize("lost", [False, True], ids=["in a process of its own", "the warm process is lost"])
def test_a_test_that_fails_is_in_the_ledger_and_is_no_reading(lost: bool, tmp_path: Path) -> None:
    warm = WarmProcess() if lost else None
    if warm is not None:
        warm._process.kill()
        warm._process.wait()
    message = r"The test of .*/run failed: " + ("" if lost else "error: ")
    with pytest.raises(InputError, match=message):
        vault.read_once(tmp_path, tmp_path / "run", {"seed": 0}, warm)
    if warm is not None:
        warm.close()
    events = [json.loads(line)["event"] for line in (tmp_path / vault.LEDGER).read_text().splitlines()]
    assert events == ["opened", "failed"]
    assert vault.read_ledger(tmp_path) == []
