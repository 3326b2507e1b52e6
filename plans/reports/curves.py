"""Curves over the steps of a run as SVG text: one line a series, with axes and a legend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import isfinite

from plans.reports.words import number
from plans.values import frozen

WIDTH, HEIGHT = 860, 220
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 10, 46
TICKS = 4
COLOURS = 10
LETTER_WIDTH = 7
# A curve of more points than pixels is thinned: each point drawn is the mean of its steps.
MOST_POINTS = 400


@frozen
class Curve:
    """A series: its name, and (step, value) in the order of steps."""

    name: str
    points: tuple[tuple[float, float], ...]


def curves(title: str, unit: str, series: Sequence[Curve]) -> str:
    """The curves as an <svg>; a text instead when there is nothing to draw."""
    drawn = [_thinned(one) for one in series]
    points = [point for one in drawn for point in one.points]
    if not points:
        return f"<p>{escape(title)}: nothing measured</p>"
    low_x, high_x = _range([x for x, _ in points], flat=False)
    low_y, high_y = _range([y for _, y in points])
    lines = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
    ]
    for index in range(TICKS + 1):
        share = index / TICKS
        y = HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
        x = LEFT + share * (WIDTH - LEFT - RIGHT)
        value, step = low_y + share * (high_y - low_y), low_x + share * (high_x - low_x)
        lines += [
            f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>',
            f'<text class="label tick-y" x="{LEFT - 6}" y="{y + 4:.1f}">{_mark(value)}</text>',
            f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}">{step:.0f}</text>',
        ]
    for index, one in enumerate(drawn):
        places = " ".join(
            f"{_place(x, low_x, high_x, LEFT, WIDTH - RIGHT):.1f},"
            f"{_place(y, low_y, high_y, HEIGHT - BOTTOM, TOP):.1f}"
            for x, y in one.points
        )
        colour = f"stroke: var(--c{index % COLOURS})"
        lines.append(f'<polyline class="curve" style="{colour}" points="{places}"/>')
    return "\n".join((*lines, *_legend(drawn, unit), "</svg>"))


def _thinned(curve: Curve) -> Curve:
    """At most MOST_POINTS finite points."""
    points = [point for point in curve.points if isfinite(point[1])]
    size = -(-len(points) // MOST_POINTS) or 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    means = tuple(
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    )
    return Curve(name=curve.name, points=means)


def _range(values: Sequence[float], *, flat: bool = True) -> tuple[float, float]:
    """The least and the most; with `flat`, a flat curve stands in the middle."""
    low, high = min(values), max(values)
    if high > low:
        return low, high
    room = abs(low) / 2 or 1.0
    return (low - room, high + room) if flat else (low, high + 1)


def _place(value: float, low: float, high: float, start: float, end: float) -> float:
    return start + (end - start) * (value - low) / (high - low)


def _mark(value: float) -> str:
    return f"-{number(-value)}" if value < 0 else number(value)


def _legend(series: Sequence[Curve], unit: str) -> Iterator[str]:
    """Names below the axis, with the unit in front."""
    y, x = HEIGHT - 12, LEFT
    if unit:
        yield f'<text class="legend" x="{x}" y="{y}">{escape(unit)}</text>'
        x += LETTER_WIDTH * len(unit) + 24
    for index, one in enumerate(series):
        yield (
            f'<rect class="c{index % COLOURS}" x="{x}" y="{y - 9}" width="12" height="10"/>'
            f'<text class="legend" x="{x + 17}" y="{y}">{escape(one.name)}</text>'
        )
        x += 40 + LETTER_WIDTH * len(one.name)
