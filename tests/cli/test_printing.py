"""Printing: texts shortened to one line, and floats with the fewest digits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm_np.cli.printing import one_line, shortest_float, write_json


@given(st.text(max_size=30), st.integers(4, 20))
def test_a_text_becomes_one_printable_line_of_bounded_width(text: str, width: int) -> None:
    line = one_line(text, width)
    assert len(line) <= width
    assert line.isprintable()


def test_a_text_that_is_too_wide_ends_in_dots() -> None:
    assert one_line(" 123456\t", 6) == "123456"
    assert one_line("12\n3456 7", 6) == "12 ..."


@given(st.floats(width=32, allow_nan=False))
def test_a_shortest_float_reads_back_as_the_same_float32(number: float) -> None:
    found = shortest_float(np.float32(number))
    assert np.float32(found) == np.float32(number)
    assert len(repr(found)) <= len(repr(float(number)))


def test_json_is_utf_8(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    write_json({"text": "日本"})
    assert capsysbinary.readouterr().out == '{"text": "日本"}\n'.encode()
