"""Every named slot can be set, switched off and overridden by one key, and the others stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightning_lab.callbacks.gradient_clipping import GradientClipping
from lightning_lab.callbacks.least_squares_head import LeastSquaresHead
from lightning_lab.callbacks.nan_guard import NanGuard
from lightning_lab.callbacks.penalty import Penalty
from lightning_lab.cli import SLOTS, LabCLI
from lightning_lab.runs.errors import InputError
from lightning_lab.shipped import find

#: slot: (a key of it, a first value, another one)
KEYS: dict[str, tuple[str, Any, Any]] = {
    "early_stopping": ("patience", 3, 7),
    "gradient_clipping": ("max_norm", 1.5, 2.5),
    "least_squares_head": ("ridge", 0.01, 0.1),
    "lr_schedule": ("warmup", 2, 4),
    "nan_guard": ("check_every_n_steps", 3, 9),
    "penalty": ("weight", 0.01, 0.1),
    "progress": ("refresh_s", 1.5, 2.5),
    "checkpoint": ("every_n_steps", 5, 11),
}


def build(tmp_path: Path, *args: str) -> LabCLI:
    first = f"--config={find('digits/mlp')}"
    return LabCLI("fit", [first, *args, f"--run.logs={tmp_path}"], stem="mlp", origin=None)


def slots(cli: LabCLI) -> dict[str, Any]:
    return {name: None if cli.config[name] is None else cli.config[name].as_dict() for name in KEYS}


@pytest.fixture(scope="module")
def defaults(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return slots(build(tmp_path_factory.mktemp("defaults")))


def test_the_table_has_every_slot() -> None:
    assert set(KEYS) == {*SLOTS, "checkpoint"}


@pytest.mark.parametrize("slot", KEYS)
def test_set_by_one_key_on_the_command_line(slot: str, defaults: dict[str, Any], tmp_path: Path) -> None:
    key, value, _ = KEYS[slot]
    cli = build(tmp_path, f"--{slot}.{key}={value}")
    assert getattr(cli.config_init[slot], key) == value
    assert {k: v for k, v in slots(cli).items() if k != slot} == {k: v for k, v in defaults.items() if k != slot}


@pytest.mark.parametrize("slot", KEYS)
def test_overridden_by_a_second_config(slot: str, defaults: dict[str, Any], tmp_path: Path) -> None:
    key, first, second = KEYS[slot]
    (tmp_path / "first.yaml").write_text(f"{slot}: {{{key}: {first}}}\n")
    (tmp_path / "second.yaml").write_text(f"{slot}: {{{key}: {second}}}\n")
    cli = build(tmp_path, f"--config={tmp_path / 'first.yaml'}", f"--config={tmp_path / 'second.yaml'}")
    assert getattr(cli.config_init[slot], key) == second
    assert {k: v for k, v in slots(cli).items() if k != slot} == {k: v for k, v in defaults.items() if k != slot}


@pytest.mark.parametrize("slot", KEYS)
def test_a_second_config_keeps_the_other_keys_of_the_first(slot: str, tmp_path: Path) -> None:
    key, first, _ = KEYS[slot]
    other = {
        "early_stopping": "min_delta: 0.5",
        "penalty": "kind: l1",
        "lr_schedule": "interval: step",
        "checkpoint": "monitor: val/acc",
    }
    (tmp_path / "first.yaml").write_text(f"{slot}: {{{key}: {first}}}\n")
    (tmp_path / "second.yaml").write_text(f"{slot}: {{{other.get(slot, '')}}}\n")
    cli = build(tmp_path, f"--config={tmp_path / 'first.yaml'}", f"--config={tmp_path / 'second.yaml'}")
    assert getattr(cli.config_init[slot], key) == first


@pytest.mark.parametrize("slot", KEYS)
def test_switched_off_by_one_key(slot: str, defaults: dict[str, Any], tmp_path: Path) -> None:
    cli = build(tmp_path, f"--{slot}=null")
    assert cli.config_init[slot] is None
    built = [type(callback) for callback in cli.trainer.callbacks]  # type: ignore[attr-defined]
    if slot == "checkpoint":
        assert not any(kind.__name__ in ("_Steady", "_Last") for kind in built)
    else:
        assert SLOTS[slot][0] not in built
    assert {k: v for k, v in slots(cli).items() if k != slot} == {k: v for k, v in defaults.items() if k != slot}


@pytest.mark.parametrize("slot", KEYS)
def test_switched_off_by_a_second_config_and_on_again(slot: str, tmp_path: Path) -> None:
    key, value, _ = KEYS[slot]
    (tmp_path / "off.yaml").write_text(f"{slot}: null\n")
    off = build(tmp_path, f"--config={tmp_path / 'off.yaml'}")
    on = build(tmp_path, f"--config={tmp_path / 'off.yaml'}", f"--{slot}.{key}={value}")
    assert off.config_init[slot] is None
    assert getattr(on.config_init[slot], key) == value


@pytest.mark.parametrize("slot", KEYS)
def test_the_resolved_configuration_gives_the_same_slots(slot: str, tmp_path: Path) -> None:
    key, value, _ = KEYS[slot]
    cli = build(tmp_path, f"--{slot}.{key}={value}")
    (tmp_path / "resolved.yaml").write_text(cli.resolved_config())
    again = LabCLI("fit", [f"--config={tmp_path / 'resolved.yaml'}"], stem="mlp", origin=None)
    assert slots(again) == slots(cli)
    assert again.resolved_config() == cli.resolved_config()


@pytest.mark.parametrize("parameters", ["weights", "all", ["net.layers.*.weight", "*.bias"]])
def test_the_parameters_of_a_penalty_are_a_word_or_names(parameters: Any, tmp_path: Path) -> None:
    cli = build(tmp_path, f"--penalty.parameters={parameters}".replace("'", '"'))
    assert cli.config_init.penalty.parameters == parameters


def test_a_penalty_on_no_word_and_no_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="`parameters` of the penalty must be weights, all or a list of names, got biases"
    ):
        build(tmp_path, "--penalty.parameters=biases")


def test_the_penalty_acts_ahead_of_the_clipping_and_the_guard_ahead_of_the_least_squares(tmp_path: Path) -> None:
    cli = build(tmp_path, "--penalty.weight=0.1", "--least_squares_head.ridge=0.1")
    order = [type(callback) for callback in cli.trainer.callbacks]  # type: ignore[attr-defined]
    assert order.index(Penalty) < order.index(GradientClipping)
    assert order.index(NanGuard) < order.index(LeastSquaresHead)
