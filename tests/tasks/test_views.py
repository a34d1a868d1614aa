"""The test over several views of an image, apart from the plain one; and the lean accuracy against torchmetrics'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from lightning_lab.data.loader import Examples, TensorLoader
from lightning_lab.tasks import Classification
from lightning_lab.tasks.metrics import TopOneAccuracy

Build = Callable[..., Trainer]


class Position(nn.Module):
    """Logits that depend on where things are: a fixed random dense layer."""

    num_classes = 4

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2 * 6 * 6, 4)
        nn.init.normal_(self.layer.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


def loader() -> TensorLoader:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(50, 2, 6, 6, generator=generator)
    return TensorLoader(Examples(x, torch.randint(0, 4, (50,), generator=generator)), batch_size=16)


def views(image: np.ndarray, number: int) -> list[tuple[float, np.ndarray]]:
    """Each view of one image (C, H, W) with its share."""
    plain = [(0.5, image), (0.5, image[:, :, ::-1])]
    if number == 2:
        return plain
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    moved = [padded[:, 0:6, 0:6], padded[:, 2:8, 2:8]]
    shifted = [(0.125, one) for image in moved for one in (image, image[:, :, ::-1])]
    return [(share / 2, one) for share, one in plain] + shifted


@pytest.mark.parametrize("number", [2, 6])
def test_logits_are_averaged_over_the_views(trainer: Build, number: Any) -> None:
    net = Position()
    (found,) = trainer().test(Classification(net, test_views=number), loader(), verbose=False)
    weights, bias = net.layer.weight.detach().double().numpy(), net.layer.bias.detach().double().numpy()
    examples = loader().examples
    right = plain = 0
    for image, label in zip(examples.x.double().numpy(), examples.y.tolist(), strict=True):
        logits = sum(share * (weights @ view.ravel() + bias) for share, view in views(image, number))
        right += int(np.argmax(logits) == label)
        plain += int(np.argmax(weights @ image.ravel() + bias) == label)
    assert found["test/acc_views"] == pytest.approx(right / 50)
    assert found["test/acc"] == pytest.approx(plain / 50)
    assert right != plain


def test_without_views_there_is_no_such_metric(trainer: Build) -> None:
    (found,) = trainer().test(Classification(Position()), loader(), verbose=False)
    assert "test/acc_views" not in found


def test_a_second_test_begins_anew(trainer: Build) -> None:
    module = Classification(Position(), test_views=2)
    one, two = (trainer().test(module, loader(), verbose=False)[0] for _ in range(2))
    assert one == two


@pytest.mark.parametrize("classes", [2, 7])
def test_accuracy_is_torchmetrics_micro_average(classes: int) -> None:
    ours, theirs = TopOneAccuracy(), MulticlassAccuracy(classes, average="micro")
    generator = torch.Generator().manual_seed(0)
    for size in (1, 5, 32):
        logits = torch.randn(size, classes, generator=generator)
        logits[0] = 0.0  # a tie: the first counts
        y = torch.randint(0, classes, (size,), generator=generator)
        ours.update(logits, y)
        theirs.update(logits, y)
    assert torch.equal(ours.compute(), theirs.compute())
    ours.reset()
    ours.update(torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    assert ours.compute() == 1.0
