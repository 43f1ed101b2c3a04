"""Checks of arguments that several rooms need, with one wording of their errors."""

import operator
import reprlib
import sys
from collections.abc import Iterable, Sequence

from minilm_np.errors import InputTypeError, InputValueError


def check_int(name: str, value: object, least: int, most: int | None = None, *, hint: str = "") -> int:
    """Return `value` as an int from `least` to `most`. NumPy's integers are accepted, bools are not.

    hint: appended to the message for a value out of range. Raises InputTypeError, InputValueError.
    """
    return _checked(name, value, least, most, "", hint)


def check_optional_int(
    name: str, value: object, least: int, most: int | None = None, *, hint: str = ""
) -> int | None:  # fmt: skip
    """Check an int like `check_int`, but also accept and return None."""
    return None if value is None else _checked(name, value, least, most, " or None", hint)


def check_choice(name: str, value: object, choices: Sequence[str | None]) -> None:
    """Raise InputValueError unless `value` is one of `choices`."""
    if not isinstance(value, str | None) or value not in choices:
        raise InputValueError(f"{name}: expected {one_of(choices)}, found {value!r:.80}")


def one_of(choices: Iterable[object]) -> str:
    """The choices as a message lists them: one of 'a', 'b', None. At most 20 are listed: a file may contain many."""
    listed = list(map(short_repr, choices))
    return "one of " + ", ".join(listed[:20]) + (f" and {len(listed) - 20} more" if len(listed) > 20 else "")


def short_repr(value: object) -> str:
    """The repr of a value from a file, for a message: shortened if it is long or deep."""
    return _short.repr(value)


_short = reprlib.Repr()
_short.maxstring, _short.maxlong, _short.maxother = 200, 60, 60


def _checked(name: str, value: object, least: int, most: int | None, or_none: str, hint: str) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]  # any object may have __index__
    except TypeError:
        raise InputTypeError(f"{name}: expected an int{or_none}, found {type(value).__name__}") from None
    if number < least or (most is not None and number > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        hint = f"; {hint}" if hint else ""
        raise InputValueError(f"{name}: expected an int {bounds}{or_none}, found {number}{hint}")
    return number


def is_finite_number(value: object) -> bool:
    """Whether a value is an int or a float that fits into a finite float; False for a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
