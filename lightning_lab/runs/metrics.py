"""What is known of a metric from its name. Free of torch."""

from __future__ import annotations

from typing import Literal


def better(metric: str) -> Literal["min", "max"]:
    """Tell which way a metric improves: ``"max"`` for accuracies and R2, ``"min"`` for the rest.

    Example:
        >>> better("val/acc"), better("val/loss")
        ('max', 'min')
    """
    return "max" if any(part in metric for part in ("acc", "top5", "r2")) else "min"
