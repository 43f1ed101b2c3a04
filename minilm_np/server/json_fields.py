"""The fields of a JSON object in a request. Every error names the field, what was expected and what was found."""

import difflib
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import orjson

from minilm_np._checks import short_repr
from minilm_np.server.failures import RequestError, Why

T = TypeVar("T")
Object = dict[str, Any]  # a JSON object

KINDS = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "true or false",
    int: "an integer",
    float: "a number",
}


def object_in(body: bytes, names: Collection[str]) -> Object:
    """The JSON object in a body. orjson refuses NaN, lone surrogates, invalid UTF-8 and deep nesting."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(Why.NOT_JSON, f"the body is not valid JSON in UTF-8: {error}") from None
    if not isinstance(value, dict):
        raise RequestError(Why.INVALID, f"the body: expected an object, found {kind_of(value)}")
    return known(value, names, "")


def known(fields: Object, names: Collection[str], prefix: str) -> Object:
    """The object itself, if it has these fields only. prefix: of the fields' names in an error."""
    for name in fields:
        if name not in names:
            raise RequestError(
                Why.INVALID,
                f"{prefix}{short_repr(name)[1:-1]}: unknown field{_hint(name, names)}: expected one of "
                f"{', '.join(names)}",
                f"{prefix}{name}"[:200],
            )
    return fields


def _hint(name: str, names: Collection[str]) -> str:
    """A part of a message that names the field with a similar name; "" if there is none."""
    similar = difflib.get_close_matches(name, names, 1) if len(name) <= 40 else []
    return f" (did you mean {similar[0]}?)" if similar else ""


def present(fields: Object, name: str) -> Any:
    """The value of a field, which may not be missing or null."""
    if fields.get(name) is None:
        raise RequestError(Why.INVALID, f"{name}: this field is required", name)
    return fields[name]


def required(fields: Object, name: str, kind: type[T]) -> T:
    """The value of a field, which may not be missing or null, and has this type."""
    present(fields, name)
    value = optional(fields, name, kind)
    assert value is not None
    return value


def optional(fields: Object, name: str, kind: type[T]) -> T | None:
    """The value of a field; None if it is missing or null."""
    value = fields.get(name)
    if value is not None and type(value) is not kind:
        raise wrong(name, KINDS[kind], value)
    return value


def choice(fields: Object, name: str, choices: Sequence[str]) -> str | None:
    """The value of a field with one of some values; None if it is missing or null."""
    value = fields.get(name)
    if value is not None and value not in choices:
        raise wrong(name, " or ".join(map(repr, choices)), value)
    return value


def wrong(where: str, expected: str, value: Any, param: str | None = None) -> RequestError:
    """The error of a value that is not as expected. where: its place; param: the field, if that is another name."""
    found = short_repr(value) if isinstance(value, bool | int | float) else kind_of(value)
    if isinstance(value, str) and len(value) < 40:
        found = repr(value)
    return RequestError(Why.INVALID, f"{where}: expected {expected}, found {found}", param or where)


def kind_of(value: Any) -> str:
    """The type of a JSON value, in words."""
    return "null" if value is None else KINDS[type(value)]


def whole(value: Any) -> Any:
    """An integer in place of a float such as 5.0, which is an integer in JSON."""
    return int(value) if type(value) is float and value.is_integer() and abs(value) < 2**53 else value
