"""The regression task's metrics over batches of uneven size, against scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from sklearn.metrics import mean_absolute_error, mean_absolute_percentage_error, mean_squared_error, r2_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_lab.data.loader import Batch, Examples, TensorLoader
from lightning_lab.runs.errors import InputError
from lightning_lab.tasks import Regression

Build = Callable[..., Trainer]


class Line(nn.Module):
    """0.75 x - 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        nn.init.constant_(self.layer.weight, 0.75)
        nn.init.constant_(self.layer.bias, -0.5)

    def forward(self, x: Tensor) -> Tensor:
        values: Tensor = self.layer(x)
        return values


def examples(count: int = 45) -> Examples:
    x = np.linspace(1, 16, count, dtype=np.float32).reshape(-1, 1)
    y = np.log2(x) + np.cos(np.pi * x / 2) + 0.5
    return Examples(torch.from_numpy(x), torch.from_numpy(y.astype(np.float32)))


def batches() -> TensorLoader:
    return TensorLoader(examples(), batch_size=13)  # the last batch has 6


def task(lr: float = 0.0) -> Regression:
    return Regression(Line(), optimizer=lambda parameters: torch.optim.SGD(parameters, lr=lr))


def expected(part: str) -> dict[str, float]:
    data = examples()
    y, output = data.y.double().numpy(), 0.75 * data.x.double().numpy() - 0.5
    metrics = {"loss": mean_squared_error(y, output)}
    if part != "train":
        metrics["mae"] = mean_absolute_error(y, output)
        metrics["r2"] = r2_score(y, output)
        metrics["relative_error"] = mean_absolute_percentage_error(y, output)
    return {f"{part}/{name}": value for name, value in metrics.items()}


def logged(trainer: Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


class Handed:
    """Hand out given batches."""

    def __init__(self, *given: Batch) -> None:
        self.given = given

    def __len__(self) -> int:
        return len(self.given)

    def __iter__(self) -> Any:
        return iter(self.given)


# --- metrics against scikit-learn ---


def test_validation(trainer: Build) -> None:
    built = trainer()
    built.validate(task(), batches(), verbose=False)
    assert logged(built) == pytest.approx(expected("val"), rel=1e-5, abs=1e-6)


def test_test(trainer: Build) -> None:
    built = trainer()
    built.test(task(), batches(), verbose=False)
    assert logged(built) == pytest.approx(expected("test"), rel=1e-5, abs=1e-6)


def test_training_and_validation_in_each_of_two_epochs(trainer: Build) -> None:
    built = trainer(max_epochs=2)
    built.fit(task(), batches(), batches())
    assert logged(built) == pytest.approx(expected("train") | expected("val"), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("verb", ["fit", "validate", "test"])
def test_what_was_measured_before_is_forgotten(trainer: Build, verb: str) -> None:
    module, data = task(), examples()
    settings = {} if verb == "fit" else {"verbose": False}
    getattr(trainer(), verb)(module, TensorLoader(data.subset(torch.arange(20)), batch_size=7), **settings)
    built = trainer()
    getattr(built, verb)(module, batches(), **settings)
    part = {"fit": "train", "validate": "val", "test": "test"}[verb]
    assert logged(built) == pytest.approx(expected(part), rel=1e-5, abs=1e-6)


def test_a_plain_data_loader_does_too(trainer: Build) -> None:
    built, data = trainer(max_epochs=2), examples()
    loader = DataLoader(TensorDataset(data.x, data.y), batch_size=13)
    built.fit(task(), loader, loader)
    assert logged(built) == pytest.approx(expected("train") | expected("val"), rel=1e-5, abs=1e-6)


def test_metric_names_are_what_a_fit_logs(trainer: Build) -> None:
    built, module = trainer(), task()
    built.fit(module, batches(), batches())
    assert sorted(module.metric_names) == sorted(logged(built))


def test_prediction_gives_the_values(trainer: Build) -> None:
    outputs: Any = trainer().predict(task(), batches())
    assert torch.cat(outputs).numpy() == pytest.approx(0.75 * examples().x.numpy() - 0.5, abs=1e-5)


# --- the step ---


def test_a_step_goes_down_the_gradient_of_the_mean_squared_error(trainer: Build) -> None:
    data, module = examples(), task(lr=0.01)
    x, y = data.x.double().numpy(), data.y.double().numpy()
    excess = 0.75 * x - 0.5 - y
    trainer().fit(module, TensorLoader(data, batch_size=45))
    layer: Any = module.net.layer
    found = [layer.weight.item(), layer.bias.item()]
    assert found == pytest.approx([0.75 - 0.01 * (2 * excess * x).mean(), -0.5 - 0.01 * (2 * excess).mean()], abs=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 2.0])
def test_the_weight_scales_the_gradient_and_not_the_metric(trainer: Build, weight: float) -> None:
    data = examples()
    module, plain = task(lr=0.0625), task(lr=0.0625 * weight)
    built = trainer()
    built.fit(module, Handed(Batch(data.x, data.y, torch.arange(45), 45, weight)))
    trainer().fit(plain, Handed(Batch(data.x, data.y, torch.arange(45), 45, 1.0)))
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), plain.parameters(), strict=True))
    assert logged(built) == pytest.approx(expected("train"), rel=1e-5)


def test_a_batch_that_is_not_real_counts_nothing(trainer: Build) -> None:
    data = examples()
    whole = Batch(data.x, data.y, torch.arange(45), 45, 1.0)
    filler = Batch(data.x[:1] * 50, data.y[:1], torch.zeros(1, dtype=torch.int64), 0, 0.0)
    built, module = trainer(), task()
    built.fit(module, Handed(whole, filler), Handed(filler, whole))
    assert logged(built) == pytest.approx(expected("train") | expected("val"), rel=1e-5, abs=1e-6)
    built.test(module, Handed(filler, whole), verbose=False)
    found = {name: logged(built)[name] for name in expected("test")}
    assert found == pytest.approx(expected("test"), rel=1e-5, abs=1e-6)


# --- what it refuses ---


class Data(LightningDataModule):
    """Hands out the batches, and says their shape."""

    input_shape = (1,)

    def train_dataloader(self) -> TensorLoader:
        return batches()


class Classes(Data):
    """Has classes, too."""

    num_classes = 3


def test_a_net_of_several_values_is_refused(trainer: Build) -> None:
    model = Regression(nn.Linear(1, 3))
    message = "Regression needs one value an example, and Linear gives 3. Set it with --model.net.out_features 1."
    with pytest.raises(InputError, match=message):
        trainer().fit(model, datamodule=Data())


def test_data_with_classes_are_refused(trainer: Build) -> None:
    with pytest.raises(InputError, match="Classes has classes, and Regression learns numbers"):
        trainer().fit(task(), datamodule=Classes())
