"""The forest plot: every arm's difference to the reference, with its interval, on one axis.

A row for each arm: its name, its strip of the plot, its numbers. The strips are drawn in percent of their width, so
that letters and points keep their size on every screen; on a narrow one the page puts a strip below its name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_lab.studies.report import svg
from lightning_lab.studies.report.blocks import Forest, ForestRow, marked
from lightning_lab.studies.report.formats import Format
from lightning_lab.studies.report.results import Comparison
from lightning_lab.studies.statistics import Difference

_HEIGHT = 36
#: Ends of the axis, in percent of the width.
_LEFT, _RIGHT = 2.0, 98.0
#: An interval this many times as long as the middle one (two seeds make such) does not set the axis, but leaves it.
_LONG = 6.0


def forest(comparison: Comparison, write: Format, caption: str) -> Forest | None:
    """Draw the differences; None if there is none.

    Args:
        comparison: The study's results.
        write: How the metric is written.
        caption: What is to be seen.
    """
    study = comparison.study
    found = [(arm.name, arm.difference) for arm in comparison.arms if arm.difference is not None]
    known = [(name, difference) for name, difference in found if math.isfinite(difference.mean)]
    if not known:
        return None
    scale = _scale([difference for _, difference in known], study.margin)
    ground = _ground(scale, study.margin)
    rows = []
    for index, (name, difference) in enumerate(known):
        interval = write.interval(difference.low, difference.high, signed=True)
        numbers = f"{write.signed(difference.mean)} {interval if math.isfinite(difference.low) else ''}".rstrip()
        description = f"{name} minus {study.reference}: {numbers}, {difference.verdict}"
        strip = f'class="strip" width="100%" height="{_HEIGHT}"'
        drawing = svg.titled(f"f{index}", name, description, strip, ground + _strip(difference, scale))
        rows.append(ForestRow(name, drawing, numbers, marked(difference.verdict)))
    larger, smaller = ("better", "worse") if study.goal == "max" else ("worse", "better")
    return Forest(rows, _axis(scale, study.metric), f"← {smaller}", f"{larger} →", caption)


def _ground(scale: svg.Scale, margin: float | None) -> str:
    parts = []
    if margin is not None:
        left, right = max(scale(-margin), _LEFT), min(scale(margin), _RIGHT)
        parts.append(f'<rect class="margin" x="{left:.2f}%" y="0" width="{right - left:.2f}%" height="{_HEIGHT}"/>')
    for value in svg.ticks(scale.low, scale.high):
        x, kind = f"{scale(value):.2f}%", "zero" if value == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{x}" x2="{x}" y1="0" y2="{_HEIGHT}"/>')
    return "".join(parts)


def _strip(difference: Difference, scale: svg.Scale) -> str:
    y, parts = _HEIGHT / 2, []
    if math.isfinite(difference.low):
        ends = [scale(difference.low), scale(difference.high)]
        left, right = max(ends[0], _LEFT), min(ends[1], _RIGHT)
        parts.append(f'<line class="interval" x1="{left:.2f}%" x2="{right:.2f}%" y1="{y}" y2="{y}"/>')
        for end, cut, arrow in ((left, ends[0] < _LEFT, "‹"), (right, ends[1] > _RIGHT, "›")):
            if cut:
                parts.append(svg.text(f"{end:.2f}%", y + 5, arrow, "cut", text_anchor="middle"))
            else:
                parts.append(f'<line class="interval" x1="{end:.2f}%" x2="{end:.2f}%" y1="{y - 4}" y2="{y + 4}"/>')
    # Filled where there is a verdict, hollow where there is none; the words beside it say it too.
    kind = difference.verdict.split()[0]
    parts.append(f'<circle class="point {kind}" cx="{scale(difference.mean):.2f}%" cy="{y}" r="5"/>')
    return "".join(parts)


def _axis(scale: svg.Scale, metric: str) -> str:
    values = svg.ticks(scale.low, scale.high)
    # Near the ends a number would leave the strip.
    placed = [(value, words) for value, words in zip(values, svg.tick_texts(values, sign=True), strict=True)]
    labels = "".join(
        svg.text(f"{scale(value):.2f}%", 14, words, "tick", text_anchor=_anchor(scale(value)))
        for value, words in placed
    )
    title = f"Axis: difference in {metric}"
    described = f"From {placed[0][1]} to {placed[-1][1]}" if placed else ""
    return svg.titled("fa", title, described, 'class="strip" width="100%" height="18"', labels)


def _anchor(x: float) -> str:
    return "start" if x < 4 else "end" if x > 96 else "middle"


def _scale(differences: Sequence[Difference], margin: float | None) -> svg.Scale:
    lengths = sorted(d.high - d.low for d in differences if math.isfinite(d.low))
    longest = _LONG * lengths[(len(lengths) - 1) // 2] if lengths else math.inf
    ends = [d.mean for d in differences] + [0.0]
    for d in differences:
        if math.isfinite(d.low):
            ends += [max(d.low, d.mean - longest / 2), min(d.high, d.mean + longest / 2)]
    if margin is not None:
        ends += [-margin, margin]
    low, high = min(ends), max(ends)
    pad = 0.06 * (high - low) or 1.0
    return svg.Scale(low - pad, high + pad, _LEFT, _RIGHT)
