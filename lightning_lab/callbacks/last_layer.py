"""The last linear layer of a net: finding it, reading its inputs, and setting it by least squares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_lab.callbacks.ridge import Moments, ridge_solution
from lightning_lab.runs.agreement import everyones
from lightning_lab.runs.errors import DivergedError, InputError


def last_linear(trainer: Trainer, module: LightningModule) -> nn.Linear:
    """Find the linear layer that is called last, by one batch of the training part.

    Args:
        trainer: In a fit.
        module: In evaluation; it is called as it is.

    Raises:
        InputError: If there is none, or the module's output is not that layer's.
    """
    called: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def note(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, nn.Linear):
            called.append((layer, given[0], output))

    hooks = [one.register_forward_hook(note) for one in module.modules() if isinstance(one, nn.Linear)]
    try:
        outputs = _outputs(trainer, module, next(_batches(trainer)))
    finally:
        for hook in hooks:
            hook.remove()
    net = type(getattr(module, "net", module)).__name__
    if not called:
        raise InputError(f"`least_squares_head` needs a net with a linear layer, and {net} has none.")
    layer, x, output = called[-1]
    if x.ndim != 2 or not torch.allclose(outputs, output.to(outputs.dtype), rtol=0, atol=0, equal_nan=True):
        raise InputError(
            f"`least_squares_head` needs a net that ends in its last linear layer, and {net} does more to that layer's "
            "output, or gives it no vectors. --least_squares_head null switches it off."
        )
    return layer


def inputs_of(layer: nn.Linear, trainer: Trainer, module: LightningModule) -> Iterator[tuple[Tensor, Tensor]]:
    """Give a layer's inputs (B, in) with their targets (B, out), for this process's part of all training examples.

    Args:
        layer: As :func:`last_linear` found it.
        trainer: In a fit.
        module: In evaluation.
    """
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    try:
        for batch in _batches(trainer):
            _outputs(trainer, module, batch)
            y = batch.y[: batch.num_real]
            targets = y if y.is_floating_point() else F.one_hot(y, layer.out_features)
            yield seen.pop()[: batch.num_real], targets
    finally:
        hook.remove()


def _outputs(trainer: Trainer, module: LightningModule, batch: Any) -> Tensor:
    with trainer.precision_plugin.forward_context():
        outputs: Tensor = module(batch.x)
    return outputs


def _batches(trainer: Trainer) -> Iterator[Any]:
    loader: Any = trainer.train_dataloader
    if not hasattr(loader, "plain"):
        raise InputError(
            f"`least_squares_head` needs a loader with a method `plain`; {type(loader).__name__} has none. "
            "--least_squares_head null switches it off."
        )
    for batch in loader.plain():
        yield trainer.precision_plugin.convert_input(batch)


@torch.no_grad()
def set_layer(layer: nn.Linear, moments: Moments, ridge: float) -> None:
    """Give a layer the ridge regression's weights and bias, wherever it keeps the bias.

    Args:
        layer: Its bias may be the last column of its weights, which then are one wider than its inputs.
        moments: Of its inputs and the targets.
        ridge: See :class:`LeastSquaresHead`.

    Raises:
        DivergedError: If the inputs are not finite.
    """
    if not moments.scatter.isfinite().all():
        raise DivergedError(
            "Training diverged: the inputs of the last linear layer are not finite, so `least_squares_head` has no "
            "solution. Lower the learning rate, or bound the gradient with --gradient_clipping.max_norm 1."
        )
    inputs = moments.mean.shape[-1] - layer.out_features
    column = layer.in_features == inputs + 1
    solution = ridge_solution(moments, inputs, ridge, bias=column or layer.bias is not None)
    # The first process's on all of them: machines of another kind may round otherwise.
    weight, bias = everyones(solution)[0]
    layer.weight.copy_(torch.cat([weight, bias.unsqueeze(1)], dim=1) if column else weight)
    if layer.bias is not None:
        layer.bias.copy_(bias)
