"""Tasks: a net, its loss and its metrics."""

from lightning_lab.tasks.classification import Classification
from lightning_lab.tasks.regression import Regression

__all__ = ["Classification", "Regression"]
