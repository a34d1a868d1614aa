"""The training of n replicates: one loop over epochs and steps, each step for all of them."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from lightning_lab.callbacks.gradient_clipping import GradientClipping
from lightning_lab.callbacks.least_squares_head import LeastSquaresHead
from lightning_lab.callbacks.nan_guard import NanGuard
from lightning_lab.callbacks.penalty import Penalty
from lightning_lab.runs.seeds import stream_seed
from lightning_lab.studies.replicates.batches import StackedBatches
from lightning_lab.studies.replicates.gradient import StackedClipping, StackedPenalty
from lightning_lab.studies.replicates.head import set_heads
from lightning_lab.studies.replicates.measures import evaluate, hits, losses
from lightning_lab.studies.replicates.net import DropoutMasks, StackedMLP, turned
from lightning_lab.studies.replicates.replicate import Replicate
from lightning_lab.studies.replicates.state import Kept, Moment
from lightning_lab.tasks import Classification

#: How often the records are written while it trains, so that a run's state can be looked at.
WRITE_EVERY_S = 30.0
#: Validation examples of all replicates in one product, about: more would not stay in the processor's cache.
VALIDATE_AT_ONCE = 8192


class StackedTraining:
    """Train replicates to the end of their configuration.

    The learning rate comes from the first replicate's own optimiser and schedule, which make every step with it.

    Args:
        replicates: Alike but for their seeds; their trainers are set up.
    """

    def __init__(self, replicates: Sequence[Replicate]) -> None:
        self.replicates = list(replicates)
        self.first = replicates[0]
        self.task: Any = self.first.module
        self.net = StackedMLP([one.module.net for one in replicates])
        self.dtype = self.net.parameters[0].dtype
        self.optimizer: torch.optim.Optimizer = self.task.optimizer(self.net.parameters)
        self.seeds = [one.cli.seed for one in replicates]
        self.masks = DropoutMasks(self.seeds, self.net.dropout_widths)
        self.train = StackedBatches([cast(Any, one.trainer.train_dataloader) for one in replicates], self.dtype)
        self.val = StackedBatches([cast(Any, one.trainer.val_dataloaders) for one in replicates], self.dtype)
        slots: list[Any] = self.first.trainer.callbacks  # type: ignore[attr-defined]
        self.guard = next(one for one in slots if isinstance(one, NanGuard))
        clipping = next((one for one in slots if isinstance(one, GradientClipping)), None)
        self.clipping = None if clipping is None else StackedClipping(clipping, len(replicates))
        penalty = next((one for one in slots if isinstance(one, Penalty)), None)
        self.penalty = None if penalty is None else StackedPenalty(penalty, self.task, len(replicates))
        self.head = next((one for one in slots if isinstance(one, LeastSquaresHead)), None)
        self.last = Kept(self.net.parameters, self.optimizer)
        self.best = Kept(self.net.parameters, self.optimizer)
        self.step = 0
        self._rates: list[float] = []
        self._losses: list[Tensor] = []  # since the last look, (n,) each
        self._started = self._written = time.perf_counter()

    def run(self) -> None:
        """Train; a replicate that diverges has its error, one that is to stop early stops, and the others go on."""
        trainer = self.first.trainer
        most_steps = math.inf if trainer.max_steps == -1 else trainer.max_steps
        most_batches = int(trainer.fit_loop.max_batches)
        epoch = 0
        for one in self.replicates:  # a signal that came before all of them were ready
            one.cli.safe_point.stop_if_asked()
        while epoch != trainer.max_epochs and self.step < most_steps and self._alive:
            self._epoch(epoch, int(min(most_batches, most_steps - self.step)), most_batches)
            epoch += 1
            if time.perf_counter() - self._written > WRITE_EVERY_S:
                self.hand_over()
                print(f"epoch {epoch}: {len(self._alive)} of {len(self.replicates)} replicates train", flush=True)

    def hand_over(self) -> None:
        """Let every replicate's own trainer save and write how far it is."""
        for index, one in enumerate(self.replicates):
            clipped = self.clipping is not None and bool(self.clipping.ever_clipped[index])
            one.hand_over(index, self.best, self.last, ever_clipped=clipped)
        self._written = time.perf_counter()

    @property
    def _alive(self) -> list[int]:
        return [index for index, one in enumerate(self.replicates) if one.alive]

    def _epoch(self, epoch: int, batches: int, whole: int) -> None:
        total = torch.zeros(len(self.replicates))
        right, seen = torch.zeros(len(self.replicates), dtype=torch.long), 0
        for number, (x, y) in enumerate(self.train.epoch(epoch, batches)):
            outputs = self.net(x, self._draw(epoch, number, y.shape[1]))
            each = losses(self.task, outputs, y, training=True)
            self._update(each)
            total += each.detach() * y.shape[1]
            if isinstance(self.task, Classification):
                right += hits(outputs.detach(), y)
            seen += y.shape[1]
            if number + 1 == whole:
                self._schedule("epoch")
            self._losses.append(each.detach())
            if self.step % self.guard.check_every_n_steps == 0:
                self._check(epoch)
            self.replicates[-1].cli.safe_point.stop_if_asked()
        self._check(epoch)
        before: dict[str, Tensor] = {}
        limits = self.first.trainer
        if self.head is not None and (epoch + 1 == limits.max_epochs or self.step == limits.max_steps):
            before = self._measure()
            set_heads(self.net, self.replicates, self.train, ridge=self.head.ridge, step=self.step)
        measured = self._validate(epoch)
        measured |= {f"{name}_before_head": value for name, value in before.items()}
        measured |= {"train/loss": total / seen}
        if isinstance(self.task, Classification):
            measured |= {"train/acc": right / seen}
        if self.penalty is not None:
            measured |= self.penalty.end_epoch()
        if self.clipping is not None:
            measured |= self.clipping.end_epoch()
        self._end_epoch(epoch, batches, whole, measured)

    def _draw(self, epoch: int, number: int, batch: int) -> list[Tensor] | None:
        if not self.masks.widths:
            return None
        steps = [stream_seed(seed, "noise", epoch, number, 0) for seed in self.seeds]
        return self.masks.draw(steps, batch, self.dtype)

    def _update(self, each: Tensor) -> None:
        self.optimizer.zero_grad()
        each.sum().backward()  # type: ignore[no-untyped-call]
        if self.penalty is not None:
            self.penalty.act(self.net.parameters)
        if self.clipping is not None:
            self.clipping.act(self.net.parameters)
        groups = {k: v for k, v in self.first.optimizer.param_groups[0].items() if k != "params"}
        self.optimizer.param_groups[0].update(groups)
        self._lr = float(groups["lr"])
        if len(self._rates) < 2 and self._lr not in self._rates:
            self._rates.append(self._lr)
        self.optimizer.step()
        self.first.optimizer._opt_called = True  # type: ignore[attr-defined]  # for the scheduler, which looks
        self.step += 1
        self._schedule("step")

    def _schedule(self, interval: str) -> None:
        for config in [one for one in self.first.trainer.lr_scheduler_configs if one.interval == interval]:
            config.scheduler.step()  # type: ignore[call-arg]  # never one on a plateau

    def _validate(self, epoch: int) -> dict[str, Tensor]:
        metrics = self._measure()
        for index in self._alive:
            if not metrics["val/loss"][index].isfinite():
                self._diverge(index, epoch, f"the validation loss of epoch {epoch + 1}")
            cast(dict[str, int], self.replicates[index].cli.record.examples)["val"] = self.val.count
        return metrics

    def _measure(self) -> dict[str, Tensor]:
        size = max(self.val.batch_size, VALIDATE_AT_ONCE // len(self.replicates))
        with torch.no_grad():
            return evaluate(self.task, ((self.net(x), y) for x, y in self.val.in_order(size)))

    def _end_epoch(self, epoch: int, batches: int, whole: int, measured: dict[str, Tensor]) -> None:
        names = sorted([*measured, "lr"])
        # As torchmetrics keeps them: of weights in double precision its R2 alone is in double precision too.
        kept = {name: self.dtype if name == "val/r2" else torch.float32 for name in measured}
        measured = {name: value.to(kept[name]) for name, value in measured.items()}
        columns = {name: value.tolist() for name, value in measured.items()}
        fixed = {"epoch": epoch + 1, "step": self.step, "time_s": round(time.perf_counter() - self._started, 3)}
        finite = torch.stack([p.detach().flatten(1).isfinite().all(1) for p in self.net.parameters]).all(0).tolist()
        moment = self._moment(epoch, batches, batches == whole)
        better, alive = [], self._alive
        for index in alive:
            one = self.replicates[index]
            values = {name: self._lr if name == "lr" else columns[name][index] for name in names}
            row = {name: value if math.isfinite(value) else None for name, value in values.items()}
            tensors = {name: torch.tensor(self._lr) if name == "lr" else measured[name][index] for name in names}
            if one.add({**fixed, **row}, tensors):
                better.append(index)
            if not finite[index]:
                self._diverge(index, epoch, f"the state after step {self.step}")
        sound = [index for index in alive if self.replicates[index].error is None]  # those that stop here, too
        self.last.take(sound, moment)
        self.best.take([index for index in better if index in sound], moment)

    def _moment(self, epoch: int, batches: int, whole: bool) -> Moment:
        groups = {k: v for k, v in self.first.optimizer.param_groups[0].items() if k != "params"}
        configs = self.first.trainer.lr_scheduler_configs
        schedule = copy.deepcopy(configs[0].scheduler.state_dict()) if configs else {}
        rates = tuple(sorted(self._rates))
        return Moment(epoch + 1, self.step, batches, whole, self._lr, rates, groups, schedule)

    def _check(self, epoch: int) -> None:
        if self._losses:
            finite = torch.stack(self._losses).isfinite()  # (steps, n)
            first = self.step - len(self._losses) + 1
            self._losses = []
            if not bool(finite.all()):
                for index in self._alive:
                    bad = (~finite[:, index]).nonzero().flatten().tolist()
                    if bad:
                        self._diverge(index, epoch, f"the loss of step {first + bad[0]} (epoch {epoch + 1})")

    def _diverge(self, index: int, epoch: int, what: str) -> None:
        """Keep the error that the replicate's own guard would end it with."""
        one = self.replicates[index]
        with torch.no_grad():
            for parameter, stacked in zip(one.module.parameters(), self.net.parameters, strict=True):
                parameter.copy_(turned(stacked[index]))
                parameter.grad = None if stacked.grad is None else turned(stacked.grad[index])
        one.optimizer.param_groups[0]["lr"] = self.first.optimizer.param_groups[0]["lr"]
        guard = next(slot for slot in one.trainer.callbacks if isinstance(slot, NanGuard))  # type: ignore[attr-defined]
        one.error = guard._diverged(one.trainer, one.module, what)
        one.steps = self.step
