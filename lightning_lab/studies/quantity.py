"""What a claim measures of a run: a metric, at the end or in an epoch, or what is computed from it. Free of torch.

===========================  =========================================================================================
``val/acc``                  after the last epoch
``val/loss@5``               after epoch 5
``log10(val/loss)``          its logarithm, for losses that span decades: a difference of 0.3 is a factor of two
``jitter(val/loss)``         root mean square of its change from epoch to epoch in the second half of the run
``val/loss - train/loss``    the gap between two of them, or ``val/loss@6 - val/loss@5``, a drop
===========================  =========================================================================================

Accuracies and R2 are better when large; everything else is better when small, gaps and jitter of accuracies too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from lightning_lab.runs import metrics

#: What is measured of a run beside its losses and metrics.
OTHER = ("lr", "grad_norm", "grad_norm_clipped", "clipped_frac", "time_s")
_NAME = rf"(?:(?:train|val)/\w+|{'|'.join(OTHER)})"
_AT = r"(?:@(?P<{}>[1-9]\d*))?"
_TERM = re.compile(
    rf"(?P<name>{_NAME}){_AT.format('epoch')}|log10\((?P<log10>{_NAME}){_AT.format('log10_epoch')}\)|"
    rf"jitter\((?P<jitter>{_NAME})\)"
)
_MINUS = " - "


@dataclass(frozen=True)
class _Term:
    metric: str
    epoch: int | None = None
    function: Literal["log10", "jitter"] | None = None

    def of(self, rows: Sequence[Mapping[str, Any]]) -> float | None:
        # Not every epoch need have a validation.
        measured = [row for row in rows if self.metric in row]
        if self.function == "jitter":
            return _jitter([row[self.metric] for row in measured])
        if self.epoch is not None:
            measured = [row for row in measured if row.get("epoch") == self.epoch]
        value = measured[-1][self.metric] if measured else None
        if value is None or (self.function == "log10" and value <= 0):
            return None
        return math.log10(value) if self.function == "log10" else float(value)


@dataclass(frozen=True)
class Quantity:
    """A number of a run.

    Args:
        text: As it is written in a study file.
        terms: One, or two of which the second is subtracted.

    Example:
        >>> gap = quantity("val/loss - train/loss")
        >>> gap.of([{"epoch": 1, "val/loss": 0.75, "train/loss": 0.5}]), gap.better
        (0.25, 'min')
    """

    text: str
    terms: tuple[_Term, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that it is made of."""
        return tuple(term.metric for term in self.terms)

    @property
    def better(self) -> Literal["min", "max"]:
        """Which way it improves."""
        plain = len(self.terms) == 1 and self.terms[0].function != "jitter"
        return metrics.better(self.terms[0].metric) if plain else "min"

    def of(self, rows: Sequence[Mapping[str, Any]]) -> float | None:
        """Compute it.

        Args:
            rows: Of metrics.jsonl.

        Returns:
            The number, or None if a part of it was not measured or not finite.
        """
        values = [term.of(rows) for term in self.terms]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        return known[0] - math.fsum(known[1:])


def quantity(text: str) -> Quantity:
    """Read a quantity.

    Args:
        text: For example ``val/loss@6 - val/loss@5``.

    Raises:
        ValueError: If it is none.
    """
    terms: list[_Term] = []
    for part in text.split(_MINUS):
        match = _TERM.fullmatch(part.strip())
        if match is None or len(terms) == 2:
            raise ValueError(
                f"must be a validation or training metric such as val/acc, in an epoch (val/loss@5), its "
                f"log10(val/loss) or jitter(val/loss), or the difference of two (val/loss - train/loss), got {text!r}."
            )
        functions: tuple[Literal["log10", "jitter"], ...] = ("log10", "jitter")
        function = next((name for name in functions if match[name]), None)
        epoch = match["epoch"] or match["log10_epoch"]
        terms.append(_Term(match[function or "name"], int(epoch) if epoch else None, function))
    return Quantity(text, tuple(terms))


def _jitter(values: Sequence[float | None]) -> float | None:
    half = values[len(values) // 2 :]
    known = [float(value) for value in half if value is not None]
    if len(known) < 2 or len(known) < len(half):
        return None
    changes = [after - before for before, after in pairwise(known)]
    return math.sqrt(math.fsum(change**2 for change in changes) / len(changes))
