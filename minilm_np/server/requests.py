"""JSON bodies to checked requests. Every error names the field, what was expected and what was found."""

import difflib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from minilm_np._checks import short_repr
from minilm_np.server.failures import RequestError, Why
from minilm_np.server.settings import ServerSettings

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


@dataclass(frozen=True, slots=True)
class Inputs:
    """What to encode: texts, or token ids of texts.

    of: the field. place: the name of the text of a number, such as "input[0]". Both are for errors.
    """

    of: str
    texts: list[str]
    ids: list[list[int]]
    place: Callable[[int], str]

    def __len__(self) -> int:
        """The number of texts."""
        return len(self.texts) or len(self.ids)


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """A request for vectors, of either API."""

    inputs: Inputs
    truncate: bool
    normalize: bool = True
    prompt_name: str | None = None
    dimensions: int | None = None
    base64: bool = False
    model: str | None = None


@dataclass(frozen=True, slots=True)
class SimilarityRequest:
    """A request for the cosines of one text and others. `inputs` has the one text first."""

    inputs: Inputs
    truncate: bool
    prompt_name: str | None


@dataclass(frozen=True, slots=True)
class TokenizeRequest:
    """A request for the tokens of texts."""

    inputs: Inputs
    add_special_tokens: bool
    prompt_name: str | None


def read_embeddings(body: bytes, settings: ServerSettings) -> EmbedRequest:
    """Read the body of POST /v1/embeddings. `truncate` and `prompt_name` are additions to OpenAI's fields."""
    fields = _object(body, ("input", "model", "encoding_format", "dimensions", "user", "truncate", "prompt_name"))
    _optional(fields, "user", str)
    return EmbedRequest(
        inputs=_inputs(fields, "input", settings),
        truncate=_or(_optional(fields, "truncate", bool), settings.truncate),
        prompt_name=_optional(fields, "prompt_name", str),
        dimensions=_dimensions(fields),
        base64=_choice(fields, "encoding_format", ("float", "base64")) == "base64",
        model=_optional(fields, "model", str),
    )


def read_embed(body: bytes, settings: ServerSettings) -> EmbedRequest:
    """Read the body of POST /embed."""
    fields = _object(
        body,
        ("inputs", "truncate", "truncation_direction", "normalize", "prompt_name", "dimensions", "encoding_format"),
    )
    _direction(fields)
    return EmbedRequest(
        inputs=_inputs(fields, "inputs", settings),
        truncate=_or(_optional(fields, "truncate", bool), settings.truncate),
        normalize=_or(_optional(fields, "normalize", bool), True),
        prompt_name=_optional(fields, "prompt_name", str),
        dimensions=_dimensions(fields),
        base64=_choice(fields, "encoding_format", ("float",)) == "base64",
    )


def read_similarity(body: bytes, settings: ServerSettings) -> SimilarityRequest:
    """Read the body of POST /similarity."""
    fields = _object(body, ("inputs", "parameters"))
    inputs = _known(_required(fields, "inputs", dict), ("source_sentence", "sentences"), "inputs.")
    parameters = _known(
        _optional(fields, "parameters", dict) or {}, ("truncate", "truncation_direction", "prompt_name"), "parameters."
    )
    _direction(parameters)
    sentences = _texts(_required(inputs, "sentences", list), "inputs.sentences")
    texts = [_required(inputs, "source_sentence", str), *sentences]
    _check_size(texts, "inputs", settings.max_texts, settings.max_characters)
    return SimilarityRequest(
        inputs=Inputs("inputs", texts, [], _place_of_sentence),
        truncate=_or(_optional(parameters, "truncate", bool), settings.truncate),
        prompt_name=_optional(parameters, "prompt_name", str),
    )


def read_tokenize(body: bytes, settings: ServerSettings) -> TokenizeRequest:
    """Read the body of POST /tokenize. It may have an eighth of the characters: a token takes 60 bytes to describe."""
    fields = _object(body, ("inputs", "add_special_tokens", "prompt_name"))
    value = _present(fields, "inputs")
    texts = [value] if isinstance(value, str) else _texts(value, "inputs")
    _check_size(texts, "inputs", settings.max_texts, settings.max_characters // 8)
    return TokenizeRequest(
        inputs=Inputs("inputs", texts, [], _places("inputs", is_array=not isinstance(value, str))),
        add_special_tokens=_or(_optional(fields, "add_special_tokens", bool), True),
        prompt_name=_optional(fields, "prompt_name", str),
    )


# ---- texts -----------------------------------------------------------------------------------------------------------


def _inputs(fields: Object, name: str, settings: ServerSettings) -> Inputs:
    """A text, token ids of a text, or an array of one of them."""
    value = _present(fields, name)
    one, many = _places(name, is_array=False), _places(name, is_array=True)
    if isinstance(value, str):
        found = Inputs(name, [value], [], one)
    elif not isinstance(value, list):
        raise _wrong(name, "a string, an array of strings, or token ids", value)
    elif not value:
        raise RequestError(Why.INVALID, f"{name}: expected at least one text, found an empty array", name)
    elif isinstance(value[0], str):
        found = Inputs(name, _texts(value, name), [], many)
    elif isinstance(value[0], list):
        for number, ids in enumerate(value):
            if not isinstance(ids, list):
                raise _wrong(f"{name}[{number}]", "an array of token ids, as the items before it", ids, name)
            value[number] = _token_ids(ids, f"{name}[{number}]", name)
        found = Inputs(name, [], value, many)
    else:
        found = Inputs(name, [], [_token_ids(value, name, name)], one)
    _check_size(found.texts or found.ids, name, settings.max_texts, settings.max_characters)
    return found


def _places(name: str, *, is_array: bool) -> Callable[[int], str]:
    """The names of the texts of a field that is a text, or an array of texts."""
    return (lambda number: f"{name}[{number}]") if is_array else (lambda number: name)


def _place_of_sentence(number: int) -> str:
    """The names of the texts of POST /similarity: the source sentence is the first."""
    return f"inputs.sentences[{number - 1}]" if number else "inputs.source_sentence"


def _texts(values: Any, name: str) -> list[str]:
    if not isinstance(values, list):
        raise _wrong(name, "a string or an array of strings", values)
    if not values:
        raise RequestError(Why.INVALID, f"{name}: expected at least one text, found an empty array", name)
    for number, value in enumerate(values):
        if not isinstance(value, str):
            raise _wrong(f"{name}[{number}]", "a string", value, name)
    return values


def _token_ids(values: list[Any], where: str, name: str) -> list[int]:
    if not values:
        raise RequestError(Why.INVALID, f"{where}: expected at least one token id, found an empty array", name)
    found = [_whole(value) for value in values]
    for number, value in enumerate(found):
        if type(value) is not int:  # a bool is not a token id
            raise _wrong(f"{where}[{number}]", "a token id", value, name)
    return found


def _whole(value: Any) -> Any:
    """An integer in place of a float such as 5.0, which is an integer in JSON."""
    return int(value) if type(value) is float and value.is_integer() and abs(value) < 2**53 else value


def _check_size(
    texts: Sequence[Sequence[str | int]], name: str, most_texts: int, most_characters: int
) -> None:  # a token id counts as a character
    if len(texts) > most_texts:
        raise _too_many(name, len(texts), most_texts)
    characters = sum(map(len, texts))
    if characters > most_characters:
        raise RequestError(
            Why.TOO_LARGE,
            f"{name}: expected at most {most_characters:,} characters in all texts, found {characters:,}: send several "
            "requests",
            name,
        )


def _too_many(name: str, found: int, most: int) -> RequestError:
    return RequestError(
        Why.TOO_LARGE, f"{name}: expected at most {most:,} texts, found {found:,}: send several requests", name
    )


# ---- fields ----------------------------------------------------------------------------------------------------------


def _object(body: bytes, known: Collection[str]) -> Object:
    """The JSON object in a body. orjson refuses NaN, lone surrogates, invalid UTF-8 and deep nesting."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(Why.NOT_JSON, f"the body is not valid JSON in UTF-8: {error}") from None
    if not isinstance(value, dict):
        raise RequestError(Why.INVALID, f"the body: expected an object, found {_kind(value)}")
    return _known(value, known, "")


def _known(fields: Object, known: Collection[str], prefix: str) -> Object:
    for name in fields:
        if name not in known:
            raise RequestError(
                Why.INVALID,
                f"{prefix}{short_repr(name)[1:-1]}: unknown field{_hint(name, known)}: expected one of "
                f"{', '.join(known)}",
                f"{prefix}{name}"[:200],
            )
    return fields


def _hint(name: str, known: Collection[str]) -> str:
    """A part of a message that names the field with a similar name; "" if there is none."""
    similar = difflib.get_close_matches(name, known, 1) if len(name) <= 40 else []
    return f" (did you mean {similar[0]}?)" if similar else ""


def _present(fields: Object, name: str) -> Any:
    if fields.get(name) is None:
        raise RequestError(Why.INVALID, f"{name}: this field is required", name)
    return fields[name]


def _required(fields: Object, name: str, kind: type[T]) -> T:
    _present(fields, name)
    value = _optional(fields, name, kind)
    assert value is not None
    return value


def _optional(fields: Object, name: str, kind: type[T]) -> T | None:
    """The value of a field; None if it is missing or null."""
    value = fields.get(name)
    if value is not None and type(value) is not kind:
        raise _wrong(name, KINDS[kind], value)
    return value


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def _choice(fields: Object, name: str, choices: Sequence[str]) -> str | None:
    value = fields.get(name)
    if value is not None and value not in choices:
        raise _wrong(name, " or ".join(map(repr, choices)), value)
    return value


def _direction(fields: Object) -> None:
    """A text that is too long loses its end: the tokens that the model was trained to see."""
    value = fields.get("truncation_direction")
    if not (value is None or (isinstance(value, str) and value.lower() == "right")):
        raise _wrong("truncation_direction", "'right'", value)


def _dimensions(fields: Object) -> int | None:
    fields["dimensions"] = _whole(fields.get("dimensions"))
    value = _optional(fields, "dimensions", int)
    if value is not None and value < 1:
        raise _wrong("dimensions", "an integer of at least 1", value)
    return value


def _wrong(where: str, expected: str, value: Any, param: str | None = None) -> RequestError:
    found = short_repr(value) if isinstance(value, bool | int | float) else _kind(value)
    if isinstance(value, str) and len(value) < 40:
        found = repr(value)
    return RequestError(Why.INVALID, f"{where}: expected {expected}, found {found}", param or where)


def _kind(value: Any) -> str:
    return "null" if value is None else KINDS[type(value)]
