"""Data modules: what the nets are trained and measured on. Test data is opened by the verb ``test`` alone."""

from lightning_lab.data.augment import Augment
from lightning_lab.data.cifar10 import CIFAR10
from lightning_lab.data.digits import Digits
from lightning_lab.data.folder import ImageFolder
from lightning_lab.data.regression import Regression

__all__ = ["CIFAR10", "Augment", "Digits", "ImageFolder", "Regression"]
