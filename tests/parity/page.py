"""The tables of the page, as Markdown, and the tables that a page contains."""

import importlib.metadata
from collections.abc import Mapping, Sequence

from tests.parity.recording import Measured
from tests.parity.refusals import REFUSALS
from tests.parity.rows import AREAS, Row
from tests.support.places import CHECKOUT

PAGE = CHECKOUT / "minilm_np" / "docs" / "parity.md"
START, END = "<!-- written by python -m tests.parity -->\n", "<!-- end -->\n"
COLUMNS = ("what", "library", "bound", "largest difference", "test")
REFUSED = ("what", "error")


def render(measured: Measured) -> str:
    """All tables, with a heading for each area."""
    parts = []
    for area, rows in AREAS.items():
        cells = [(*known_cells(row), *measured_cells(row, measured)) for row in rows]
        parts.append(f"## {area}\n\n" + table(COLUMNS, [(what, lib, b, d, test) for what, lib, test, b, d in cells]))
    refused = [(refusal.what, f"`{refusal.kind.__name__}`: {refusal.words}") for refusal in REFUSALS]
    parts.append("## Refused\n\n" + table(REFUSED, refused))
    return "\n".join(parts)


def known_cells(row: Row) -> tuple[str, str, str]:
    """The cells of a row that do not depend on a run: what, library, test."""
    start, end = "" if row.case.startswith("[") else "[…", "" if row.case.endswith("]") else "…]"
    return row.subject, row.against, f"`{row.test}{start}{row.case}{end}`" if row.case else f"`{row.test}`"


def measured_cells(row: Row, measured: Measured) -> tuple[str, str]:
    """The bounds of a row's comparisons, and the largest difference of each."""
    found: dict[tuple[str, float], float] = {}
    tests = [name for name in measured if name.split("[")[0] == row.test and row.case in name]
    if not tests:
        raise LookupError(f"{row.test} {row.case}: expected a test of this name, found none")
    for name in tests:
        for key, difference in measured[name].items():
            found[key] = max(difference, found.get(key, 0.0))
    bounded = sorted((bound, kind, difference) for (kind, bound), difference in found.items() if kind != "bits")
    if not bounded:
        return ("same bits" if found else "equal"), "none"
    return (
        "; ".join(f"{short(bound)} {kind}" for bound, kind, _ in bounded),
        "; ".join(short(difference) for _, _, difference in bounded),
    )


def short(number: float) -> str:
    """A number with one or two digits: 2e-6, 3.1e-7, 0.2."""
    if number == 0 or number >= 1e-2:
        return f"{number:.2g}"
    digits, _, exponent = f"{number:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def with_tables(text: str, tables: str) -> str:
    """The page with these tables between its two marks."""
    before, _, rest = text.partition(START)
    return f"{before}{START}\n{tables}\n{END}{rest.partition(END)[2]}"


def tables_of(text: str) -> dict[str, list[list[str]]]:
    """The tables of a page between its marks: heading -> rows of cells, without the header."""
    found: dict[str, list[list[str]]] = {}
    for part in text.partition(START)[2].partition(END)[0].split("## ")[1:]:
        heading, *lines = part.strip().split("\n")
        rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
        found[heading] = rows[2:]
    return found


def versions() -> Mapping[str, str]:
    """The versions of the libraries of the tables."""
    names = sorted({row.against for rows in AREAS.values() for row in rows} | {"torch"})
    return {name: importlib.metadata.version(name) for name in names}
