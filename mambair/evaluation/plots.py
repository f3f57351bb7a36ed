"""Scatter plots as SVG text, without any library: one quality against one cost on a logarithmic axis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 120, 28, 44
LINE, LETTER = 12, 6.5  # height of a label and width of its letters, in pixels
RADIUS = 4
MARGIN = 0.08  # of the range of values, free at each side


@dataclass(frozen=True)
class Point:
    """One method: ``x`` > 0 is its cost, ``y`` its quality; printed ones are drawn hollow."""

    label: str
    x: float
    y: float
    printed: bool = False


def scatter(points: Sequence[Point], *, title: str, x_label: str, y_label: str) -> str:
    """An ``<svg>`` element; points that are not finite are left out. Empty without points."""
    points = [p for p in points if math.isfinite(p.y) and math.isfinite(p.x) and p.x > 0]
    if not points:
        return ""
    place_x = _scale([math.log10(p.x) for p in points], LEFT, WIDTH - RIGHT, least=0.3)
    place_y = _scale([p.y for p in points], HEIGHT - BOTTOM, TOP, least=0.2)
    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">',
        f'<text x="{LEFT}" y="16" class="title">{escape(title)}</text>',
        f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH - RIGHT - LEFT}" height="{HEIGHT - BOTTOM - TOP}" class="frame"/>',
        *_x_axis(points, place_x, x_label),
        *_y_axis(points, place_y, y_label),
        *_marks(points, place_x, place_y),
        "</svg>",
    ]
    return "\n".join(parts)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, about ``count`` of them."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def logarithmic_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten from ``low`` to ``high``; the ends themselves where there are none."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
    return [value for value in found if low <= value <= high] or [low]


def short(value: float) -> str:
    """``905K``, ``20.6M``, ``0.05``."""
    for limit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "K")):
        if value >= limit:
            return f"{value / limit:.3g}{sign}"
    return f"{value:.3g}"


def _scale(values: Sequence[float], start: float, stop: float, *, least: float) -> Callable[[float], float]:
    """From values to pixels, with a margin; a range below ``least`` is widened to it."""
    low, high = _bounds(values, least)
    return lambda value: start + (value - low) / (high - low) * (stop - start)


def _bounds(values: Sequence[float], least: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    lacking = max(0.0, least - (high - low)) / 2
    margin = max(high - low, least) * MARGIN
    return low - lacking - margin, high + lacking + margin


def _x_axis(points: Sequence[Point], place: Callable[[float], float], label: str) -> list[str]:
    low, high = _bounds([math.log10(p.x) for p in points], 0.3)
    base = HEIGHT - BOTTOM
    parts = []
    for value in logarithmic_ticks(10**low, 10**high):
        x = place(math.log10(value))
        parts.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{base}" class="grid"/>')
        parts.append(f'<text x="{x:.1f}" y="{base + 14}" class="tick" text-anchor="middle">{short(value)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [*parts, f'<text x="{middle}" y="{HEIGHT - 10}" class="axis" text-anchor="middle">{escape(label)}</text>']


def _y_axis(points: Sequence[Point], place: Callable[[float], float], label: str) -> list[str]:
    low, high = _bounds([p.y for p in points], 0.2)
    parts = []
    for value in ticks(low, high):
        y = place(value)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" class="tick" text-anchor="end">{value:.5g}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = f'<text x="14" y="{middle}" class="axis" text-anchor="middle" transform="rotate(-90 14 {middle})">'
    return [*parts, f"{turned}{escape(label)}</text>"]


def _marks(points: Sequence[Point], place_x: Callable[[float], float], place_y: Callable[[float], float]) -> list[str]:
    """Circles and their labels, which lie upon no circle and no other label."""
    parts = []
    places = {point: (place_x(math.log10(point.x)), place_y(point.y)) for point in points}
    taken = [_Box(x - RADIUS, x + RADIUS, y + 4) for x, y in places.values()]
    for point in sorted(points, key=lambda p: -p.y):
        x, y = places[point]
        kind = "printed" if point.printed else "measured"
        told = f"{point.label}: {short(point.x)}, {point.y:.2f}"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}" class="{kind}"><title>{escape(told)}</title></circle>'
        )
        box = next(box for box in _beside(x, y, LETTER * len(point.label)) if all(map(box.is_clear_of, taken)))
        taken.append(box)
        place = f'x="{box.left:.1f}"' if box.left > x else f'x="{box.right:.1f}" text-anchor="end"'
        parts.append(f'<text {place} y="{box.baseline:.1f}" class="label">{escape(point.label)}</text>')
    return parts


@dataclass(frozen=True)
class _Box:
    """What a line of text or a circle covers, in pixels."""

    left: float
    right: float
    baseline: float

    def is_clear_of(self, other: _Box) -> bool:
        return self.right < other.left or self.left > other.right or abs(self.baseline - other.baseline) >= LINE


def _beside(x: float, y: float, width: float) -> Iterator[_Box]:
    """Where a label may stand, the best first: right or left of its circle, then above and below, ever farther."""
    gap = RADIUS + 3
    for step in itertools.count():
        for sign in (1, -1) if step else (1,):
            baseline = y + 4 + sign * step * LINE / 4
            yield _Box(x + gap, x + gap + width, baseline)
            if x - gap - width > LEFT:
                yield _Box(x - gap - width, x - gap, baseline)
