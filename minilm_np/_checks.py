"""Checks of arguments that several rooms need, with one wording of their errors, and where warnings point."""

import operator
import reprlib
import sys
from collections.abc import Iterable, Mapping, Sequence

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


def printable(text: str) -> str:
    """A text for a message or a table: a space in place of each character that could control a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


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


def callers_level() -> int:
    """The `stacklevel` with which a warning from the calling function points at the first frame outside the package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("minilm_np."):
        level, frame = level + 1, frame.f_back
    return level


def is_finite_number(value: object) -> bool:
    """Whether a value is an int or a float that fits into a finite float; False for a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


# ---- texts -----------------------------------------------------------------------------------------------------------
# Texts are str objects in any object that iterates over them: a list, a tuple, a generator, a NumPy array, a column of
# pandas, polars or PyArrow. These libraries are not imported: their objects are recognised by their attributes.


def check_texts(texts: Iterable[str], first: int = 0, name: str = "texts") -> list[str]:
    """Return the texts as a list, after a check that `tokenizers` accepts each; `first` is the index of the first one.

    name: the argument, for errors.
    Raises InputTypeError (not an iterable of str), InputValueError (a lone surrogate, which UTF-8 cannot encode). Both
    name the index of the text.
    """
    check_container(texts, name)
    found = list(texts)
    for index, text in enumerate(found):
        if not isinstance(text, str):
            text = found[index] = _unwrapped(text, first + index)
        if text.isascii():  # constant time: a flag of the str
            continue
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputValueError(
                f"text {first + index}: the lone surrogate U+{ord(text[error.start]):04X} at character {error.start} "
                "is not Unicode text: decode the original bytes correctly, or replace it with "
                "text.encode('utf-8', 'replace').decode()"
            ) from None
    return found


def check_container(texts: object, name: str = "texts") -> None:
    """Raise InputTypeError if iterating over `texts` would not give texts. Takes constant time, and reads nothing."""
    kind, shape = type(texts), getattr(texts, "shape", (0,))
    if isinstance(texts, str):  # iterating gives its characters
        hint = ": pass [text] for a single text"
    elif isinstance(texts, bytes | bytearray | memoryview):
        hint = ": decode it first"
    elif hasattr(kind, "columns"):  # a table: iterating gives the names of its columns, or the columns
        hint = ': pass one of its columns, such as df["text"]'
    elif isinstance(texts, Mapping) or (hasattr(kind, "keys") and not hasattr(texts, "shape")):  # pandas has a shape
        hint = ": pass its keys or its values"
    elif isinstance(shape, tuple) and len(shape) != 1:
        hint = f" of shape {shape}: pass an array with one dimension"
    elif not hasattr(kind, "__iter__"):
        hint = ""
    else:
        return
    raise InputTypeError(f"{name}: expected a list, an array or a column of str, found {kind.__name__}{hint}")


def _unwrapped(item: object, index: int) -> str:
    """The str in a PyArrow scalar or in an array without dimensions. Raises InputTypeError for any other item."""
    value = item
    if hasattr(item, "as_py"):
        value = item.as_py()
    elif getattr(item, "shape", None) == () and hasattr(item, "item"):
        value = item.item()
    if isinstance(value, str):
        return value
    hint = ""
    if isinstance(value, bytes):
        hint = ": decode it first"
    elif value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and value != value):
        hint = ": drop missing values, or replace them by a text"
    elif isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, str) for part in value):
        hint = (
            ": a pair is not one text: sentence-transformers joins its texts with [SEP], which these models are not "
            "trained for: pass one str per text"
        )
    elif isinstance(value, Mapping | list | tuple) or hasattr(value, "__iter__"):
        hint = ": pass one str per text"
    raise InputTypeError(f"text {index}: expected a str, found {type(value).__name__} {str(value)[:40]!r}{hint}")


def check_ids(texts: Sequence[Sequence[int]], vocab_size: int, most_tokens: int) -> None:
    """Raise InputValueError for a text whose length, or one of whose token ids, is out of the model's range.

    Every engine makes this check: kernels would read memory beyond a table, and NumPy would take a negative id from the
    table's end.
    """
    for number, text in enumerate(texts):
        if not 1 <= len(text) <= most_tokens:
            raise InputValueError(f"text {number}: expected 1 to {most_tokens} tokens, found {len(text)}")
        if min(text) < 0 or max(text) >= vocab_size:
            found = min(text) if min(text) < 0 else max(text)
            raise InputValueError(f"text {number}: expected token ids from 0 to {vocab_size - 1}, found {found}")


def check_token_types(
    token_type_ids: Sequence[Sequence[int]] | None, texts: Sequence[Sequence[int]], type_vocab_size: int
) -> None:
    """Raise InputValueError unless each token of the texts has one type, which the model has. None: all types are 0."""
    if token_type_ids is None:
        return
    if len(token_type_ids) != len(texts):
        raise InputValueError(f"token_type_ids: expected those of {len(texts)} texts, found {len(token_type_ids)}")
    for number, (text, types) in enumerate(zip(texts, token_type_ids, strict=True)):
        if len(types) != len(text):
            raise InputValueError(f"text {number}: expected {len(text)} token types, found {len(types)}")
        if min(types) < 0 or max(types) >= type_vocab_size:
            found = min(types) if min(types) < 0 else max(types)
            raise InputValueError(f"text {number}: expected token types from 0 to {type_vocab_size - 1}, found {found}")
