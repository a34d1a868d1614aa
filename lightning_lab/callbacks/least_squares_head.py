"""The last linear layer by least squares on its inputs, at the end of the training: lab A's fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Any, final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torchmetrics import MetricCollection

from lightning_lab.callbacks.last_layer import inputs_of, last_linear, set_layer
from lightning_lab.callbacks.ridge import Moments
from lightning_lab.runs.agreement import everyones, take_buffers_of_first
from lightning_lab.runs.errors import InputError
from lightning_lab.runs.terminal import say

#: Below it rounding would decide: the moments are exact to some 1e-16 of their trace.
LEAST_RIDGE = 1e-10
BEFORE = "_before_head"  # ends the names of metrics


@final
class LeastSquaresHead(Callback):
    """Set the last linear layer to the ridge regression of the targets on its inputs, ahead of the last validation.

    It reads the whole training part, whatever `trainer.limit_train_batches` says, without augmentation and dropout. The
    targets are those of the data, or 1 for an example's class and 0 for the others. So the outputs estimate
    probabilities and are no logits: accuracy may rise while cross entropy, which takes them for logits, becomes far
    larger, and predict's probabilities, their softmax, far too even. With the losses ``mse`` and ``norm``, and in
    regression, both mean what they did.

    The last validation is known ahead by `trainer.max_epochs`, `max_steps` and `max_time`. ``last.ckpt`` and the last
    row hold the net after it, and the row also ``val/acc_before_head`` and so on. The best epoch by ``val/loss`` is
    often an earlier one then, without it: test with ``--ckpt_path last``, or set ``--checkpoint.monitor val/acc``. A
    run that ends without a validation has it all the same, unmeasured. One that is interrupted gets it when it is
    continued to its end, once; one that is forked and trained on gets it again at the new end. Early stopping decides
    behind the validation and is refused. The parameters have to be whole on each process (not so under FSDP).

    Args:
        ridge: Added to the diagonal of the inputs' covariance, as a share of that diagonal's mean; at least 1e-10. The
            bias is not shrunk.

    Raises:
        ValueError: If `ridge` is below 1e-10 or not finite.
        InputError: If the net does not end in a linear layer, the loader has no method `plain`, or early stopping is
            on.
        DivergedError: If the layer's inputs are not finite.

    Reference:
        A. E. Hoerl, R. W. Kennard: Ridge regression: biased estimation for nonorthogonal problems. Technometrics 1970.
    """

    def __init__(self, *, ridge: float = 1e-4) -> None:
        if not LEAST_RIDGE <= ridge < float("inf"):
            raise ValueError(f"`ridge` must be at least {LEAST_RIDGE:g} and finite, got {ridge}.")
        self.ridge = ridge
        self._acted_at = -1  # after so many optimiser steps
        self._before: dict[str, float] = {}  # what that validation would have given without it

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what decides on the end too late."""
        if trainer.early_stopping_callbacks:
            raise InputError(
                "`least_squares_head` acts ahead of the last epoch's validation, and `early_stopping` decides behind a "
                "validation that it was the last. Switch one off: --early_stopping null."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Try the net now and not when it was trained for nothing."""
        with _evaluating(pl_module):
            self._layer = last_linear(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure and act, if no step comes after this validation."""
        for name in [name for name in trainer.callback_metrics if name.endswith(BEFORE)]:
            del trainer.callback_metrics[name]  # of the run that this one is forked from
        if self._is_due(trainer):
            with _evaluating(pl_module):
                take_buffers_of_first(pl_module)
                before = _measure(trainer, pl_module)
                self._act(trainer, pl_module, before)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what was measured before."""
        if self._has_acted(trainer):
            pl_module.log_dict({f"{name}{BEFORE}": value for name, value in self._before.items()})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print both."""
        if self._has_acted(trainer) and trainer.is_global_zero:
            after = trainer.callback_metrics
            changes = [f"{name} {value:.4g} -> {float(after[name]):.4g}" for name, value in self._before.items()]
            say(f"least_squares_head: {', '.join(changes) or 'set'}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act at an end that was not validated."""
        if self._is_due(trainer):
            with _evaluating(pl_module):
                take_buffers_of_first(pl_module)
                self._act(trainer, pl_module, {})
            if trainer.is_global_zero:
                say("least_squares_head: set; no validation comes behind it")

    def state_dict(self) -> dict[str, Any]:
        """Remember whether it has acted, for a run that is interrupted in its last validation."""
        return {"acted_at": self._acted_at, "before": self._before}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take both up again."""
        self._acted_at = state_dict["acted_at"]
        self._before = state_dict["before"]

    def _is_due(self, trainer: Trainer) -> bool:
        fits = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        return fits and self._acted_at != trainer.global_step and _is_last(trainer)

    def _has_acted(self, trainer: Trainer) -> bool:
        return trainer.state.fn == TrainerFn.FITTING and self._acted_at == trainer.global_step

    def _act(self, trainer: Trainer, pl_module: LightningModule, before: dict[str, float]) -> None:
        own: Moments | None = None
        for x, targets in inputs_of(self._layer, trainer, pl_module):
            part = Moments.of(x, targets)
            own = part if own is None else own.with_more(part)
        moments, *others = [one for one in everyones(own) if one is not None]
        for other in others:
            moments = moments.with_more(other)
        set_layer(self._layer, moments, self.ridge)
        self._acted_at, self._before = trainer.global_step, before


def _is_last(trainer: Trainer) -> bool:
    """Say whether the step just done is the run's last, as Lightning's loops will decide."""
    loop = trainer.fit_loop
    if loop.epoch_loop.max_steps not in (None, -1) and trainer.global_step >= loop.epoch_loop.max_steps:
        return True
    if trainer.should_stop and loop._can_stop_early:
        return True
    most = loop.max_epochs
    return most is not None and 0 <= most <= trainer.current_epoch + 1 and loop.epoch_loop.batch_progress.is_last_batch


def _measure(trainer: Trainer, module: LightningModule) -> dict[str, float]:
    """Measure what the validation will, for tasks that keep their metrics in ``val_metrics``."""
    metrics = getattr(module, "val_metrics", None)
    loader: Any = trainer.val_dataloaders
    if not isinstance(metrics, MetricCollection) or isinstance(loader, list | tuple | dict):
        return {}
    for number, batch in enumerate(islice(loader, int(trainer.num_val_batches[0]))):
        given = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
        trainer.strategy.validation_step(given, number)
    values = {str(name): float(value) for name, value in metrics.compute().items()}
    metrics.reset()
    return values


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(one, one.training) for one in module.modules()]
    # Compiled code has no hooks.
    compiled = any(one._compiled_call_impl is not None for one, _ in modes)
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    module.eval()
    with torch.no_grad(), stance:
        yield
    for one, training in modes:
        one.training = training
