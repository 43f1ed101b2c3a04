"""Tables, bars and line charts as HTML and SVG text, for pages that need no script to draw them.

Every text goes through `text` or `attribute`, so it is never markup. Colours are CSS variables of `marks.css`, which
also has the dark theme and the printed page. A mark is never told apart by its colour alone.
"""

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from minilm_np._checks import printable

WIDTH, HEIGHT = 960, 350  # of a chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 16, 36  # around its area


def text(value: object) -> str:
    """Return a text of the user, or of a file, as HTML: escaped, isolated from its surroundings' writing direction."""
    return f"<bdi>{html.escape(printable(str(value)))}</bdi>"


def attribute(value: object) -> str:
    """Return a text for an attribute, or for the title of a mark."""
    return html.escape(printable(str(value)))


@dataclass(frozen=True)
class Column:
    """A column of a table. numeric: aligned to the right, in digits of equal width."""

    title: str
    numeric: bool = False


def table(caption: str, columns: Sequence[Column], rows: Iterable[Sequence[str]], marked: Iterable[int] = ()) -> str:
    """Return a table. Cells are HTML. The first cell of a row is its header.

    marked: the numbers of the rows that are emphasised.
    """
    marked = set(marked)
    numeric = [' class="number"' if column.numeric else "" for column in columns]
    head = "".join(
        f'<th scope="col"{kind}>{html.escape(column.title)}</th>' for column, kind in zip(columns, numeric, strict=True)
    )
    body = []
    for number, (first, *others) in enumerate(rows):
        cells = "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(others, numeric[1:], strict=True))
        body.append(f'<tr{" class=marked" if number in marked else ""}><th scope="row"{numeric[0]}>{first}</th>{cells}')
    label = attribute(caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table class="marks">'
        f"<caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
        "</div>"
    )


def diverging_bar(value: float, largest: float, label: str) -> str:
    """Return a bar from the middle to the right for a positive value, to the left for a negative one."""
    length = 0.0 if largest <= 0 else min(1.0, abs(value) / largest) * 98
    x = 100 if value >= 0 else 100 - length
    sign = "positive" if value >= 0 else "negative"
    return (
        f'<svg class="bar" viewBox="0 0 200 14" role="img" aria-label="{attribute(label)}" preserveAspectRatio="none">'
        f'<line x1="100" y1="0" x2="100" y2="14" class="axis"/>'
        f'<rect x="{x:.2f}" y="2" width="{length:.2f}" height="10" class="{sign}"/></svg>'
    )


def log_bar(value: float, limit: float, low: float, high: float, label: str) -> str:
    """Return a bar on a logarithmic scale from low to high, with a mark at a limit."""

    def place(number: float) -> float:
        if not number > low:
            return 0.0
        return 200.0 if math.isinf(number) else 200.0 * min(1.0, math.log(number / low) / math.log(high / low))

    return (
        f'<svg class="bar" viewBox="0 0 200 14" role="img" aria-label="{attribute(label)}" preserveAspectRatio="none">'
        f'<rect x="0" y="4" width="{max(place(value), 1):.2f}" height="6" class="theirs"/>'
        f'<line x1="{place(limit):.2f}" y1="0" x2="{place(limit):.2f}" y2="14" class="limit"/></svg>'
    )


@dataclass(frozen=True)
class Series:
    """One line of a chart. kind: its class in `marks.css`, for colour and dashes. mark: "circle" or "diamond"."""

    name: str
    kind: str
    values: Sequence[float]
    mark: str | None = None


def log_chart(
    title: str, names: Sequence[str], groups: Sequence[tuple[str, int]], series: Sequence[Series], arrow: int | None,
    arrow_label: str,
) -> str:  # fmt: skip
    """Return a line chart with a logarithmic y axis, and names as x axis.

    groups: (label, how many names) of consecutive names, drawn as bands.
    arrow: the number of the name at which a vertical line is drawn, with its label.
    Zeros are drawn on the bottom line, infinities on the top line.
    """
    known = [value for one in series for value in one.values if 0 < value < math.inf]
    low = math.floor(math.log10(min(known, default=1e-8)))
    high = math.ceil(math.log10(max(known, default=1.0)))
    high = max(high, low + 2)
    area, depth = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(number: float) -> float:
        return LEFT + area * (number + 0.5) / max(1, len(names))

    def y(value: float) -> float:
        exponent = low if value <= 0 else high if math.isinf(value) else math.log10(value)
        return TOP + depth * (high - exponent) / (high - low)

    parts, start = [], 0
    for number, (label, count) in enumerate(groups):
        left, width = x(start - 0.5), x(start + count - 0.5) - x(start - 0.5)
        if number % 2 == 0:
            parts.append(f'<rect x="{left:.1f}" y="{TOP}" width="{width:.1f}" height="{depth}" class="band"/>')
        parts.append(
            f'<text x="{left + width / 2:.1f}" y="{HEIGHT - BOTTOM + 22}" class="tick" text-anchor="middle">'
            f"{html.escape(label)}</text>"
        )
        start += count
    for exponent in range(low, high + 1):
        height = TOP + depth * (high - exponent) / (high - low)
        parts.append(
            f'<line x1="{LEFT}" y1="{height:.1f}" x2="{WIDTH - RIGHT}" y2="{height:.1f}" class="grid"/>'
            f'<text x="{LEFT - 8}" y="{height + 4:.1f}" class="tick" text-anchor="end">1e{exponent}</text>'
        )
    if arrow is not None:
        side = "end" if arrow > len(names) * 0.7 else "start"
        shift = -6 if side == "end" else 6
        parts.append(
            f'<line x1="{x(arrow):.1f}" y1="{TOP}" x2="{x(arrow):.1f}" y2="{HEIGHT - BOTTOM}" class="arrow"/>'
            f'<text x="{x(arrow) + shift:.1f}" y="{TOP + 16}" class="label" text-anchor="{side}">'
            f"{html.escape(printable(arrow_label))}</text>"
        )
    for one in series:
        places = [(x(number), y(value)) for number, value in enumerate(one.values)]
        path = " ".join(f"{across:.1f},{down:.1f}" for across, down in places)
        parts.append(f'<polyline points="{path}" class="{one.kind}" fill="none"/>')
        if one.mark is not None:
            parts += [
                f"<g>{_mark(one.mark, across, down, one.kind)}<title>{attribute(f'{name}: {one.name} {value:.2e}')}"
                "</title></g>"
                for (across, down), name, value in zip(places, names, one.values, strict=True)
            ]
    legend = "".join(
        f'<li><svg viewBox="0 0 40 12" aria-hidden="true"><line x1="2" y1="6" x2="38" y2="6" class="{one.kind}"/>'
        f"{'' if one.mark is None else _mark(one.mark, 20, 6, one.kind)}</svg> {html.escape(one.name)}</li>"
        for one in series
    )
    return (
        f'<figure class="chart"><ul class="legend">{legend}</ul><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{attribute(title)}"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{attribute(title)}">{"".join(parts)}</svg></div></figure>'
    )


def _mark(mark: str, x: float, y: float, kind: str) -> str:
    if mark == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="{kind}"/>'
    points = f"{x:.1f},{y - 5:.1f} {x + 5:.1f},{y:.1f} {x:.1f},{y + 5:.1f} {x - 5:.1f},{y:.1f}"
    return f'<polygon points="{points}" class="{kind}"/>'
