"""The parser's own errors, made by a real parser, in one sentence."""

from __future__ import annotations

from typing import Literal

import pytest
from jsonargparse import ArgumentError, ArgumentParser

from lightning_lab.messages import explain


class Net:
    """What every net is."""


class Small(Net):
    """A net with one setting of each kind."""

    def __init__(
        self, width: int = 3, kind: Literal["a", "b"] = "a", size: tuple[int, int] = (1, 1), bias: bool = True
    ) -> None:
        pass


class Task:
    """Takes a net."""

    def __init__(self, net: Net, rate: float = 0.1) -> None:
        pass


KEYS = ["seed", "epochs", "flag", "style", "model", "run.width"]
CLASSES = {"net": ["Small"], "model": ["Task"]}
TASK = f"--model={__name__}.Task"
NET = f"--model.net={__name__}.Small"


def said(*args: str) -> str:
    """Say what the parser says."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int | None, default=0)
    parser.add_argument("--flag", type=bool, default=False)
    parser.add_argument("--style", type=Literal["bar", "lines"], default="bar")
    parser.add_argument("--precision", type=Literal[32] | Literal["bf16-mixed", "32-true"] | Literal["32"] | None)
    parser.add_subclass_arguments(Task, "model", required=False)
    parser.add_class_arguments(Small, "run")
    with pytest.raises(ArgumentError) as caught:
        parser.parse_args(list(args))
    return str(caught.value)


def explained(*args: str) -> str:
    return explain(said(*args), keys=KEYS, classes=CLASSES)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--sed=3"], "Unknown key 'sed'. Did you mean 'seed'? Known: epochs, flag, model, run.width, seed, style."),
        (["--run.widht=3"], "Unknown key 'run.widht'. Did you mean 'run.width'? Known: epochs, flag, model"),
        ([TASK, "--model.rte=3"], "Unknown key 'model.rte'. Did you mean 'model.rate'? Known: model.net, model.rate."),
        (
            [TASK, NET, "--model.net.widht=3"],
            "Unknown key 'model.net.widht'. Did you mean 'model.net.width'? "
            "Known: model.net.bias, model.net.kind, model.net.size, model.net.width.",
        ),
        ([TASK, "--model.net=Smal"], "Unknown net 'Smal'. Did you mean 'Small'? Known: Small."),
        (["--model=Tsk"], "Unknown model 'Tsk'. Did you mean 'Task'? Known: Task."),
        (["--seed=x"], "`seed` must be a whole number, got x."),
        (["--seed=1.5"], "`seed` must be a whole number, got 1.5."),
        (["--epochs=x"], "`epochs` must be a whole number, got x."),
        (["--flag=3"], "`flag` must be true or false, got 3."),
        (["--style=no"], "`style` must be one of 'bar', 'lines', got no."),
        (["--precision=no"], "`precision` must be one of 'bf16-mixed', '32-true', '32', got no."),
        (["--run.width=x"], "`run.width` must be a whole number, got x."),
        ([TASK, "--model.rate=x"], "`model.rate` must be a number, got x."),
        ([TASK, NET, "--model.net.width=x"], "`model.net.width` must be a whole number, got x."),
        ([TASK, NET, "--model.net.kind=c"], "`model.net.kind` must be one of 'a', 'b', got c."),
        ([TASK, NET, "--model.net.size=[1]"], "`model.net.size` must be a tuple with 2 elements, got [1]."),
        ([TASK, NET, "--model.net.bias=x"], "`model.net.bias` must be true or false, got x."),
    ],
)
def test_a_mistake_becomes_one_sentence(args: list[str], message: str) -> None:
    answer = explained(*args)
    assert answer.startswith(message)
    assert "\n" not in answer


def test_a_key_without_a_value_stays_in_the_parsers_words() -> None:
    assert explained("--seed") == said("--seed") == "argument --seed: expected one argument"


@pytest.mark.parametrize("text", ["", "something else", "one line\n  and another"])
def test_what_is_not_known_is_passed_on(text: str) -> None:
    assert explain(text, keys=KEYS, classes=CLASSES) == text


def test_a_class_that_takes_no_such_name_and_is_not_there_has_no_known_keys() -> None:
    text = said(TASK, NET, "--model.net.widht=3").replace(f"{__name__}.Small", "no_such_module.Small")
    assert explain(text, keys=KEYS, classes=CLASSES) == "Unknown key 'model.net.widht'. Known: none."
