"""The weights of n nets of one shape stacked, and their outputs in one product a layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from lightning_lab.nets import MLP


class StackedMLP:
    """n MLPs of one shape.

    Args:
        nets: Their first weights are copied.

    Shape:
        - Input: (n, B, in_features)
        - Output: (n, B, out_features)
    """

    def __init__(self, nets: Sequence[MLP]) -> None:
        self.size = len(nets)
        self.layers = list(nets[0].layers)
        #: In the order of the nets' own parameters: weights (n, in, out), biases (n, out). Torch's order, (out, in),
        #: would make every gradient a copy: a product gives it as (in, out).
        self.parameters = [
            torch.stack([turned(one.detach()) for one in same]).contiguous().requires_grad_()
            for same in zip(*(net.parameters() for net in nets), strict=True)
        ]
        self._named = dict(zip((name for name, _ in nets[0].named_parameters()), self.parameters, strict=True))

    @property
    def dropout_widths(self) -> list[tuple[int, float]]:
        """Units and probability of each dropout that draws, in the order of the layers."""
        widths, width = [], 0
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                width = layer.out_features
            elif isinstance(layer, nn.Dropout) and layer.p > 0:
                widths.append((width, layer.p))
        return widths

    def __call__(self, x: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
        """Compute all outputs.

        Args:
            x: Inputs. Shape (n, B, in_features).
            masks: What each dropout that draws multiplies with, (n, B, units); None in evaluation.
        """
        left = list(masks or ())
        for number, layer in enumerate(self.layers):
            if masks and isinstance(layer, nn.Dropout) and layer.p > 0:
                x = x * left.pop(0)
            else:
                x = self._layer(number, layer, x)
        return x

    def last_inputs(self, x: Tensor) -> Tensor:
        """Compute what the last linear layer gets in evaluation, (n, B, units), from inputs (n, B, in_features)."""
        for number, layer in enumerate(self.layers[:-1]):
            x = self._layer(number, layer, x)
        return x

    @torch.no_grad()
    def take_last_layer(self, index: int, layer: nn.Linear) -> None:
        """Copy one net's last linear layer into its place."""
        for name, parameter in layer.named_parameters():
            self._named[f"layers.{len(self.layers) - 1}.{name}"][index] = turned(parameter)

    def _layer(self, number: int, layer: nn.Module, x: Tensor) -> Tensor:
        if isinstance(layer, nn.Linear):
            return self._linear(number, layer, x)
        if isinstance(layer, nn.Dropout):
            return x
        if isinstance(layer, nn.LayerNorm):
            return F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
        outputs: Tensor = layer(x)  # an activation or LayerVariance: of each number, or of the last axis
        return outputs

    def _linear(self, number: int, layer: nn.Linear, x: Tensor) -> Tensor:
        weight = self._named[f"layers.{number}.weight"]  # (n, in, out)
        bias = self._named.get(f"layers.{number}.bias")
        if bias is not None:
            return torch.baddbmm(bias.unsqueeze(1), x, weight)
        if x.shape[2] == layer.in_features - 1:  # the bias is the weights' last column
            x = torch.cat((x, x.new_ones(*x.shape[:2], 1)), dim=2)
        return torch.bmm(x, weight)


def turned(tensor: Tensor) -> Tensor:
    """Turn one net's weights (out, in), or what belongs to them, to (in, out) and back; vectors stay."""
    return tensor.T if tensor.dim() == 2 else tensor


class DropoutMasks:
    """The masks that each replicate's separate run would draw.

    Args:
        seeds: The replicates' seeds.
        widths: Units and probability of each dropout.
    """

    def __init__(self, seeds: Sequence[int], widths: Sequence[tuple[int, float]]) -> None:
        self.seeds = seeds
        self.widths = widths
        self._generator = torch.Generator()

    def draw(self, step_seeds: Sequence[int], batch: int, dtype: torch.dtype) -> list[Tensor]:
        """Draw one step's masks.

        Args:
            step_seeds: The seed of each replicate's step, of its stream ``noise``.
            batch: Examples in the batch.
            dtype: Of the weights.

        Returns:
            For each dropout 0, or 1 / (1 - p) where the unit stays. Shape (n, batch, units) each.
        """
        masks = [torch.empty(len(step_seeds), batch, units, dtype=dtype) for units, _ in self.widths]
        for index, seed in enumerate(step_seeds):
            # torch's dropout draws in this way, layer by layer, from the generator that the callback NoiseStream seeds.
            self._generator.manual_seed(seed)
            for mask, (_, p) in zip(masks, self.widths, strict=True):
                mask[index].bernoulli_(1 - p, generator=self._generator)
        return [mask.div_(1 - p) for mask, (_, p) in zip(masks, self.widths, strict=True)]
