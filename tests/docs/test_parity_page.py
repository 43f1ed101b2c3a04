"""The page of parity has the rows of `tests.parity`, numbers within their bounds, and errors that are raised."""

import ast
from pathlib import Path

import pytest

from tests.parity.page import PAGE, known_cells, tables_of
from tests.parity.refusals import REFUSALS, Refusal
from tests.parity.rows import AREAS
from tests.support.places import CHECKOUT

TABLES = tables_of(PAGE.read_text(encoding="utf-8"))


def test_the_page_has_the_areas_and_the_rows_of_the_code() -> None:
    assert list(TABLES) == [*AREAS, "Refused"]
    for area, rows in AREAS.items():
        shown = [(what, library, test) for what, library, _, _, test in TABLES[area]]
        assert shown == [known_cells(row) for row in rows], f"{area}: run `python -m tests.parity --write`"


def test_the_differences_are_within_their_bounds() -> None:
    for rows in list(TABLES.values())[:-1]:
        for what, _, bounds, differences, _ in rows:
            if bounds in ("equal", "same bits"):
                assert differences == "none", what
                continue
            for bound, difference in zip(bounds.split("; "), differences.split("; "), strict=True):
                number, kind = bound.split(" ")
                assert kind in ("abs", "rel") and float(difference) <= float(number), what


def test_the_tests_of_the_rows_exist() -> None:
    for row in (row for rows in AREAS.values() for row in rows):
        file, function = row.test.split("::")
        tree = ast.parse((CHECKOUT / "tests" / file).read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, row.test


def test_the_page_lists_what_is_refused() -> None:
    shown = [tuple(row) for row in TABLES["Refused"]]
    assert shown == [(refusal.what, f"`{refusal.kind.__name__}`: {refusal.words}") for refusal in REFUSALS]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.what)
def test_what_the_page_lists_is_refused_in_these_words(refusal: Refusal, tmp_path: Path) -> None:
    with pytest.raises(refusal.kind) as error:
        refusal.attempt(tmp_path)
    assert refusal.words in str(error.value)
