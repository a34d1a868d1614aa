"""The multi-layer perceptron: dense layers and an activation, for digits, for regression, for softmax regression."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from lightning_lab.nets.activation import ACTIVATIONS, Activation
from lightning_lab.nets.checks import check_choice, check_dropout, check_positive
from lightning_lab.nets.drop_connect import dense
from lightning_lab.nets.layer_variance import LayerVariance

Normalisation = Literal["none", "batch", "layer", "layer_variance"]


class MLP(nn.Module):
    """Dense layers with an activation after each but the last.

    A hidden layer is linear map, normalisation, activation, dropout. The output is linear: logits for classification,
    values for regression.

    Args:
        in_features: Values per sample, at least 1. A sample of any shape is flattened to them.
        hidden: Widths of the hidden layers, each at least 1. Empty gives linear or softmax regression, on which
            `activation`, `dropout`, `drop_connect` and `normalisation` have no effect.
        out_features: Number of outputs, at least 1: the classes, or the values to predict.
        activation: Activation of the hidden layers.
        dropout: Probability in [0, 1) of zeroing a hidden unit after its activation. The input has none. Not the
            probability of keeping: of a keep probability q, as the labs count it, it is 1 - q.
        drop_connect: Probability in [0, 1) of zeroing a weight of a hidden layer, drawn anew in each training step. The
            output layer and the biases keep all of theirs.
        normalisation: Of each hidden layer ahead of its activation. ``batch`` is torch's batch norm, and the linear map
            in front has no bias, as it would be subtracted. ``layer`` divides by the standard deviation over the layer
            and has no learned scale or shift. ``layer_variance`` is the labs' mistake, kept to be studied: it divides
            by the variance instead, (x - mean) / (variance + 1e-5), also without scale or shift.
        initialisation: ``default`` is torch's, uniform within 1 / sqrt(in) for weights and biases. The others draw
            normal weights and set the biases to 0: ``standard_normal`` with std 1, ``xavier`` with std
            1 / sqrt(in + out), ``kaiming`` with std sqrt(2 / in). Torch's ``xavier_normal_`` has sqrt(2 / (in + out)),
            which keeps the variance of a linear net; ``xavier`` here is the labs' and smaller by sqrt(2).
        bias: ``vector`` adds one to each product; ``column`` appends a constant 1 to each layer's input and keeps the
            bias as the last column of the weights, the same function from the same first weights at the same seed;
            ``none`` has no bias.

    Shape:
        - Input: (B, in_features), or (B, ...) with that many values per sample
        - Output: (B, out_features)

    Raises:
        ValueError: If an argument is out of its range, or if samples of another size arrive.

    Example:
        >>> import torch
        >>> MLP(hidden=(20, 20))(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 10])

    Reference:
        Glorot, Bengio: Understanding the difficulty of training deep feedforward neural networks. AISTATS 2010.
        He, Zhang, Ren, Sun: Delving deep into rectifiers. ICCV 2015, arXiv:1502.01852.
        Wan, Zeiler, Zhang, LeCun, Fergus: Regularization of neural networks using DropConnect. ICML 2013.
    """

    def __init__(
        self,
        *,
        in_features: int = 256,
        hidden: tuple[int, ...] = (128,),
        out_features: int = 10,
        activation: Activation = "relu",
        dropout: float = 0.0,
        drop_connect: float = 0.0,
        normalisation: Normalisation = "none",
        initialisation: Literal["default", "standard_normal", "xavier", "kaiming"] = "default",
        bias: Literal["vector", "column", "none"] = "vector",
    ) -> None:
        super().__init__()
        check_positive("in_features", in_features)
        check_positive("hidden", hidden)
        check_positive("out_features", out_features)
        check_choice("activation", activation, ACTIVATIONS)
        check_choice("normalisation", normalisation, ("none", "batch", "layer", "layer_variance"))
        check_choice("initialisation", initialisation, ("default", "standard_normal", "xavier", "kaiming"))
        check_choice("bias", bias, ("vector", "column", "none"))
        check_dropout(dropout)
        check_dropout(drop_connect, "drop_connect")

        self.in_features = in_features
        self.out_features = out_features
        self.input_shape = (in_features,)

        layers: list[nn.Module] = []
        width = in_features
        for units in hidden:
            layers.append(_dense(width, units, "none" if normalisation == "batch" else bias, drop_connect))
            if normalisation == "batch":
                layers.append(nn.BatchNorm1d(units))
            elif normalisation == "layer":
                layers.append(nn.LayerNorm(units, elementwise_affine=False))
            elif normalisation == "layer_variance":
                layers.append(LayerVariance())
            layers += [ACTIVATIONS[activation](), nn.Dropout(dropout)]
            width = units
        self.layers = nn.Sequential(*layers, _dense(width, out_features, bias, drop_connect=0.0))
        if initialisation != "default":
            for layer in self.layers:
                if isinstance(layer, nn.Linear):
                    _draw(layer, initialisation)

    @property
    def num_classes(self) -> int:
        """Number of outputs, under the name that classification reads."""
        return self.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Compute the outputs of a batch of samples."""
        values = math.prod(x.shape[1:])
        if values != self.in_features:
            got = " x ".join(map(str, x.shape[1:]))
            raise ValueError(
                f"MLP was built for {self.in_features} values per sample, got {f'{got} = ' if x.ndim > 2 else ''}"
                f"{values}. Set `in_features` of the net to {values}, or choose the data to fit."
            )
        x = x.reshape(x.shape[0], self.in_features)  # (B, in_features)
        outputs: Tensor = self.layers(x)  # (B, out_features)
        return outputs


class _ColumnLinear(nn.Linear):
    """A linear map whose bias is the last column of its weights, met by a constant 1 at the end of the input."""

    def __init__(self, in_features: int, out_features: int, *, drop_connect: float) -> None:
        super().__init__(in_features + 1, out_features, bias=False)
        self.drop_connect = drop_connect

    def reset_parameters(self) -> None:
        """Take the weights and the bias that an ordinary layer draws, so that the two can be compared at one seed."""
        drawn = nn.Linear(self.in_features - 1, self.out_features)
        with torch.no_grad():
            self.weight.copy_(torch.cat((drawn.weight, drawn.bias[:, None]), dim=1))  # (out, in + 1)

    def forward(self, input: Tensor) -> Tensor:
        """Append the 1 and multiply."""
        extended = torch.cat((input, input.new_ones(input.shape[0], 1)), dim=1)  # (B, in + 1)
        if not self.drop_connect:
            return super().forward(extended)
        # The last column is a bias and stays, so that `column` has the masks of `vector`.
        weight = F.dropout(self.weight[:, :-1], self.drop_connect, self.training)
        return F.linear(extended, torch.cat((weight, self.weight[:, -1:]), dim=1))


def _dense(
    in_features: int, out_features: int, bias: Literal["vector", "column", "none"], drop_connect: float
) -> nn.Linear:
    """Build a linear map with its bias where `bias` says."""
    if bias == "column":
        return _ColumnLinear(in_features, out_features, drop_connect=drop_connect)
    return dense(in_features, out_features, drop_connect=drop_connect, bias=bias == "vector")


@torch.no_grad()
def _draw(layer: nn.Linear, initialisation: Literal["standard_normal", "xavier", "kaiming"]) -> None:
    """Draw normal weights of the std that `initialisation` names, and set the bias to 0 wherever it stands."""
    fan_in = layer.in_features - isinstance(layer, _ColumnLinear)
    fan_out = layer.out_features
    std = {
        "standard_normal": 1.0,
        "xavier": 1.0 / math.sqrt(fan_in + fan_out),
        "kaiming": math.sqrt(2.0 / fan_in),
    }[initialisation]
    # Drawn apart and copied: torch fills a slice in another order, and `column` must start as `vector` does.
    weight = std * torch.randn(fan_out, fan_in)
    layer.weight.zero_()
    layer.weight[:, :fan_in].copy_(weight)
    if layer.bias is not None:
        layer.bias.zero_()
