"""torch.compile: the net in place, and one word where it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_lab.callbacks import compile as module
from lightning_lab.callbacks.compile import Compile, missing_compiler
from lightning_lab.data.loader import TensorLoader
from lightning_lab.tasks import Classification

Build = Callable[..., Trainer]
Loaders = Callable[..., TensorLoader]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The nets that were compiled; compiling itself takes a minute and has a test of its own."""
    nets: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda net: nets.append(type(net).__name__))
    return nets


def test_the_net_alone_is_compiled(
    trainer: Build, classes: Loaders, small_net: Any, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "missing_compiler", lambda device: None)
    trainer(Compile()).fit(Classification(small_net()), classes(), classes(9))
    assert compiled == ["SmallNet"]


def test_a_machine_without_a_compiler_goes_on_and_says_so(
    trainer: Build, classes: Loaders, small_net: Any, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "missing_compiler", lambda device: "a C++ compiler (g++ or clang++)")
    with pytest.warns(UserWarning, match=r"`compile` needs a C\+\+ compiler .* the net runs as it is"):
        trainer(Compile()).fit(Classification(small_net()), classes(), classes(9))
    assert compiled == []


def test_a_module_without_a_net_is_named(
    trainer: Build, scripted: Any, steps: Any, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "missing_compiler", lambda device: None)
    with pytest.warns(UserWarning, match=r"`compile` had no effect: Scripted has no `net`"):
        trainer(Compile()).fit(scripted([1.0]), steps(2), steps(1))
    assert compiled == []


def test_the_compiler_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder

    def none() -> str:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    assert missing_compiler("cpu") == "a C++ compiler (g++ or clang++)"
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: "g++")
    assert missing_compiler("cpu") is None


@pytest.mark.slow
@pytest.mark.skipif(missing_compiler("cpu") is not None, reason="this machine has no C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own parts
def test_a_compiled_net_trains_to_the_same_weights(trainer: Build, classes: Loaders, small_net: Any) -> None:
    nets = [small_net(), small_net()]
    nets[1].load_state_dict(nets[0].state_dict())
    for net, callbacks in zip(nets, ([], [Compile()]), strict=True):
        trainer(*callbacks).fit(Classification(net), classes(), classes(9))
    assert list(nets[1].state_dict()) == list(nets[0].state_dict())
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one, other)
