"""Dropout's random stream: the draws of a batch depend on the seed and the batch, not on what was drawn before."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_lab.runs.seeds import stream_seed


class NoiseStream(Callback):
    """Seed torch's global generators before each training step.

    Args:
        seed: The run's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed the step. The generators themselves: `torch.manual_seed` also looks for every kind of accelerator."""
        # By batch and not by optimiser step: accumulated batches must not share their masks.
        seed = stream_seed(self.seed, "noise", trainer.current_epoch, batch_idx, trainer.global_rank)
        torch.default_generator.manual_seed(seed)
        if pl_module.device.type == "cuda":
            torch.cuda.default_generators[pl_module.device.index or 0].manual_seed(seed)
