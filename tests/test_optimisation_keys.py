"""Every optimiser and schedule of the labs by plain keys, on the command line, in YAML and as the arm of a study.

A class that takes another one's place begins with its own defaults, which torch's classes themselves are asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from lightning_lab.class_names import classes_first
from lightning_lab.cli import LabCLI
from lightning_lab.runs.errors import InputError
from lightning_lab.shipped import find
from lightning_lab.studies.design import cells_of, read_study
from lightning_lab.studies.replicates.supported import build as build_fit

#: name: (class, arguments), each over digits/mlp, whose base is SGD with rate 0.05 and momentum 0.9.
OPTIMISERS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain SGD": ("SGD", {"lr": 0.01, "momentum": 0.0}),
    "momentum": ("SGD", {"lr": 0.01, "momentum": 0.5}),
    "Nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "AdaGrad": ("Adagrad", {"lr": 0.02}),
    "RMSProp": ("RMSprop", {"lr": 0.02, "alpha": 0.9, "eps": 1e-9}),
    "RMSProp as it is": ("RMSprop", {}),
    "Adam": ("Adam", {"lr": 0.002, "betas": [0.9, 0.99]}),
    "AdamW": ("AdamW", {"lr": 0.002, "weight_decay": 0.05}),
    "Adadelta as it is": ("Adadelta", {}),
}
SCHEDULES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "step": ("StepLR", {"step_size": 50, "gamma": 0.1}, {}),
    "multi-step": ("MultiStepLR", {"milestones": [50, 125, 160]}, {}),
    "exponential": ("ExponentialLR", {"gamma": 0.95}, {}),
    "cosine": ("CosineAnnealingLR", {"T_max": 7}, {}),
    "cosine with warm-up": ("CosineAnnealingLR", {"T_max": 7}, {"warmup": 3}),
    "constant": ("ConstantLR", {}, {}),
}


def build(tmp_path: Path, *args: str, base: str = "digits/mlp") -> LabCLI:
    return LabCLI("fit", [f"--config={find(base)}", *args, f"--run.logs={tmp_path}"], stem="mlp", origin=None)


def yaml_of(value: Any) -> str:
    return str(value).replace("True", "true").replace("'", "")


def command(key: str, name: str, arguments: dict[str, Any]) -> list[str]:
    return [f"--{key}={name}", *(f"--{key}.{one}={yaml_of(value)}" for one, value in arguments.items())]


def assert_optimiser(cli: LabCLI, name: str, arguments: dict[str, Any]) -> None:
    """Compare with the class built by hand: nothing of the base's is left but where it is the same class."""
    base = {"lr": 0.05, "momentum": 0.9} if name == "SGD" else {}
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    expected = getattr(torch.optim, name)([torch.zeros(1, requires_grad=True)], **base | given).defaults
    built = cli.model.configure_optimizers()
    assert type(built).__name__ == name
    assert {**built.defaults, "fused": None} == {**expected, "fused": None}


def scheduler_of(cli: LabCLI) -> Any:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    return cli.config_init.lr_schedule.scheduler(optimiser)


def assert_schedule(cli: LabCLI, name: str, arguments: dict[str, Any], slot: dict[str, Any]) -> None:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    expected, built = getattr(lr_scheduler, name)(optimiser, **arguments), scheduler_of(cli)
    assert type(built) is type(expected)
    ours, theirs = built.state_dict(), expected.state_dict()
    assert ours == theirs
    assert {key: getattr(cli.config_init.lr_schedule, key) for key in slot} == slot


# --- the command line ---


@pytest.mark.parametrize(("name", "arguments"), OPTIMISERS.values(), ids=list(OPTIMISERS))
def test_an_optimiser_on_the_command_line(tmp_path: Path, name: str, arguments: dict[str, Any]) -> None:
    assert_optimiser(build(tmp_path, *command("model.optimizer", name, arguments)), name, arguments)


def test_two_words_and_the_arguments_first(tmp_path: Path) -> None:
    given = ("--model.optimizer.lr", "0.02", "--model.optimizer", "RMSprop", "--model.optimizer.alpha", "0.9")
    assert_optimiser(build(tmp_path, *given), "RMSprop", {"lr": 0.02, "alpha": 0.9})


def test_the_same_class_again_keeps_what_the_base_has(tmp_path: Path) -> None:
    assert_optimiser(build(tmp_path, "--model.optimizer=torch.optim.SGD"), "SGD", {})


def test_the_projects_own_optimiser(tmp_path: Path) -> None:
    cli = build(tmp_path, "--model.optimizer=lightning_lab.optimizers.Muon")
    assert cli.config.model.init_args.optimizer.init_args.momentum == 0.6  # its own and not SGD's 0.9


@pytest.mark.parametrize("base", ["digits/mlp", "regression/mlp"])
@pytest.mark.parametrize(("name", "arguments", "slot"), SCHEDULES.values(), ids=list(SCHEDULES))
def test_a_schedule_on_the_command_line(
    tmp_path: Path, base: str, name: str, arguments: dict[str, Any], slot: dict[str, Any]
) -> None:
    more = [f"--lr_schedule.{key}={value}" for key, value in slot.items()]
    cli = build(tmp_path, *command("lr_schedule.scheduler", name, arguments), *more, base=base)
    assert_schedule(cli, name, arguments, slot)


def test_the_second_of_two_classes_takes_its_own_arguments(tmp_path: Path) -> None:
    first = command("lr_schedule.scheduler", "CosineAnnealingLR", {"T_max": 7})
    second = command("lr_schedule.scheduler", "ExponentialLR", {"gamma": 0.95})
    assert_schedule(build(tmp_path, *first, *second), "ExponentialLR", {"gamma": 0.95}, {})


def test_an_argument_that_a_schedule_needs_is_not_lent_to_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lr_schedule\.scheduler\.gamma"):  # the default StepLR has a gamma
        build(tmp_path, "--lr_schedule.scheduler=ExponentialLR")


def test_the_parser_is_left_as_it_was(tmp_path: Path) -> None:
    from jsonargparse import _typehints

    before = _typehints.discard_init_args_on_class_path_change
    build(tmp_path, "--model.optimizer=Adam")
    with pytest.raises(InputError):
        build(tmp_path, "--model.optimizer=Adam", "--model.optimizer.momentum=0.9")
    assert _typehints.discard_init_args_on_class_path_change is before


@pytest.mark.parametrize(
    ("given", "ordered"),
    [
        (["--model.optimizer=A", "--model.optimizer.lr=1"], ["--model.optimizer=A", "--model.optimizer.lr=1"]),
        (
            ["--x", "--model.optimizer.lr=1", "--model.optimizer=A"],
            ["--x", "--model.optimizer=A", "--model.optimizer.lr=1"],
        ),
        (
            ["--model.optimizer.lr=1", "--config=f", "--model.optimizer=A"],
            ["--model.optimizer.lr=1", "--config=f", "--model.optimizer=A"],
        ),
        (
            ["--lr_schedule.scheduler.a", "1", "--lr_schedule.scheduler", "A"],
            ["--lr_schedule.scheduler", "A", "--lr_schedule.scheduler.a", "1"],
        ),
        (["--model.optimizer_x.lr=1", "--model.optimizer=A"], ["--model.optimizer_x.lr=1", "--model.optimizer=A"]),
    ],
)  # fmt: skip
def test_the_order_of_class_and_arguments(given: list[str], ordered: list[str]) -> None:
    assert classes_first(given) == ordered


# --- YAML ---


@pytest.mark.parametrize("form", ["nested", "plain"])
@pytest.mark.parametrize(("name", "arguments"), OPTIMISERS.values(), ids=list(OPTIMISERS))
def test_an_optimiser_in_a_second_config(tmp_path: Path, name: str, arguments: dict[str, Any], form: str) -> None:
    inner = f"{{class_path: {name}, init_args: {yaml_of(arguments)}}}"
    text = {"nested": f"model: {{init_args: {{optimizer: {inner}}}}}", "plain": f"model: {{optimizer: {inner}}}"}
    (tmp_path / "second.yaml").write_text(text[form])
    assert_optimiser(build(tmp_path, f"--config={tmp_path / 'second.yaml'}"), name, arguments)


@pytest.mark.parametrize(("name", "arguments", "slot"), SCHEDULES.values(), ids=list(SCHEDULES))
def test_a_schedule_in_a_second_config(
    tmp_path: Path, name: str, arguments: dict[str, Any], slot: dict[str, Any]
) -> None:
    keys = {"scheduler": {"class_path": name, "init_args": arguments}, **slot}
    (tmp_path / "second.yaml").write_text(f"lr_schedule: {yaml_of(keys)}")
    assert_schedule(build(tmp_path, f"--config={tmp_path / 'second.yaml'}"), name, arguments, slot)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("model.optimizer: RMSprop\nmodel.optimizer.lr: 0.01", "model.optimizer"),
        ("model:\n  optimizer: RMSprop\n  optimizer.lr: 0.01", "optimizer"),
        ("lr_schedule:\n  scheduler: ExponentialLR\n  scheduler.gamma: 0.9", "scheduler"),
    ],
)
def test_a_class_beside_its_arguments_is_refused(tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "second.yaml").write_text(text)
    message = (
        rf"second.yaml: `{key}` names a class and `{key}\.\w+` stands beside it. Write `class_path` and `init_args`"
    )
    with pytest.raises(InputError, match=message):
        build(tmp_path, f"--config={tmp_path / 'second.yaml'}")


# --- studies ---


def test_the_arms_of_a_study_are_what_fit_would_build(tmp_path: Path) -> None:
    lines = [
        "name: optimisers", "base: digits/mlp", "reference: base", "seeds: 1", "epochs: 1", "metric: val/acc",
        "goal: max", "arms:", "  base: {}",
    ]  # fmt: skip
    for number, (name, arguments) in enumerate(OPTIMISERS.values()):
        keys = {"model.optimizer": name, **{f"model.optimizer.{key}": value for key, value in arguments.items()}}
        lines.append(f"  arm{number}: {yaml_of(keys)}")
    (tmp_path / "study.yaml").write_text("\n".join(lines))
    study = read_study(tmp_path / "study.yaml")
    cells = {cell.arm: cell for cell in cells_of(study, tmp_path)}
    for number, (name, arguments) in enumerate(OPTIMISERS.values()):
        assert_optimiser(build_fit(cells[f"arm{number}"].arguments), name, arguments)
