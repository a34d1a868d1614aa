"""The classifier's losses and metrics over batches of uneven size, against scikit-learn and closed forms."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_lab.data.loader import Batch, Examples, TensorLoader
from lightning_lab.runs.errors import InputError
from lightning_lab.tasks import Classification

Build = Callable[..., Trainer]


class Dense(nn.Module):
    """One dense layer with weights that are always the same."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.layer = nn.Linear(4, num_classes)
        generator = torch.Generator().manual_seed(num_classes)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x)
        return logits


def examples(num_classes: int, count: int = 45) -> Examples:
    generator = np.random.default_rng(num_classes)
    x = torch.from_numpy(generator.normal(size=(count, 4)).astype(np.float32))
    return Examples(x, torch.from_numpy(generator.integers(0, num_classes, count)))


def batches(num_classes: int) -> TensorLoader:
    return TensorLoader(examples(num_classes), batch_size=13)  # the last batch has 6


def task(num_classes: int, *, lr: float = 0.0, **settings: Any) -> Classification:
    sgd: Any = lambda parameters: torch.optim.SGD(parameters, lr=lr)  # noqa: E731
    return Classification(Dense(num_classes), optimizer=sgd, **settings)


def logits(num_classes: int) -> np.ndarray:
    net, data = Dense(num_classes), examples(num_classes)
    weight, bias = (parameter.detach().numpy().astype(np.float64) for parameter in net.parameters())
    return np.asarray(data.x.numpy().astype(np.float64) @ weight.T + bias)


def probabilities(num_classes: int) -> np.ndarray:
    exponentials = np.exp(logits(num_classes))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def expected(part: str, num_classes: int) -> dict[str, float]:
    y, p = examples(num_classes).y.numpy(), probabilities(num_classes)
    labels = list(range(num_classes))
    metrics = {"loss": log_loss(y, p, labels=labels), "acc": accuracy_score(y, p.argmax(axis=1))}
    if num_classes > 5 and part != "train":
        metrics["top5"] = top_k_accuracy_score(y, p, k=5, labels=labels)
    return {f"{part}/{name}": value for name, value in metrics.items()}


def logged(trainer: Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


# --- metrics against scikit-learn ---


@pytest.mark.parametrize("num_classes", [2, 5, 6, 9])
def test_validation(trainer: Build, num_classes: int) -> None:
    built = trainer()
    built.validate(task(num_classes), batches(num_classes), verbose=False)
    assert logged(built) == pytest.approx(expected("val", num_classes), abs=1e-6)


@pytest.mark.parametrize("num_classes", [2, 9])
def test_test(trainer: Build, num_classes: int) -> None:
    built = trainer()
    built.test(task(num_classes), batches(num_classes), verbose=False)
    assert logged(built) == pytest.approx(expected("test", num_classes), abs=1e-6)


@pytest.mark.parametrize("num_classes", [2, 9])
def test_training_and_validation_in_each_of_two_epochs(trainer: Build, num_classes: int) -> None:
    built = trainer(max_epochs=2)
    built.fit(task(num_classes), batches(num_classes), batches(num_classes))
    both = expected("train", num_classes) | expected("val", num_classes)
    assert logged(built) == pytest.approx(both, abs=1e-6)


@pytest.mark.parametrize("verb", ["fit", "validate", "test"])
def test_what_was_measured_before_is_forgotten(trainer: Build, verb: str) -> None:
    module, data = task(9), examples(9)
    settings = {} if verb == "fit" else {"verbose": False}
    getattr(trainer(), verb)(module, TensorLoader(data.subset(torch.arange(20)), batch_size=7), **settings)
    built = trainer()
    getattr(built, verb)(module, batches(9), **settings)
    part = {"fit": "train", "validate": "val", "test": "test"}[verb]
    assert logged(built) == pytest.approx(expected(part, 9), abs=1e-6)


@pytest.mark.parametrize("num_classes", [2, 5, 6])
def test_metric_names_are_what_a_fit_logs(trainer: Build, num_classes: int) -> None:
    built = trainer()
    module = task(num_classes)
    built.fit(module, batches(num_classes), batches(num_classes))
    assert sorted(module.metric_names) == sorted(logged(built))


def test_a_plain_data_loader_does_too(trainer: Build) -> None:
    built, data = trainer(max_epochs=2), examples(9)
    loader = DataLoader(TensorDataset(data.x, data.y), batch_size=13)
    built.fit(task(9), loader, loader)
    assert logged(built) == pytest.approx(expected("train", 9) | expected("val", 9), abs=1e-6)


def test_the_confusion_matrix_counts_every_test_example(trainer: Build) -> None:
    module, y, p = task(5), examples(5).y.numpy(), probabilities(5)
    counts = np.zeros((5, 5), dtype=int)
    np.add.at(counts, (y, p.argmax(axis=1)), 1)
    trainer().test(module, batches(5), verbose=False)
    assert module.test_confusion.compute().tolist() == counts.tolist()


def test_prediction_gives_probabilities(trainer: Build) -> None:
    outputs: Any = trainer().predict(task(5), batches(5))
    assert torch.cat(outputs).numpy() == pytest.approx(probabilities(5), abs=1e-6)


# --- losses ---


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_label_smoothing_is_in_the_training_loss_alone(trainer: Build, smoothing: float) -> None:
    built, y = trainer(), examples(5).y.numpy()
    built.fit(task(5, label_smoothing=smoothing), batches(5), batches(5))
    target = (1 - smoothing) * np.eye(5)[y] + smoothing / 5
    closed = -(target * np.log(probabilities(5))).sum(axis=1).mean()
    assert logged(built)["train/loss"] == pytest.approx(closed, abs=1e-6)
    assert logged(built)["val/loss"] == pytest.approx(log_loss(y, probabilities(5)), abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        ("mse", lambda distance: (distance**2).mean()),
        ("norm", lambda distance: np.sqrt((distance**2).sum(axis=1)).mean()),
    ],
)
def test_losses_of_the_labs(trainer: Build, loss: Any, formula: Callable[[np.ndarray], float]) -> None:
    built, y = trainer(), examples(5).y.numpy()
    built.fit(task(5, loss=loss), batches(5), batches(5))
    closed = formula(logits(5) - np.eye(5)[y])
    assert [logged(built)[name] for name in ("train/loss", "val/loss")] == pytest.approx([closed] * 2, abs=1e-6)
    assert logged(built)["val/acc"] == pytest.approx(accuracy_score(y, probabilities(5).argmax(axis=1)), abs=1e-6)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "norm"])
def test_a_step_goes_down_the_gradient_of_the_loss(trainer: Build, loss: Any) -> None:
    data = examples(5)
    x, y = data.x.double().numpy(), data.y.numpy()
    distance = logits(5) - np.eye(5)[y]
    slope = {  # of the mean loss, by the logits
        "cross_entropy": (probabilities(5) - np.eye(5)[y]) / len(y),
        "mse": 2 * distance / distance.size,
        "norm": distance / np.linalg.norm(distance, axis=1, keepdims=True) / len(y),
    }[loss]
    module = task(5, lr=0.1, loss=loss)
    before = module.net.layer.weight.detach().double().numpy()  # type: ignore[union-attr, operator]
    trainer().fit(module, TensorLoader(data, batch_size=len(y)))
    after = module.net.layer.weight.detach().numpy()  # type: ignore[union-attr, operator]
    assert after == pytest.approx(before - 0.1 * slope.T @ x, abs=1e-6)


# --- the loader's parts of a batch ---


class Handed:
    """Hand out given batches."""

    def __init__(self, *given: Batch) -> None:
        self.given = given

    def __len__(self) -> int:
        return len(self.given)

    def __iter__(self) -> Any:
        return iter(self.given)


def test_a_batch_that_is_not_real_counts_nothing(trainer: Build) -> None:
    data = examples(9)
    whole = Batch(data.x, data.y, torch.arange(45), 45, 1.0)
    filler = Batch(data.x[:1] * 50, data.y[:1], torch.zeros(1, dtype=torch.int64), 0, 0.0)
    built, module = trainer(), task(9)
    built.fit(module, Handed(whole, filler), Handed(filler, whole))
    assert logged(built) == pytest.approx(expected("train", 9) | expected("val", 9), abs=1e-6)
    built.test(module, Handed(filler, whole), verbose=False)
    assert {name: logged(built)[name] for name in expected("test", 9)} == pytest.approx(expected("test", 9), abs=1e-6)
    assert int(module.test_confusion.compute().sum()) == 45


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 2.0])
def test_the_weight_scales_the_gradient_and_not_the_metric(trainer: Build, weight: float) -> None:
    data = examples(5)
    module, plain = task(5, lr=0.5), task(5, lr=0.5 * weight)
    built = trainer()
    built.fit(module, Handed(Batch(data.x, data.y, torch.arange(45), 45, weight)))
    trainer().fit(plain, Handed(Batch(data.x, data.y, torch.arange(45), 45, 1.0)))
    assert torch.equal(module.net.layer.weight, plain.net.layer.weight)  # type: ignore[union-attr, arg-type]
    assert logged(built) == pytest.approx(expected("train", 5), abs=1e-6)


def test_ranks_that_share_a_batch_make_the_step_of_one_process(trainer: Build) -> None:
    """Average the gradients of three ranks by hand: the weights make up for parts of uneven size."""
    data = examples(5, 10)
    single = task(5, lr=0.5)
    trainer().fit(single, TensorLoader(data, batch_size=12))
    parts = [next(iter(TensorLoader(data, batch_size=12, rank=rank, world_size=3))) for rank in range(3)]
    steps = []
    for part in parts:
        module = task(5, lr=0.5)
        start = copy.deepcopy(module.net.layer.weight.detach())  # type: ignore[union-attr, operator]
        trainer().fit(module, Handed(part))
        steps.append(module.net.layer.weight.detach() - start)  # type: ignore[union-attr, operator]
    assert {part.weight for part in parts} != {1.0}
    assert torch.stack(steps).mean(dim=0).numpy() == pytest.approx(
        (single.net.layer.weight.detach() - start).numpy(),  # type: ignore[union-attr, operator]
        abs=1e-6,
    )


# --- what it says ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_smoothing": 1.0}, r"`label_smoothing` must be in \[0, 1\), got 1.0."),
        ({"label_smoothing": -0.1}, r"`label_smoothing` must be in \[0, 1\), got -0.1."),
        (
            {"label_smoothing": 0.1, "loss": "mse"},
            "`label_smoothing` 0.1 goes with the loss cross_entropy alone, not mse.",
        ),
        (
            {"label_smoothing": 0.1, "loss": "norm"},
            "`label_smoothing` 0.1 goes with the loss cross_entropy alone, not norm.",
        ),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Classification(Dense(3), **arguments)


@pytest.mark.parametrize(("num_classes", "found"), [(None, "None"), (1, "1"), ("3", "3"), (2.0, "2.0")])
def test_a_net_has_to_say_its_classes(num_classes: Any, found: str) -> None:
    net = Dense(3)
    net.num_classes = num_classes
    with pytest.raises(ValueError, match=f"`net` must have an attribute `num_classes` of at least 2, got {found}."):
        Classification(net)


class Data(LightningDataModule):
    """Data that say how many classes they have."""

    num_classes = 7

    def train_dataloader(self) -> TensorLoader:
        return batches(7)

    test_dataloader = train_dataloader


@pytest.mark.parametrize("verb", ["fit", "test"])
def test_a_net_for_another_number_of_classes_is_refused(trainer: Build, verb: str) -> None:
    message = "The data have 7 classes and the net gives 9. Set it with --model.net.num_classes 7."
    with pytest.raises(InputError, match=message):
        getattr(trainer(), verb)(task(9), datamodule=Data())


def test_a_net_for_the_classes_of_the_data_is_taken(trainer: Build) -> None:
    built = trainer()
    built.fit(task(7), datamodule=Data())
    assert logged(built) == pytest.approx(expected("train", 7), abs=1e-6)


class NanInLast(nn.Module):
    """Logits that are NaN for the first example of a batch of 6, which is the last one."""

    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x)
        bad = (torch.arange(len(x)) == 0) & (len(x) == 6)
        return logits.masked_fill(bad[:, None], float("nan"))


def test_one_nan_makes_the_loss_of_the_whole_part_nan(trainer: Build) -> None:
    built = trainer()
    built.validate(Classification(NanInLast()), batches(3), verbose=False)
    assert np.isnan(float(built.callback_metrics["val/loss"]))


# --- what it refuses ---


class Numbers(LightningDataModule):
    """Says its shape and no classes."""

    input_shape = (4,)

    def train_dataloader(self) -> TensorLoader:
        return batches(3)


def test_data_without_classes_are_refused(trainer: Build) -> None:
    with pytest.raises(
        InputError, match=r"Numbers has no classes, which Classification learns\. Use --model Regression"
    ):
        trainer().fit(task(3), datamodule=Numbers())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "crossentropy"}, "`loss`: Unknown word 'crossentropy'. Did you mean 'cross_entropy'?"),
        ({"test_views": 3}, "`test_views` must be 1, 2 or 6, got 3."),
    ],
)
def test_other_words_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        task(3, **settings)


@pytest.mark.parametrize("loss", ["mse", "norm"])
def test_outputs_that_estimate_probabilities_are_predicted_as_such(loss: str) -> None:
    model = task(4, loss=loss)
    estimates = torch.tensor([[0.0, 1.0, 0.0, 0.0], [-0.5, 1.5, 0.5, 0.0], [-1.0, -2.0, -3.0, -4.0]])
    model.net.forward = lambda x: x  # type: ignore[method-assign]
    found = model.predict_step((estimates, torch.zeros(3)), 0)
    expected = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.75, 0.25, 0.0], [0.25, 0.25, 0.25, 0.25]])
    torch.testing.assert_close(found, expected)


class Normed(Dense):
    """Batch norm behind the dense layer."""

    def __init__(self) -> None:
        super().__init__(3)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.norm(self.layer(x))
        return logits


@pytest.mark.parametrize(
    ("count", "size", "tried"), [(45, 11, 12), (45, 1, 3), (45, 44, 45), (9, 4, 5), (9, 8, 9), (45, 22, 23)]
)
def test_batch_norm_on_a_single_example_is_refused_before_the_training(
    trainer: Build, count: int, size: int, tried: int
) -> None:
    message = f"{count} training examples in batches of {size} leave one. Try --data.batch_size {tried}."
    with pytest.raises(InputError, match=message):
        trainer().fit(Classification(Normed()), TensorLoader(examples(3, count), batch_size=size))
    trainer().fit(Classification(Normed()), TensorLoader(examples(3, count), batch_size=tried))


def test_a_single_example_in_all_has_no_other_batch_size(trainer: Build) -> None:
    with pytest.raises(InputError, match=r"1 training examples in batches of 4 leave one\. It needs"):
        trainer().fit(Classification(Normed()), TensorLoader(examples(3, 1), batch_size=4))


def test_a_single_example_that_is_not_reached_is_none(trainer: Build) -> None:
    loader = TensorLoader(examples(3), batch_size=11)
    trainer(limit_train_batches=4).fit(Classification(Normed()), loader)
    trainer().fit(task(3), loader)  # nor where there is no batch norm
