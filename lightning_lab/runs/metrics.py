"""What is known of a metric from its name. Free of torch."""

from __future__ import annotations

from typing import Literal

_LARGE, _SMALL = ("acc", "top5", "r2"), ("loss", "mae", "error")


def better(metric: str) -> Literal["min", "max"]:
    """Tell which way a metric improves: ``"max"`` for accuracies and R2, ``"min"`` for the rest.

    Example:
        >>> better("val/acc"), better("val/loss")
        ('max', 'min')
    """
    return "max" if any(part in metric for part in _LARGE) else "min"


def is_known(metric: str) -> bool:
    """Tell whether its name says which way a metric improves; `better` takes those of others to be losses.

    Example:
        >>> is_known("val/mae"), is_known("val/kappa")
        (True, False)
    """
    return any(part in metric for part in (*_LARGE, *_SMALL))
