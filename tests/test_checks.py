"""_checks.py: which integers and choices are accepted, and the messages for all others."""

from typing import Any

import numpy as np
import pytest

from minilm_np import InputTypeError, InputValueError
from minilm_np._checks import check_choice, check_int, check_optional_int, one_of


def test_integers_within_the_bounds_are_returned_as_int() -> None:
    for value in (0, 7, np.int8(7), np.uint64(0), np.array(7)):
        for found in (check_int("n", value, 0, 7), check_optional_int("n", value, 0)):
            assert type(found) is int
            assert found == value
    assert check_int("n", 10**30, 1) == 10**30
    assert check_optional_int("n", None, 1) is None


@pytest.mark.parametrize(
    ("value", "most", "error", "message"),
    [
        (0, None, InputValueError, "n: expected an int of at least 1, found 0"),
        (0, 9, InputValueError, "n: expected an int from 1 to 9, found 0; a hint"),
        (10, 9, InputValueError, "n: expected an int from 1 to 9, found 10; a hint"),
        (np.int64(10), 9, InputValueError, "n: expected an int from 1 to 9, found 10; a hint"),
        (1.0, 9, InputTypeError, "n: expected an int, found float"),
        ("1", None, InputTypeError, "n: expected an int, found str"),
        (True, None, InputTypeError, "n: expected an int, found bool"),
        (None, None, InputTypeError, "n: expected an int, found NoneType"),
        (np.array([1]), None, InputTypeError, "n: expected an int, found ndarray"),
    ],
    ids=repr,
)
def test_other_values_are_refused(value: Any, most: int | None, error: type, message: str) -> None:
    with pytest.raises(error) as caught:
        check_int("n", value, 1, most, hint="" if most is None else "a hint")
    assert str(caught.value) == message


def test_the_message_says_where_none_is_accepted() -> None:
    with pytest.raises(InputTypeError, match=r"^n: expected an int or None, found str$"):
        check_optional_int("n", "1", 1)
    with pytest.raises(InputValueError, match=r"^n: expected an int from 1 to 9 or None, found 0; a hint$"):
        check_optional_int("n", 0, 1, 9, hint="a hint")


def test_choices() -> None:
    check_choice("c", "a", ("a", None))
    check_choice("c", None, ("a", None))
    assert one_of(("a", None)) == "one of 'a', None"
    for value in ("b", ["a"], np.array(["a"]), 1):
        with pytest.raises(InputValueError, match=r"^c: expected one of 'a', None, found "):
            check_choice("c", value, ("a", None))
