"""Lightning's training loop with the detours of a step left out, where a run has no use for them.

A step of a small net takes less time than the hooks, wrappers and closures that Lightning calls around it. Most of
them exist for cases that a given run does not have: several processes, loss scaling, accumulation, a profiler, hooks
that nobody overrides. `LeanEpochLoop` looks once an epoch whether all of those are absent. Then it calls what is left,
in Lightning's order and with the same counters; in every other case it is Lightning's own loop. The results are the
same to the last bit, which tests hold.

It builds on names that Lightning keeps to itself, which is one reason why its minor version is bounded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loops.fetchers import _DataFetcher, _DataLoaderIterDataFetcher
from lightning.pytorch.loops.optimization.automatic import Closure, ClosureResult
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from lightning_lab.loops.resumable import ResumableEpochLoop

#: What the short way does not call on a module. Who overrides one of these gets Lightning's way.
_MODULE_HOOKS = (
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "optimizer_step",
    "optimizer_zero_grad",
    "backward",
    "configure_gradient_clipping",
)
_CALLBACK_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


def use_lean_loop(trainer: Trainer) -> None:
    """Put the lean loop in the place of Lightning's.

    Args:
        trainer: A new trainer, which has not trained yet.
    """
    theirs = trainer.fit_loop.epoch_loop
    trainer.fit_loop.epoch_loop = LeanEpochLoop(trainer, theirs.min_steps, theirs.max_steps)


class LeanEpochLoop(ResumableEpochLoop):
    """Lightning's training epoch; a step takes the short way where it leads to the same place."""

    _lean = False

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        """Choose the way for this epoch."""
        super().on_run_start(data_fetcher)
        self._lean = not isinstance(data_fetcher, _DataLoaderIterDataFetcher) and is_plain(self.trainer)
        if self._lean:
            self._prepare()

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Take one step."""
        if not self._lean or self.restarting:
            super().advance(data_fetcher)
            return
        trainer, module, optimizer = self.trainer, self._module, self._optimizer
        connector, results = trainer._logger_connector, self._results
        counters = self.automatic_optimization.optim_progress.optimizer
        self.val_loop.restarting = False

        batch, _, _ = next(data_fetcher)
        batch_idx = self.batch_idx + 1
        self.batch_progress.is_last_batch = data_fetcher.done
        if not _is_on(batch, self._device):
            batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        self.batch_progress.increment_ready()
        connector._first_loop_iter = connector._first_loop_iter is None
        results.batch, results.batch_size, results.dataloader_idx = batch, None, None
        self._call("on_train_batch_start", batch, batch_idx)
        self.batch_progress.increment_started()

        counters.step.increment_ready()
        # What a module logs is filed under the hook it is in. Past `nn.Module.__setattr__`, which looks for tensors.
        attributes = module.__dict__
        attributes["_current_fx_name"] = "training_step"
        with self._context():
            output = module.training_step(batch, batch_idx) if self._takes_index else module.training_step(batch)
        attributes["_current_fx_name"] = None
        loss: Any  # torch leaves `backward` without types
        loss, outputs = (output, {"loss": output.detach()}) if isinstance(output, Tensor) else _validated(output)
        counters.zero_grad.increment_ready()
        self._call("on_before_zero_grad", optimizer)
        counters.zero_grad.increment_started()
        optimizer.zero_grad()
        counters.zero_grad.increment_completed()
        if loss is not None:
            self._call("on_before_backward", loss)
            loss.backward()
            self._call("on_after_backward")
        self._call("on_before_optimizer_step", optimizer)
        optimizer.step()
        counters.step.increment_completed()

        self.batch_progress.increment_processed()
        if trainer.lr_scheduler_configs:
            self.update_lr_schedulers("step", update_plateau_schedulers=False)
            if self._num_ready_batches_reached():
                self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        self._call("on_train_batch_end", outputs, batch, batch_idx)
        if self._logs_steps():
            connector.on_batch_end()
            self.batch_progress.increment_completed()
            connector.update_train_step_metrics()
        else:
            results.batch = None
            self.batch_progress.increment_completed()

    def _prepare(self) -> None:
        trainer = self.trainer
        self._module: LightningModule = trainer.lightning_module
        self._optimizer: Optimizer = trainer.optimizers[0]
        self._device = trainer.strategy.root_device
        precision = trainer.precision_plugin
        self._context: Callable[[], AbstractContextManager[Any]] = nullcontext
        if isinstance(precision, MixedPrecision):
            self._context = precision.autocast_context_manager
        self._takes_index = len(inspect.signature(self._module.training_step).parameters) > 1
        self._hooks = {name: _overriding(trainer, name) for name in _CALLBACK_HOOKS}

        self._num_logged = -1

    def _logs_steps(self) -> bool:
        # Only a new name can change the answer, and names are never taken back.
        if len(self._results) != self._num_logged:
            self._num_logged = len(self._results)
            self._any_on_step = any(one.meta.on_step for one in self._results.values())
        return self._any_on_step

    def _call(self, name: str, *args: Any) -> None:
        hooks = self._hooks[name]
        if hooks:
            attributes = self._module.__dict__
            attributes["_current_fx_name"] = name
            for hook in hooks:
                hook(self.trainer, self._module, *args)
            attributes["_current_fx_name"] = None


def is_plain(trainer: Trainer) -> bool:
    """Say whether a run has nothing that only Lightning's own step can do.

    Args:
        trainer: Ready to train, with module and optimisers.
    """
    module = trainer.lightning_module
    precision = trainer.precision_plugin
    return (
        type(trainer.strategy) is SingleDeviceStrategy
        and (type(precision) is Precision or (type(precision) is MixedPrecision and precision.scaler is None))
        and type(trainer.profiler) is PassThroughProfiler  # type: ignore[attr-defined]
        and trainer.accumulate_grad_batches == 1
        and trainer.gradient_clip_val is None
        and module.automatic_optimization
        and not any(_is_overridden(getattr(module, name), LightningModule, name) for name in _MODULE_HOOKS)
        and "dataloader_iter" not in inspect.signature(module.training_step).parameters
        and _steps_without_closure(trainer.optimizers[0])
    )


def _steps_without_closure(optimizer: Optimizer) -> bool:
    # torch's own call a closure once, in front of the step; others may call it again (LBFGS does), or move weights.
    return type(optimizer).__module__.startswith("torch.optim") and not isinstance(optimizer, LBFGS)


def _validated(output: Any) -> tuple[Tensor | None, dict[str, Any]]:
    # What is no tensor is rare enough for Lightning's own checks. None is allowed: a step without a gradient.
    result = ClosureResult.from_training_step_output(output)
    if result.closure_loss is None:
        Closure.warning_cache.warn("`training_step` returned `None`. If this was on purpose, ignore this warning...")
        return None, {}
    return result.closure_loss, result.asdict()


def _is_on(batch: Any, device: Any) -> bool:
    # Only batches that are a plain row of tensors and numbers are looked through here.
    return isinstance(batch, tuple) and all(
        part.device == device if isinstance(part, Tensor) else isinstance(part, int | float) for part in batch
    )


def _overriding(trainer: Trainer, name: str) -> list[Callable[..., None]]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    hooks = [getattr(callback, name) for callback in callbacks]  # of the object: a hook can be put on one of them alone
    return [hook for hook in hooks if _is_overridden(hook, Callback, name)]


def _is_overridden(hook: Callable[..., Any], base: type, name: str) -> bool:
    return getattr(hook, "__func__", None) is not getattr(base, name)
