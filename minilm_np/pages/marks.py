"""Charts on logarithmic scales as SVG, drawn without a script. Their colours are in `marks.css`.

Shapes and dashes tell the marks apart without colour. Texts are escaped by `element`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minilm_np.pages.components import Html, element

WIDTH, HEIGHT = 960, 350  # of a chart, in units of its own scale
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 16, 36  # around its area


@dataclass(frozen=True)
class Series:
    """One line of a chart. kind: its class in `marks.css`, for colour and dashes. mark: "circle", "diamond", ""."""

    name: str
    kind: str
    values: Sequence[float]
    mark: str = ""


def log_bar(value: float, limit: float, low: float, high: float, label: str) -> Html:
    """Return a bar on a logarithmic scale from low to high, with an upright line at a limit."""

    def place(number: float) -> float:
        if not number > low:
            return 0.0
        return 200.0 if math.isinf(number) else 200.0 * min(1.0, math.log(number / low) / math.log(high / low))

    at = f"{place(limit):.2f}"
    return element(
        "svg",
        element("rect", class_="theirs", x="0", y="4", width=f"{max(place(value), 1):.2f}", height="6"),
        element("line", class_="limit", x1=at, y1="0", x2=at, y2="14"),
        class_="log-bar", viewBox="0 0 200 14", role="img", aria_label=label, preserveAspectRatio="none",
    )  # fmt: skip


def log_chart(
    title: str, names: Sequence[str], groups: Sequence[tuple[str, int]], series: Sequence[Series],
    marked: int | None = None, marked_label: str = "",
) -> Html:  # fmt: skip
    """Return a line chart with a logarithmic y axis, and names as x axis.

    groups: (label, how many names) of consecutive names, drawn as bands.
    marked: the number of the name at which a vertical line is drawn, with its label.
    Zeros are drawn on the bottom line, infinities on the top line. The title of a mark is its name and its value.
    """
    known = [value for one in series for value in one.values if 0 < value < math.inf]
    low = math.floor(math.log10(min(known, default=1e-8)))
    high = max(low + 2, math.ceil(math.log10(max(known, default=1e-6))))
    area, depth = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(number: float) -> float:
        return LEFT + area * (number + 0.5) / max(1, len(names))

    def y(value: float) -> float:
        exponent = low if value <= 0 else high if math.isinf(value) else math.log10(value)
        return TOP + depth * (high - exponent) / (high - low)

    parts = _bands(groups, x) + _grid(low, high)
    if marked is not None:
        side, shift = ("end", -6) if marked > len(names) * 0.6 else ("start", 6)
        at = f"{x(marked):.1f}"
        parts.append(element("line", class_="arrow", x1=at, y1=f"{TOP}", x2=at, y2=f"{HEIGHT - BOTTOM}"))
        anchored = {"class_": "label", "text_anchor": side, "x": f"{x(marked) + shift:.1f}", "y": f"{TOP + 16}"}
        parts.append(element("text", marked_label, **anchored))
    for one in series:
        places = [(x(number), y(value)) for number, value in enumerate(one.values)]
        points = " ".join(f"{across:.1f},{down:.1f}" for across, down in places)
        parts.append(element("polyline", class_=one.kind, points=points, fill="none"))
        for (across, down), name, value in zip(places if one.mark else [], names, one.values, strict=bool(one.mark)):
            parts.append(_mark(one, across, down, element("title", f"{name}: {one.name} {value:.2e}")))
    drawing = element("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title)
    scrolled = element("div", drawing, class_="scroll", tabindex="0", role="region", aria_label=title)
    key = element("ul", *(element("li", _sample(one), " ", one.name) for one in series), class_="key")
    return element("figure", element("figcaption", title), key, scrolled, class_="log-chart")


def _bands(groups: Sequence[tuple[str, int]], x: Callable[[float], float]) -> list[Html]:
    parts, start = [], 0
    for number, (label, count) in enumerate(groups):
        left, right = x(start - 0.5), x(start + count - 0.5)
        if number % 2 == 0:
            parts.append(
                element("rect", class_="band", x=f"{left:.1f}", y=f"{TOP}", width=f"{right - left:.1f}",
                     height=f"{HEIGHT - TOP - BOTTOM}")
            )  # fmt: skip
        middle = f"{(left + right) / 2:.1f}"
        parts.append(element("text", label, class_="tick", x=middle, y=f"{HEIGHT - BOTTOM + 22}", text_anchor="middle"))
        start += count
    return parts


def _grid(low: int, high: int) -> list[Html]:
    parts = []
    for exponent in range(low, high + 1):
        y = TOP + (HEIGHT - TOP - BOTTOM) * (high - exponent) / (high - low)
        parts.append(element("line", class_="grid", x1=f"{LEFT}", y1=f"{y:.1f}", x2=f"{WIDTH - RIGHT}", y2=f"{y:.1f}"))
        parts.append(
            element("text", f"1e{exponent}", class_="tick", x=f"{LEFT - 8}", y=f"{y + 4:.1f}", text_anchor="end")
        )
    return parts


def _sample(series: Series) -> Html:
    """The line of a series with its mark, for the key."""
    line = element("line", class_=series.kind, x1="2", y1="6", x2="38", y2="6")
    parts = [line, _mark(series, 20, 6)] if series.mark else [line]
    return element("svg", *parts, viewBox="0 0 40 12", aria_hidden="true")


def _mark(series: Series, x: float, y: float, *inside: Html) -> Html:
    if series.mark == "circle":
        return element("circle", *inside, class_=series.kind, cx=f"{x:.1f}", cy=f"{y:.1f}", r="3.5")
    points = f"{x:.1f},{y - 5:.1f} {x + 5:.1f},{y:.1f} {x:.1f},{y + 5:.1f} {x - 5:.1f},{y:.1f}"
    return element("polygon", *inside, class_=series.kind, points=points)
