"""predictions.csv: what a net says about a folder of images, or a grid of inputs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_lab.runs.errors import InputError
from lightning_lab.runs.files import write_text


def write_predictions(path: Path, outputs: Iterable[Tensor], data: Any) -> int:
    """Write one row an example.

    Images: ``file``, ``class``, ``probability`` of that class, then the probability of each class. Functions: ``x``,
    ``y`` (without noise), ``prediction``.

    Args:
        path: The file to write.
        outputs: What the task's ``predict_step`` gave, a tensor (B, ...) for each batch.
        data: The data module: `predict_files` and `class_names`, or `predict_inputs` and `evaluate`.

    Returns:
        How many rows were written.

    Raises:
        InputError: If the data module is neither of the two.
    """
    values = torch.cat([output.float().cpu() for output in outputs])
    rows: list[list[Any]]
    if hasattr(data, "predict_files"):
        names = list(data.class_names)
        header = ["file", "class", "probability", *names]
        rows = []
        for file, probabilities in zip(data.predict_files, values.tolist(), strict=True):
            top = max(range(len(names)), key=probabilities.__getitem__)
            rows.append([file, names[top], f"{probabilities[top]:.6f}", *(f"{p:.6f}" for p in probabilities)])
    elif hasattr(data, "predict_inputs"):
        header = ["x", "y", "prediction"]
        x = data.predict_inputs
        columns = [x.flatten().tolist(), data.evaluate(x).flatten().tolist(), values.flatten().tolist()]
        rows = [[f"{value:.8g}" for value in row] for row in zip(*columns, strict=True)]
    else:
        raise InputError(f"predict does not know how to name the examples of {type(data).__name__}.")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())
    return len(rows)
