"""predictions.csv: rows by hand, and data that it does not know."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightning_lab.predictions import write_predictions
from lightning_lab.runs.errors import InputError


def test_images_have_a_row_each_over_all_batches(tmp_path: Path) -> None:
    data = SimpleNamespace(predict_files=["a.png", "b, c.png", "d.png"], class_names=("x", "y"))
    outputs = [torch.tensor([[0.25, 0.75], [1.0, 0.0]]), torch.tensor([[0.5, 0.5]], dtype=torch.float64)]
    assert write_predictions(tmp_path / "out.csv", outputs, data) == 3
    assert (tmp_path / "out.csv").read_text() == (
        "file,class,probability,x,y\n"
        "a.png,y,0.750000,0.250000,0.750000\n"
        '"b, c.png",x,1.000000,1.000000,0.000000\n'
        "d.png,x,0.500000,0.500000,0.500000\n"
    )


def test_a_function_has_its_curve_and_the_prediction(tmp_path: Path) -> None:
    data = SimpleNamespace(predict_inputs=torch.tensor([[0.0], [0.5], [2.0]]), evaluate=lambda x: x * x)
    assert write_predictions(tmp_path / "out.csv", [torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0]])], data) == 3
    assert (tmp_path / "out.csv").read_text() == "x,y,prediction\n0,0,1\n0.5,0.25,2\n2,4,3\n"


def test_data_that_are_neither_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    message = "predict does not know how to name the examples of SimpleNamespace."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        write_predictions(tmp_path / "out.csv", [torch.zeros(1, 2)], SimpleNamespace(class_names=["x", "y"]))
    assert list(tmp_path.iterdir()) == []


def test_another_number_of_rows_than_files_is_an_error(tmp_path: Path) -> None:
    data = SimpleNamespace(predict_files=["a.png"], class_names=["x", "y"])
    with pytest.raises(ValueError, match=r"zip\(\) argument 2 is longer than argument 1"):
        write_predictions(tmp_path / "out.csv", [torch.zeros(2, 2)], data)
    assert list(tmp_path.iterdir()) == []
