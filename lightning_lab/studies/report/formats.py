"""How numbers are written in a report: as many decimals as their spread makes meaningful, true minus signs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

#: What stands where there is no number.
NOTHING = "–"
_MINUS = "\N{MINUS SIGN}"
_MOST_PLACES = 6


class Format:
    """Write the values of one metric, all with the same number of decimals, or, if they span decades, of digits.

    Args:
        values: The values that will be written.
        spreads: Standard deviations; the middle one gets two significant digits.

    Example:
        >>> write = Format([0.97, 0.98], [0.0032, 0.0041])
        >>> write(0.97123), write.signed(-0.00417), write.interval(0.9681, 0.9744)
        ('0.9712', '−0.0042', '[0.9681, 0.9744]')
        >>> write = Format([1.63, 0.000237], [0.06, 0.00005, 0.04])
        >>> write(1.6258), write(0.00023712)
        ('1.63', '0.000237')
    """

    def __init__(self, values: Iterable[float], spreads: Iterable[float]) -> None:
        known = sorted(spread for spread in spreads if math.isfinite(spread) and spread > 0)
        sizes = [abs(value) for value in values if math.isfinite(value)]
        largest = max(sizes, default=1.0)
        self.places: int | None = 4
        if known:
            self.places = min(max(1 - math.floor(math.log10(known[len(known) // 2])), 0), _MOST_PLACES)
        if largest >= 1e6 or 0 < largest < 1e-3:
            self.places = None  # powers of ten say it shorter
        elif self.places is not None:
            smallest = min((size for size in sizes if size > 0), default=1.0)
            if smallest < 10 ** (1 - self.places) and largest > 100 * smallest:
                self.places = None  # no number of decimals shows both

    def __call__(self, value: float | None) -> str:
        """Write a value; a dash where there is none."""
        if value is None or not math.isfinite(value):
            return NOTHING
        text = f"{value:.3g}" if self.places is None else f"{value:.{self.places}f}"
        return text.replace("-", _MINUS)

    def signed(self, value: float | None) -> str:
        """Write a difference, with its sign."""
        text = self(value)
        if not re.search("[1-9]", text):  # a zero, or nothing
            return text.removeprefix(_MINUS)
        return text if text.startswith(_MINUS) else f"+{text}"

    def interval(self, low: float, high: float, *, signed: bool = False) -> str:
        """Write an interval; a dash where there is none."""
        if not (math.isfinite(low) and math.isfinite(high)):
            return NOTHING
        write = self.signed if signed else self
        return f"[{write(low)}, {write(high)}]"


def p_value(p: float) -> str:
    """Write a p-value with three decimals.

    Example:
        >>> p_value(0.0123), p_value(0.00001)
        ('0.012', '< 0.001')
    """
    if not math.isfinite(p):
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def effect_size(value: float) -> str:
    """Write an effect size with its sign.

    Example:
        >>> effect_size(-1.234)
        '−1.23'
    """
    return f"{value:+.2f}".replace("-", _MINUS) if math.isfinite(value) else NOTHING


def plural(count: int, word: str, words: str | None = None) -> str:
    """Count things.

    Example:
        >>> plural(1, "arm"), plural(3, "study", "studies")
        ('1 arm', '3 studies')
    """
    return f"{count} {word if count == 1 else words or word + 's'}"


def listing(names: Sequence[str], most: int = 6) -> str:
    """Join names; of many, only the first ones.

    Example:
        >>> listing(["a", "b", "c"]), listing(["a", "b", "c", "d"], most=2)
        ('a, b and c', 'a, b and 2 more')
    """
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1] if names else ""]))


def seeds_text(seeds: Sequence[int]) -> str:
    """Word the seeds, a run of them by its ends.

    Example:
        >>> seeds_text([0, 1, 2, 3]), seeds_text([7]), seeds_text([1, 5])
        ('seeds 0 to 3', 'seed 7', 'seeds 1 and 5')
    """
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' if len(seeds) != 1 else ''} {listing([str(seed) for seed in seeds])}"
