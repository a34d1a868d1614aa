"""A penalty on the weights as the labs have it, in the loss: L1, L2 or the unsquared norm."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal, final, get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_lab.callbacks.scaling import check_unscaled
from lightning_lab.runs.errors import InputError, check_choice, unknown

Kind = Literal["l1", "l2", "norm"]
#: The metric that it logs.
PENALTY = "train/penalty"


@final
class Penalty(Callback):
    """Add a penalty on the weights to the loss: its gradient, in front of gradient clipping.

    The losses that are logged exclude it; ``train/penalty`` is its mean over the epoch's steps.

    `weight` w with kind ``l2`` is the ``weight_decay`` 2w of SGD, momentum included, or of Adam, but for two things:
    weight decay takes all parameters, and comes behind clipping, which bounds the gradient of a penalty with that of
    the loss. AdamW decays apart from the gradient and is another method. Both can be on, and then add up.

    Args:
        kind: ``l1`` is weight * sum |p|; ``l2`` is weight * sum p^2, with the gradient 2 weight p; ``norm`` is weight *
            sum ||p||, the unsquared Euclidean norm of each tensor, with the gradient weight p / ||p||, 0 at p = 0.
        weight: At least 0, which is without effect.
        parameters: ``weights`` takes what has two dimensions or more (matrices, filters: no biases and nothing of
            batch norm, but with `bias` column of the MLP the biases, which are a column of the matrix), ``all`` takes
            biases and the rest too; or a list of names, in which * stands for any letters:
            ``[net.layers.0.weight, "*.bias"]``. What is frozen is left out.

    Raises:
        ValueError: If `kind` or `parameters` is another word, `parameters` an empty list, or `weight` below 0 or not
            finite.
        InputError: If a name of `parameters` fits nothing, or nothing that is trained is left; or in 16-mixed with a
            fused optimiser, whose gradients are scaled until its step.
    """

    def __init__(
        self,
        *,
        kind: Kind = "l2",
        weight: float = 1e-4,
        parameters: list[str] | str = "weights",
    ) -> None:
        check_choice("kind", kind, get_args(Kind))
        if not 0 <= weight < float("inf"):
            raise ValueError(f"`weight` of the penalty must be at least 0 and finite, got {weight}.")
        if not parameters or (isinstance(parameters, str) and parameters not in ("weights", "all")):
            raise ValueError(
                f"`parameters` of the penalty must be weights, all or a list of names, got {parameters}. Write a list "
                "as --penalty.parameters '[\"*.bias\"]'."
            )
        self.kind = kind
        self.weight = weight
        self.parameters = parameters
        self._chosen: list[nn.Parameter] = []
        self._sum = torch.zeros(())  # of the penalty, over the epoch's steps
        self._steps = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the parameters."""
        named = dict(pl_module.named_parameters())
        self._chosen = [named[name] for name in chosen_names(pl_module, self.parameters)]
        self._sum = self._sum.to(pl_module.device)
        check_unscaled(trainer, "penalty")
        if self.weight == 0:
            rank_zero_warn("`penalty` has no effect: its `weight` is 0. --penalty null switches it off.")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Add the gradient, once a step, after the processes have averaged theirs, so that all add the same."""
        self._steps += 1
        parameters = [parameter for parameter in self._chosen if parameter.requires_grad]
        if self.weight == 0 or not parameters:
            return
        if not any(parameter.grad is not None for parameter in pl_module.parameters()):
            return  # a step without a loss has no penalty either
        for parameter in parameters:
            if parameter.grad is None:  # the loss does not depend on it, the penalty does
                parameter.grad = torch.zeros_like(parameter)
        with torch.no_grad():
            self._sum += add_penalty(parameters, self.kind, self.weight)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch's mean."""
        if self._steps:
            pl_module.log(PENALTY, self._sum / self._steps)
        self._sum.zero_()
        self._steps = 0

    def state_dict(self) -> dict[str, Any]:
        """Keep the epoch's sum for a run that continues."""
        return {"sum": self._sum, "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up again."""
        self._sum = state_dict["sum"]
        self._steps = state_dict["steps"]


def chosen_names(module: nn.Module, parameters: str | Sequence[str]) -> list[str]:
    """Name the trained parameters of a module that a penalty is on, in the module's order.

    Args:
        module: The task.
        parameters: As in :class:`Penalty`.

    Raises:
        InputError: If a name fits nothing, or nothing that is trained is left.
    """
    named = dict(module.named_parameters())
    names = list(named)
    if parameters == "weights":
        names = [name for name in names if named[name].ndim >= 2]
    elif parameters != "all":
        for pattern in parameters:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise InputError(f"`penalty.parameters`: {unknown('parameter', pattern, names)}")
        names = [name for name in names if any(fnmatchcase(name, pattern) for pattern in parameters)]
    trained = [name for name in names if named[name].requires_grad]
    if not trained:
        raise InputError(
            f"`penalty` has no effect: `parameters` {parameters} takes none that is trained. Known: "
            f"{', '.join(named) or 'none'}. --penalty null switches it off."
        )
    return trained


def add_penalty(parameters: Sequence[Tensor], kind: Kind, weight: float) -> Tensor:
    """Add a penalty's gradient to those of the parameters.

    Args:
        parameters: Each has a gradient.
        kind: As in :class:`Penalty`.
        weight: Its factor.

    Returns:
        The penalty, a scalar.
    """
    values = list(parameters)
    gradients = [parameter.grad for parameter in values if parameter.grad is not None]
    norms = torch.stack(torch._foreach_norm(values, 1 if kind == "l1" else 2))  # (parameters,)
    if kind == "l1":
        torch._foreach_add_(gradients, torch._foreach_sign(values), alpha=weight)
        return weight * norms.sum()
    if kind == "l2":
        torch._foreach_add_(gradients, values, alpha=2 * weight)
        return weight * norms.square().sum()
    factors = (weight / norms).masked_fill(norms == 0, 0.0)
    for gradient, value, factor in zip(gradients, values, factors, strict=True):
        gradient.addcmul_(value, factor)
    return weight * norms.sum()
