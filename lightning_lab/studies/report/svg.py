"""Parts of drawings as SVG: scales, ticks, paths. Colours and line styles are the page's business."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

#: Paths are drawn ten times as large, in whole numbers, and scaled down: short, and fine enough.
FINE = 10


@dataclass(frozen=True)
class Scale:
    """Map values to a stretch of the drawing.

    Args:
        low: Value at `start`.
        high: Value at `end`.
        start: Where it begins.
        end: Where it ends.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Place a value; far outside, at a finite distance, for renderers lose precision in large numbers."""
        if self.high == self.low:
            return (self.start + self.end) / 2
        share = (value - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * min(max(share, -9.0), 10.0)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Choose round values in a range.

    Example:
        >>> ticks(0, 1), ticks(0.91, 0.978, 4)
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.92, 0.94, 0.96])
    """
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    return [round(index * step, places) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_texts(values: Sequence[float], *, sign: bool = False) -> list[str]:
    """Write ticks with the decimals that tell them apart."""
    step = min((b - a for a, b in pairwise(values)), default=abs(values[0]) if values else 1.0)
    places = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    if places > 5 or any(abs(value) >= 1e5 for value in values):
        return [f"{value:.3g}".replace("-", "\N{MINUS SIGN}") for value in values]
    plus = "+" if sign else ""
    texts = [f"{value:{plus}.{places}f}" if value else "0" for value in values]
    return [text.replace("-", "\N{MINUS SIGN}") for text in texts]


def path(points: Sequence[tuple[float, float]], *, close: bool = False) -> str:
    """Draw through points, in steps from one to the next, which are short numbers."""
    whole = [(round(x * FINE), round(y * FINE)) for x, y in points]
    if not whole:
        return ""
    steps = [(bx - ax, by - ay) for (ax, ay), (bx, by) in pairwise(whole)] or [(0, 0)]
    drawn = "".join(f"{x}{y if y < 0 else f' {y}'}" if x < 0 else f" {x}{y if y < 0 else f' {y}'}" for x, y in steps)
    return f"M{whole[0][0]} {whole[0][1]}l{drawn.lstrip()}{'z' if close else ''}"


def text(x: float | str, y: float, words: str, kind: str, **attributes: str) -> str:
    """Write words into a drawing, escaped."""
    more = "".join(f' {name.replace("_", "-")}="{escape(value)}"' for name, value in attributes.items())
    place = x if isinstance(x, str) else f"{x:.1f}"
    return f'<text x="{place}" y="{y:.1f}" class="{kind}"{more}>{escape(words)}</text>'


def titled(id: str, title: str, description: str, attributes: str, content: str) -> str:
    """Make a drawing that says what it shows to those who do not see it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="{id}-t {id}-d" {attributes}>'
        f'<title id="{id}-t">{escape(title)}</title><desc id="{id}-d">{escape(description)}</desc>{content}</svg>'
    )
