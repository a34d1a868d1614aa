"""The activations that the nets take by name, each torch's own with its default slope and approximation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import nn

Activation = Literal["relu", "sigmoid", "tanh", "gelu", "silu", "leaky_relu"]

ACTIVATIONS: Mapping[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
}
