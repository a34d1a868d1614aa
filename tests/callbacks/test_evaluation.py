"""How many examples an evaluation counts, and what it logs of each process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_lab.callbacks import evaluation
from lightning_lab.callbacks.evaluation import Evaluation
from lightning_lab.data.loader import TensorLoader
from lightning_lab.tasks import Classification

Build = Callable[..., Trainer]
Loaders = Callable[..., TensorLoader]


@pytest.fixture
def task(small_net: Any) -> Classification:
    return Classification(small_net(), optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))


def test_examples_are_counted_by_part(trainer: Build, classes: Loaders, task: Classification) -> None:
    callback = Evaluation()
    built = trainer(callback, max_epochs=2)
    built.fit(task, classes(), classes(9))
    built.test(task, classes(15), verbose=False)
    assert callback.examples == {"val": 9, "test": 15}
    assert not [name for name in built.callback_metrics if "rank" in name]


@pytest.mark.parametrize(("verb", "part"), [("validate", "val"), ("test", "test")])
def test_an_example_too_many_is_an_error(
    trainer: Build, classes: Loaders, task: Classification, verb: str, part: str
) -> None:
    class Padded(TensorLoader):
        def __iter__(self) -> Any:
            for batch in super().__iter__():
                yield batch._replace(
                    num_real=len(batch.y) if batch.num_real == 4 else 4, y=_four(batch.y), x=_four(batch.x)
                )

    def _four(one: torch.Tensor) -> torch.Tensor:
        return one.repeat(4, *[1] * (one.dim() - 1))[:4]

    loader = Padded(classes(9).examples, batch_size=4)
    message = f"12 examples were evaluated and the {part} part has 9: each has to count exactly once."
    with pytest.raises(RuntimeError, match=message):
        getattr(trainer(Evaluation()), verb)(task, loader, verbose=False)


def test_a_part_of_the_data_that_was_asked_for_is_no_error(
    trainer: Build, classes: Loaders, task: Classification
) -> None:
    callback = Evaluation()
    trainer(callback, limit_val_batches=2).validate(task, classes(9), verbose=False)
    assert callback.examples == {"val": 8}


def test_a_module_that_keeps_no_mean_loss_is_left_alone(trainer: Build, scripted: Any, steps: Any) -> None:
    callback = Evaluation()
    trainer(callback).fit(scripted([1.0]), steps(2), steps(1))
    assert callback.examples == {}


def test_a_process_without_an_example_has_no_loss(
    trainer: Build, classes: Loaders, task: Classification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "everyones", lambda own: [(6.0, 8), (0.0, 0), (1.0, 1)])
    built = trainer(Evaluation())
    built.validate(task, classes(9), verbose=False)
    ranks = {name: float(value) for name, value in built.callback_metrics.items() if "rank" in name}
    assert ranks == {"val/loss/rank0": 0.75, "val/loss/rank2": 1.0}
