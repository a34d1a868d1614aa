"""The pictures of a test, opened again as a reader would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from torch import Tensor, nn

from lightning_lab.callbacks.pictures import PAGE, Pictures, draw_confusion, draw_misclassified
from lightning_lab.data.loader import Examples, TensorLoader
from lightning_lab.runs.directory import RunDirectory
from lightning_lab.tasks import Classification, Regression

Build = Callable[..., Trainer]


class Corner(nn.Module):
    """Say the class that stands in the first pixel, as surely as the second pixel says."""

    num_classes = 3

    def forward(self, x: Tensor) -> Tensor:
        said = nn.functional.one_hot(x[:, 0, 0, 0].long(), 3)
        return said * x[:, 0, 0, 1, None]


def images(said: list[int], true: list[int], sure: list[float], channels: int = 1) -> TensorLoader:
    x = torch.rand(len(said), channels, 6, 6, generator=torch.Generator().manual_seed(0))
    x[:, 0, 0, 0] = torch.tensor(said, dtype=torch.float32)
    x[:, 0, 0, 1] = torch.tensor(sure)
    return TensorLoader(Examples(x, torch.tensor(true)), batch_size=4)


def is_drawn(path: Path) -> bool:
    """Tell whether a file is a whole PNG of some size with something on it."""
    with Image.open(path) as image:
        image.load()
        pixels = np.asarray(image.convert("L"))
        return image.format == "PNG" and min(image.size) >= 200 and bool(pixels.std() > 5)


SAID, TRUE, SURE = [0, 1, 2, 2, 1, 0, 0], [0, 1, 1, 0, 1, 2, 0], [3.0, 3.0, 1.0, 3.0, 3.0, 2.0, 3.0]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


@pytest.mark.parametrize("channels", [1, 3])
def test_both_pictures_are_drawn(trainer: Build, run: RunDirectory, channels: int) -> None:
    trainer(Pictures(run)).test(Classification(Corner()), images(SAID, TRUE, SURE, channels), verbose=False)
    assert {path.name: is_drawn(path) for path in run.path.iterdir()} == {
        "confusion_matrix.png": True,
        "misclassified.png": True,
    }


def test_without_a_mistake_there_is_no_page_of_mistakes(trainer: Build, run: RunDirectory) -> None:
    trainer(Pictures(run)).test(Classification(Corner()), images(TRUE, TRUE, SURE), verbose=False)
    assert [path.name for path in run.path.iterdir()] == ["confusion_matrix.png"]


def test_the_mistakes_of_an_earlier_test_are_forgotten(trainer: Build, run: RunDirectory) -> None:
    built, module = trainer(Pictures(run)), Classification(Corner())
    built.test(module, images(SAID, TRUE, SURE), verbose=False)
    (run.path / "misclassified.png").unlink()
    built.test(module, images(TRUE, TRUE, SURE), verbose=False)
    assert [path.name for path in run.path.iterdir()] == ["confusion_matrix.png"]


def test_features_that_are_no_images_have_the_matrix_alone(
    trainer: Build, classes: Callable[..., TensorLoader], small_net: Any, run: RunDirectory
) -> None:
    trainer(Pictures(run)).test(Classification(small_net()), classes(), verbose=False)
    assert [path.name for path in run.path.iterdir()] == ["confusion_matrix.png"]


def test_a_regression_has_no_pictures(trainer: Build, run: RunDirectory) -> None:
    loader = TensorLoader(Examples(torch.rand(5, 1), torch.rand(5, 1)), batch_size=5)
    trainer(Pictures(run)).test(Regression(nn.Linear(1, 1)), loader, verbose=False)
    assert not run.path.exists()


# --- what is on them ---


def written(axes: Any) -> dict[tuple[int, int], str]:
    return {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}


def test_the_matrix_shows_the_counts_and_the_names() -> None:
    figure = draw_confusion(torch.tensor([[5, 1, 0], [0, 0, 2], [3, 0, 4]]), ("cat", "dog", "owl"))
    (axes,) = figure.axes
    assert written(axes) == {(0, 0): "5", (0, 1): "1", (1, 2): "2", (2, 0): "3", (2, 2): "4"}
    assert axes.get_title() == "9 of 15 right (60.00%)"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog", "owl"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "owl"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    shares = np.array([[5 / 6, 1 / 6, 0], [0, 0, 1], [3 / 7, 0, 4 / 7]])
    assert np.asarray(axes.images[0].get_array()) == pytest.approx(shares, abs=1e-6)


def test_a_class_without_examples_and_an_empty_matrix_can_be_drawn() -> None:
    (axes,) = draw_confusion(torch.zeros(2, 2, dtype=torch.int64), ("a", "b")).axes
    assert (axes.get_title(), written(axes)) == ("0 of 0 right (0.00%)", {})


def test_many_classes_have_colours_alone() -> None:
    (axes,) = draw_confusion(torch.eye(31, dtype=torch.int64), tuple(map(str, range(31)))).axes
    assert (axes.get_title(), written(axes)) == ("31 of 31 right (100.00%)", {})


def test_a_mistake_is_titled_with_what_was_said_how_surely_and_what_is_true() -> None:
    wrong = [(0.9, 2, 0, torch.rand(1, 4, 4)), (0.5, 1, 2, torch.rand(3, 4, 4)), (0.4, 0, 1, torch.zeros(1, 4, 4))]
    figure = draw_misclassified(wrong, ("cat", "dog", "owl"))
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["owl (90%)\ntrue: cat", "dog (50%)\ntrue: owl", "cat (40%)\ntrue: dog"]


def test_the_surest_mistakes_fill_one_page(trainer: Build, run: RunDirectory) -> None:
    count = PAGE + 10
    sure = [float(s) for s in np.random.default_rng(0).permutation(count) / 10]
    pictures = Pictures(run)
    trainer(pictures).test(Classification(Corner()), images([1] * count, [0] * count, sure), verbose=False)
    shown = [float(image[0, 0, 1]) for _, _, _, image in pictures._wrong]
    assert shown == pytest.approx(sorted(sure, reverse=True)[:PAGE])
    assert {(said, true) for _, said, true, _ in pictures._wrong} == {(1, 0)}
