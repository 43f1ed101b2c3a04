"""The views of a page, as HTML: each is an element that names a script and its options. All text is escaped.

A view reads arrays by name and labels by axis. An axis is a list of labels in `values["axes"]`; an axis that is missing
there has the labels 0, 1, 2, ... and the axis's name is shown. Views that share an axis share its selection.
"""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

Json = Any  # whatever `json.dumps` accepts


class Html(str):
    """Text that is markup already; everything else is escaped."""

    __slots__ = ()


def element(tag: str, /, *children: str, **attributes: str | bool) -> Html:
    """Return one HTML element. Children that are not `Html` are text. `class_` and `data_x` mean class and data-x."""
    names = {name: name.removesuffix("_").replace("_", "-") for name in attributes}
    written = "".join(
        f" {names[name]}" if value is True else f' {names[name]}="{html.escape(str(value))}"'
        for name, value in attributes.items()
        if value is not False
    )
    inner = "".join(child if isinstance(child, Html) else html.escape(child, quote=False) for child in children)
    return Html(f"<{tag}{written}>{inner}</{tag}>")


def paragraph(*children: str, **attributes: str | bool) -> Html:
    """Return one paragraph of text."""
    return element("p", *children, **attributes)


def token(text: str, position: int) -> Html:
    """Return a token with its position in brackets; a right-to-left token does not move the position."""
    return element("span", element("bdi", text, dir="ltr"), f" ({position})")


def component(kind: str, **options: Json) -> Html:
    """Return a view that `js/main.js` lists as `kind`; the script receives the options."""
    return element("div", class_=f"view {kind}", data_view=kind, data_options=json.dumps(options))


def heat_map(
    array: str,
    *,
    title: str,
    rows: str,
    columns: str,
    scale: str = "diverging",
    note: str = "",
    labels: Sequence[str] = (),
) -> Html:
    """Return an array of two dimensions as coloured cells; of three, with a choice of the first index.

    array: its name. `{layer}` and the like in it stands for a choice of the page (`values["choices"]`).
    rows, columns: axes. scale: "diverging", blue to orange and centred at zero; or "sequential", from zero to the
    largest value. labels: singular names of row, column and value, for the line that reads out a cell.
    """
    return component(
        "heat-map", array=array, title=title, rows=rows, columns=columns, scale=scale, note=note, labels=list(labels)
    )


def line_chart(
    *,
    title: str,
    x: Sequence[str],
    y: str,
    array: str,
    series: str,
    log: bool = False,
    note: str = "",
    summary: bool = False,
    zero: bool = False,
) -> Html:
    """Return lines: one for each row of an array of shape (series, x).

    x: labels of the columns. y: what the numbers are. series: the axis of the rows. log: a logarithmic scale; values
    of zero and below are left out. summary: draw the mean of all rows as a bold line, too. zero: the scale includes 0.
    Up to 6 lines get separate colours, dashes and marks; more are thin and grey, and the selected one stands out.
    """
    return component(
        "line-chart",
        title=title, x=list(x), y=y, array=array, series=series, log=log, note=note, summary=summary, zero=zero,
    )  # fmt: skip


def bars(array: str, *, title: str, axis: str, y: str, note: str = "", overlay: str = "") -> Html:
    """Return one bar for each number of an array of one dimension, from zero up or down.

    axis: of the bars. overlay: an array of shape (tokens, bars), whose row of the selected token is drawn above them.
    """
    return component("bars", array=array, title=title, axis=axis, y=y, note=note, overlay=overlay)


def facts(pairs: Mapping[str, str]) -> Html:
    """Return names with their values, as a list."""
    rows = (element("div", element("dt", name), element("dd", value)) for name, value in pairs.items())
    return element("dl", *rows, class_="facts")


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, numbers: Sequence[int] = (), axis: str = ""
) -> Html:
    """Return a table of text.

    numbers: the columns that are aligned to the right. axis: row i is index i of this axis, and shares its selection.
    """

    def cells(tag: str, row: Sequence[str], **attributes: str | bool) -> Html:
        return Html(
            "".join(
                element(tag, cell, **(attributes | ({"class_": "number"} if number in numbers else {})))
                for number, cell in enumerate(row)
            )
        )

    body = (
        element("tr", cells("td", row), **({"data_axis": axis, "data_index": str(index)} if axis else {}))
        for index, row in enumerate(rows)
    )
    inner = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", cells("th", header, scope="col"))),
        element("tbody", *body),
    )
    return element("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)
