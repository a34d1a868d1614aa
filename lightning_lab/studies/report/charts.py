"""Learning curves as drawings, one scale for all arms, so that they can be compared by eye."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_lab.studies.cells import CellResult
from lightning_lab.studies.report import svg
from lightning_lab.studies.report.curves import Band, Line, band_of, line_of, smooth, thin
from lightning_lab.studies.report.results import Comparison

_WIDTH, _HEIGHT = 360, 220
_X, _Y = (46, 350), (190, 22)
#: Points of a mean; of a single run, as many as keep the page small: all of them together get so many letters.
_MOST_POINTS, _FEWEST_POINTS = 100, 10
_LETTERS_OF_RUNS, _LETTERS_OF_POINT = 600_000, 6
#: Share of the epochs that the scale is not made for.
_EARLY = 0.2


@dataclass(frozen=True)
class _Arm:
    counted: Sequence[Line]
    left_out: Sequence[Line]
    raw: Band
    smooth: Band


def charts_of(comparison: Comparison) -> dict[str, list[str]]:
    """Draw the curves of each arm: the study's metric, and the loss if it is another.

    Returns:
        Drawings by arm; none for an arm without any curve.
    """
    tags = list(dict.fromkeys([comparison.study.metric.removeprefix("val/"), "loss"]))
    drawings: dict[str, list[str]] = {arm.name: [] for arm in comparison.arms}
    runs = sum(bool(result.rows) for result in comparison.results)
    points = _LETTERS_OF_RUNS // max(1, 4 * len(tags) * runs * _LETTERS_OF_POINT)
    for number, tag in enumerate(tags):
        arms = {arm.name: {part: _lines(comparison, arm.name, f"{part}/{tag}") for part in ("train", "val")}
                for arm in comparison.arms}  # fmt: skip
        scales = _scales([one for parts in arms.values() for one in parts.values()])
        if scales is None:
            continue
        for index, (name, parts) in enumerate(arms.items()):
            if any(one.counted or one.left_out for one in parts.values()):
                reference = None if name == comparison.study.reference else arms[comparison.study.reference]["val"]
                most = min(max(points, _FEWEST_POINTS), _MOST_POINTS)
                drawings[name].append(_draw(f"c{number}-{index}", name, tag, parts, reference, scales, most))
    return drawings


def _lines(comparison: Comparison, arm: str, metric: str) -> _Arm:
    def lines(results: Sequence[CellResult]) -> list[Line]:
        return [line for result in results if (line := line_of(result.rows, metric))]

    counted = lines([result for result in comparison.of(arm) if comparison.is_counted(result)])
    left_out = lines([result for result in comparison.of(arm) if not comparison.is_counted(result)])
    return _Arm(counted, left_out, band_of(counted), band_of([smooth(line) for line in counted]))


def _scales(arms: Sequence[_Arm]) -> tuple[svg.Scale, svg.Scale] | None:
    lines = [line for arm in arms for line in (*arm.counted, *arm.left_out)]
    if not lines:
        return None
    epochs = [epoch for line in lines for epoch, _ in line]
    bands = [arm.raw for arm in arms]
    # The first epochs go far, and would press flat what is to be compared.
    first = _EARLY * max(epochs)
    late = [value for band in bands for value in band.mean[band.epochs > first].tolist()]
    # Without a mean all runs are unfinished, or diverged with their last value.
    values = np.array(late or [value for line in lines for _, value in line[:-1] or line])
    # Nor is an arm that goes astray to do so.
    q05, q95 = (float(q) for q in np.quantile(values, [0.05, 0.95]))
    reach = 2.5 * (q95 - q05) or math.inf
    low, high = max(float(values.min()), q05 - reach), min(float(values.max()), q95 + reach)
    pad = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return svg.Scale(min(epochs), max(epochs), *_X), svg.Scale(low - pad, high + pad, *_Y)


def _draw(
    id: str, arm: str, tag: str, parts: dict[str, _Arm], reference: _Arm | None,
    scales: tuple[svg.Scale, svg.Scale], points: int,
) -> str:  # fmt: skip
    x, y = scales
    content = [f'<clipPath id="{id}-c"><rect x="{_X[0]}" y="{_Y[1] - 4}" width="{_X[1] - _X[0] + 4}"'
               f' height="{_Y[0] - _Y[1] + 4}"/></clipPath>']  # fmt: skip
    content += _axes(x, y, tag)
    curves: list[str] = []
    for part, one in parts.items():
        curves += [f'<path class="band {part} raw" d="{d}"/>' for d in _areas(one.raw, x, y)]
        curves += [f'<path class="band {part} smooth" d="{d}"/>' for d in _areas(one.smooth, x, y)]
    for part, one in parts.items():
        runs = [("", line) for line in one.counted] + [(" out", line) for line in one.left_out]
        for kind, line in runs:
            for state, drawn in (("raw", line), ("smooth", smooth(line))):
                curves.append(f'<path class="single {part}{kind} {state}" d="{_line(drawn, x, y, points)}"/>')
    if reference is not None:
        curves += _means("reference", reference, x, y)
    for part, one in parts.items():
        curves += _means(part, one, x, y)
    content.append(f'<g clip-path="url(#{id}-c)"><g transform="scale({1 / svg.FINE})">{"".join(curves)}</g></g>')
    box = f'class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    return svg.titled(id, f"{tag} of {arm}", _described(tag, parts), box, "".join(content))


def _axes(x: svg.Scale, y: svg.Scale, tag: str) -> Iterator[str]:
    values = svg.ticks(y.low, y.high, 5)
    for value, words in zip(values, svg.tick_texts(values), strict=True):
        yield f'<line class="grid" x1="{_X[0]}" x2="{_X[1]}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        yield svg.text(_X[0] - 6, y(value) + 3.5, words, "tick", text_anchor="end")
    yield f'<line class="base" x1="{_X[0]}" x2="{_X[1]}" y1="{_Y[0]}" y2="{_Y[0]}"/>'
    values = [value for value in svg.ticks(x.low, x.high, 6) if value == int(value)]
    # The first epoch is 1, which no round step meets.
    values = [x.low, *(value for value in values if x(value) - x(x.low) > 26)]
    for value, words in zip(values, [f"{value:.0f}" for value in values], strict=True):
        yield svg.text(x(value), _Y[0] + 14, words, "tick", text_anchor="middle")
    yield svg.text(_X[1], _Y[0] + 27, "epoch", "tick", text_anchor="end")
    yield svg.text(_X[0], 11, tag, "name")


def _areas(band: Band, x: svg.Scale, y: svg.Scale) -> Iterator[str]:
    kept = thin(len(band.epochs), _MOST_POINTS)
    stretch: list[int] = []
    for index in [*kept, None]:
        if index is not None and math.isfinite(band.low[index]):
            stretch.append(index)
        elif stretch:
            upper = [(x(band.epochs[i]), y(band.high[i])) for i in stretch]
            lower = [(x(band.epochs[i]), y(band.low[i])) for i in reversed(stretch)]
            yield svg.path([*upper, *lower], close=True)
            stretch = []


def _means(kind: str, arm: _Arm, x: svg.Scale, y: svg.Scale) -> Iterator[str]:
    for state, band in (("raw", arm.raw), ("smooth", arm.smooth)):
        line = list(zip(band.epochs.tolist(), band.mean.tolist(), strict=True))
        if line:
            yield f'<path class="line {kind} {state}" d="{_line(line, x, y, _MOST_POINTS)}"/>'


def _line(line: Line, x: svg.Scale, y: svg.Scale, points: int) -> str:
    return svg.path([(x(line[index][0]), y(line[index][1])) for index in thin(len(line), points)])


def _described(tag: str, parts: dict[str, _Arm]) -> str:
    told = []
    for part, name in (("train", "training"), ("val", "validation")):
        band = parts[part].raw
        if len(band.mean):
            ends = (
                f"from {band.mean[0]:.4g} in epoch {band.epochs[0]} to {band.mean[-1]:.4g} in epoch {band.epochs[-1]}"
            )
            told.append(f"Mean {name} {tag} over {len(parts[part].counted)} runs goes {ends}.")
    return " ".join(told) or f"No run of this arm is in the mean of {tag}."
