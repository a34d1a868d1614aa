"""The scale of 16-mixed gradients, and who takes it off: fused optimisers do it within their step, behind callbacks."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

from lightning_lab.runs.errors import InputError


def remaining_scale(trainer: Trainer) -> float:
    """Tell by what the gradients that a callback sees are multiplied: 1 but in 16-mixed with a fused optimiser."""
    scaler = _scaler_of_the_step(trainer)
    return 1.0 if scaler is None else float(scaler.get_scale())


def check_unscaled(trainer: Trainer, slot: str) -> None:
    """Refuse to change gradients where they are still scaled.

    Args:
        trainer: With its optimisers.
        slot: What would change them.

    Raises:
        InputError: If they are.
    """
    if _scaler_of_the_step(trainer) is not None:
        raise InputError(
            f"`{slot}` cannot act in `trainer.precision` 16-mixed with a fused optimiser, which takes the scale off "
            "the gradients itself. Set --model.optimizer.fused false, or --trainer.precision bf16-mixed."
        )


def _scaler_of_the_step(trainer: Trainer) -> Any:
    in_step = any(getattr(optimizer, "_step_supports_amp_scaling", False) for optimizer in trainer.optimizers)
    return getattr(trainer.precision_plugin, "scaler", None) if in_step else None
