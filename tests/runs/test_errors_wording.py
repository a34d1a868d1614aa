"""The message for a name that does not exist."""

from __future__ import annotations

import pytest

from lightning_lab.runs.errors import DivergedError, InputError, unknown

MANY = [f"name{i:02}" for i in range(25)]


@pytest.mark.parametrize(
    ("name", "known", "message"),
    [
        ("LeNet", ["VGG", "LeNet5", "MLP"], "Unknown net 'LeNet'. Did you mean 'LeNet5'? Known: LeNet5, MLP, VGG."),
        ("zzz", ["VGG", "MLP"], "Unknown net 'zzz'. Known: MLP, VGG."),
        ("zzz", [], "Unknown net 'zzz'. Known: none."),
        ("zzz", MANY[:24], f"Unknown net 'zzz'. Known: {', '.join(MANY[:24])}."),
        ("zzz", MANY, "Unknown net 'zzz'. --help lists all 25."),
        ("nam03", MANY, "Unknown net 'nam03'. Did you mean 'name03'? --help lists all 25."),
        ("", ["VGG"], "Unknown net ''. Known: VGG."),
    ],
)
def test_the_close_match_comes_first_and_then_the_known_names(name: str, known: list[str], message: str) -> None:
    assert unknown("net", name, iter(known)) == message


def test_the_kinds_of_error_are_those_of_python() -> None:
    assert issubclass(InputError, ValueError)
    assert issubclass(DivergedError, RuntimeError)
