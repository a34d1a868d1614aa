"""What an epoch has measured so far, in every checkpoint: an epoch that is interrupted ends with the same numbers."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_sum

from lightning_lab.runs.agreement import everyones


class EpochSoFar(Callback):
    """Save the sums of the module's metrics, of every process, and the values logged last.

    Lightning keeps neither. The metrics of a validation are left out: an interrupted one is done again.
    """

    def __init__(self) -> None:
        self._of_validation: set[str] = set()
        self._logged: dict[str, Tensor] = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note which metrics the validation is going to fill."""
        self._of_validation = {name for name, metric in _metrics(pl_module) if not metric.update_called}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget them: they are empty again."""
        self._of_validation = set()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Collect the sums, which only some or none of the processes may have. All processes take part."""
        own = {
            name: {state: getattr(metric, state).cpu() for state in metric._defaults}
            for name, metric in _metrics(pl_module)
            if metric.update_called and name not in self._of_validation
        }
        logged = {name: value.detach().cpu() for name, value in trainer.callback_metrics.items()}
        checkpoint["epoch_so_far"] = {"metrics": everyones(own), "logged": logged}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the sums up again: each process its own, or the first one all of them if their number has changed."""
        state = checkpoint.get("epoch_so_far", {"metrics": [{}], "logged": {}})
        everyone = state["metrics"]
        shares = [everyone[trainer.global_rank]] if len(everyone) == trainer.world_size else everyone
        if len(shares) > 1 and trainer.global_rank > 0:
            shares = []
        for name, metric in _metrics(pl_module):
            for share in shares:
                for one, value in share.get(name, {}).items():
                    getattr(metric, one).add_(value.to(metric.device))
                    metric._update_count = 1
        self._logged = state["logged"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the logged values up again, for those who look at the last ones: schedules, early stopping."""
        if self._logged:
            values = {name: value.to(pl_module.device) for name, value in self._logged.items()}
            trainer._logger_connector._callback_metrics.update(values)
            self._logged = {}


def _metrics(module: torch.nn.Module) -> list[tuple[str, Metric]]:
    # Those whose state is a sum: others (lists of all predictions, say) cannot be added up over processes.
    found = [(name, part) for name, part in module.named_modules() if isinstance(part, Metric)]
    return [(name, metric) for name, metric in found if set(metric._reductions.values()) == {dim_zero_sum}]
