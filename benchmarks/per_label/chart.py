"""Learning curves as a static SVG picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from kilotune.evaluation.evidence import Figure

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 56, 220, 40, 48
# Okabe and Ito's, which the colour-blind tell apart; behind them the same in dashes.
COLOURS = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#d55e00", "#999999")
TEXT = 'font-family="sans-serif" font-size="12" fill="#333"'
LINE_HEIGHT = 16


@dataclass(frozen=True, slots=True)
class Line:
    """A system's figures by size; `number` is its place among all, which gives its colour."""

    title: str
    number: int
    points: Sequence[tuple[int, Figure]]


@dataclass(frozen=True, slots=True)
class Axes:
    """Sizes by their logarithm from left to right, figures from bottom to top."""

    sizes: Sequence[int]
    low: float
    high: float

    def x(self, size: int) -> float:
        """Where a size is."""
        first, last = math.log(self.sizes[0]), math.log(self.sizes[-1])
        part = (math.log(size) - first) / (last - first) if last > first else 0.5
        return LEFT + 12 + part * (WIDTH - LEFT - RIGHT - 24)

    def y(self, value: float) -> float:
        """Where a figure is."""
        part = (value - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)


def svg(title: str, lines: Sequence[Line]) -> str:
    """The picture: a line a system with the intervals, named in the order in which they end."""
    sizes = sorted({size for line in lines for size, _ in line.points})
    values = [v for line in lines for _, f in line.points for v in (f.low, f.high)]
    axes = Axes(sizes, math.floor(10 * min(values)) / 10, math.ceil(10 * max(values)) / 10)
    drawn = [_axes(axes), *(_line(axes, line) for line in lines)]
    ends = sorted(lines, key=lambda line: -line.points[-1][1].value)
    drawn += [_name(line, place) for place, line in enumerate(ends)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'role="img" aria-label="{escape(title)}">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
            f'<text x="{LEFT}" y="22" {TEXT} font-weight="bold">{escape(title)}</text>',
            *drawn,
            "</svg>\n",
        ]
    )


def _axes(axes: Axes) -> str:
    drawn = []
    for step in range(round(10 * axes.low), round(10 * axes.high) + 1):
        y = axes.y(step / 10)
        drawn.append(
            f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" {TEXT}>{step / 10:.1f}</text>'
        )
    for size in axes.sizes:
        place = f'x="{axes.x(size):.1f}" y="{HEIGHT - BOTTOM + 18}"'
        drawn.append(f'<text {place} text-anchor="middle" {TEXT}>{size}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    drawn.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle" {TEXT}>rows</text>')
    return "\n".join(drawn)


def _line(axes: Axes, line: Line) -> str:
    places = [(axes.x(size), figure) for size, figure in line.points]
    way = "L".join(f"{x:.1f} {axes.y(figure.value):.1f}" for x, figure in places)
    drawn = [f'<path d="M{way}" fill="none" stroke-width="2" {_stroke(line)}/>']
    for x, figure in places:
        bar = f"M{x:.1f} {axes.y(figure.low):.1f}V{axes.y(figure.high):.1f}"
        drawn.append(f'<path d="{bar}" stroke-opacity="0.4" {_stroke(line)}/>')
        drawn.append(f'<circle cx="{x:.1f}" cy="{axes.y(figure.value):.1f}" r="3" {_fill(line)}/>')
    return "\n".join(drawn)


def _name(line: Line, place: int) -> str:
    x, y = WIDTH - RIGHT + 16, TOP + 10 + place * LINE_HEIGHT
    value = line.points[-1][1].value
    return (
        f'<path d="M{x} {y - 4}H{x + 22}" stroke-width="2" {_stroke(line)}/>'
        f'<text x="{x + 28}" y="{y}" {TEXT}>{escape(line.title)} {value:.2f}</text>'
    )


def _stroke(line: Line) -> str:
    dashes = ' stroke-dasharray="5 3"' if line.number >= len(COLOURS) else ""
    return f'stroke="{COLOURS[line.number % len(COLOURS)]}"{dashes}'


def _fill(line: Line) -> str:
    return f'fill="{COLOURS[line.number % len(COLOURS)]}"'
