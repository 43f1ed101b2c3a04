"""JSON bodies to checked requests. Every error names the field, what was expected and what was found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from minilm_np.server.failures import RequestError, Why
from minilm_np.server.json_fields import Object, choice, known, object_in, optional, present, required, whole, wrong
from minilm_np.server.settings import ServerSettings

MOST_TOP = 2**31 - 1  # of top_n; more than the number of documents means all of them

T = TypeVar("T")


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


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """A request for the scores of a query with each of several texts, of either API. `inputs` has the texts.

    raw_scores: return logits. returns_texts: return the texts, too. top: return the best ones only; None: all.
    """

    query: str
    inputs: Inputs
    truncate: bool
    raw_scores: bool = False
    returns_texts: bool = False
    top: int | None = None
    model: str | None = None


def read_embeddings(body: bytes, settings: ServerSettings) -> EmbedRequest:
    """Read the body of POST /v1/embeddings. `truncate` and `prompt_name` are additions to OpenAI's fields."""
    fields = object_in(body, ("input", "model", "encoding_format", "dimensions", "user", "truncate", "prompt_name"))
    optional(fields, "user", str)
    return EmbedRequest(
        inputs=_inputs(fields, "input", settings),
        truncate=_or(optional(fields, "truncate", bool), settings.truncate),
        prompt_name=optional(fields, "prompt_name", str),
        dimensions=_positive(fields, "dimensions"),
        base64=choice(fields, "encoding_format", ("float", "base64")) == "base64",
        model=optional(fields, "model", str),
    )


def read_embed(body: bytes, settings: ServerSettings) -> EmbedRequest:
    """Read the body of POST /embed."""
    fields = object_in(
        body,
        ("inputs", "truncate", "truncation_direction", "normalize", "prompt_name", "dimensions", "encoding_format"),
    )
    _direction(fields)
    return EmbedRequest(
        inputs=_inputs(fields, "inputs", settings),
        truncate=_or(optional(fields, "truncate", bool), settings.truncate),
        normalize=_or(optional(fields, "normalize", bool), True),
        prompt_name=optional(fields, "prompt_name", str),
        dimensions=_positive(fields, "dimensions"),
        base64=choice(fields, "encoding_format", ("float",)) == "base64",
    )


def read_similarity(body: bytes, settings: ServerSettings) -> SimilarityRequest:
    """Read the body of POST /similarity."""
    fields = object_in(body, ("inputs", "parameters"))
    inputs = known(required(fields, "inputs", dict), ("source_sentence", "sentences"), "inputs.")
    parameters = known(
        optional(fields, "parameters", dict) or {}, ("truncate", "truncation_direction", "prompt_name"), "parameters."
    )
    _direction(parameters)
    sentences = _texts(required(inputs, "sentences", list), "inputs.sentences")
    texts = [required(inputs, "source_sentence", str), *sentences]
    _check_size(texts, "inputs", settings.max_texts, settings.max_characters)
    return SimilarityRequest(
        inputs=Inputs("inputs", texts, [], _place_of_sentence),
        truncate=_or(optional(parameters, "truncate", bool), settings.truncate),
        prompt_name=optional(parameters, "prompt_name", str),
    )


def read_tokenize(body: bytes, settings: ServerSettings) -> TokenizeRequest:
    """Read the body of POST /tokenize. It may have an eighth of the characters: a token takes 60 bytes to describe."""
    fields = object_in(body, ("inputs", "add_special_tokens", "prompt_name"))
    value = present(fields, "inputs")
    texts = [value] if isinstance(value, str) else _texts(value, "inputs")
    _check_size(texts, "inputs", settings.max_texts, settings.max_characters // 8)
    return TokenizeRequest(
        inputs=Inputs("inputs", texts, [], _places("inputs", is_array=not isinstance(value, str))),
        add_special_tokens=_or(optional(fields, "add_special_tokens", bool), True),
        prompt_name=optional(fields, "prompt_name", str),
    )


def read_rerank(body: bytes, settings: ServerSettings) -> RerankRequest:
    """Read the body of POST /rerank."""
    fields = object_in(body, ("query", "texts", "raw_scores", "return_text", "truncate", "truncation_direction"))
    _direction(fields)
    query = required(fields, "query", str)
    return RerankRequest(
        query=query,
        inputs=_documents(query, _texts(required(fields, "texts", list), "texts"), "texts", settings),
        truncate=_or(optional(fields, "truncate", bool), settings.truncate),
        raw_scores=_or(optional(fields, "raw_scores", bool), False),
        returns_texts=_or(optional(fields, "return_text", bool), False),
    )


def read_v1_rerank(body: bytes, settings: ServerSettings) -> RerankRequest:
    """Read the body of POST /v1/rerank or /v2/rerank. `truncate` is an addition to the fields of Cohere and Jina."""
    fields = object_in(body, ("query", "documents", "model", "top_n", "return_documents", "truncate"))
    query = required(fields, "query", str)
    documents = [_document(value, number) for number, value in enumerate(required(fields, "documents", list))]
    return RerankRequest(
        query=query,
        inputs=_documents(query, _texts(documents, "documents"), "documents", settings),
        truncate=_or(optional(fields, "truncate", bool), settings.truncate),
        returns_texts=_or(optional(fields, "return_documents", bool), False),
        top=_positive(fields, "top_n", MOST_TOP),
        model=optional(fields, "model", str),
    )


# ---- texts -----------------------------------------------------------------------------------------------------------


def _inputs(fields: Object, name: str, settings: ServerSettings) -> Inputs:
    """A text, token ids of a text, or an array of one of them."""
    value = present(fields, name)
    one, many = _places(name, is_array=False), _places(name, is_array=True)
    if isinstance(value, str):
        found = Inputs(name, [value], [], one)
    elif not isinstance(value, list):
        raise wrong(name, "a string, an array of strings, or token ids", value)
    elif not value:
        raise RequestError(Why.INVALID, f"{name}: expected at least one text, found an empty array", name)
    elif isinstance(value[0], str):
        found = Inputs(name, _texts(value, name), [], many)
    elif isinstance(value[0], list):
        for number, ids in enumerate(value):
            if not isinstance(ids, list):
                raise wrong(f"{name}[{number}]", "an array of token ids, as the items before it", ids, name)
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
        raise wrong(name, "a string or an array of strings", values)
    if not values:
        raise RequestError(Why.INVALID, f"{name}: expected at least one text, found an empty array", name)
    for number, value in enumerate(values):
        if not isinstance(value, str):
            raise wrong(f"{name}[{number}]", "a string", value, name)
    return values


def _document(value: Any, number: int) -> Any:
    """The text of a document that is an object; any other value as it is."""
    if not isinstance(value, dict):
        return value
    where = f"documents[{number}]"
    text = known(value, ("text",), f"{where}.").get("text")
    if not isinstance(text, str):
        raise wrong(f"{where}.text", "a string", text, "documents")
    return text


def _documents(query: str, texts: list[str], name: str, settings: ServerSettings) -> Inputs:
    """The texts that are compared with a query. The query is part of every pair, so its characters count per text."""
    _check_size(texts, name, settings.max_texts, settings.max_characters, len(query))
    return Inputs(name, texts, [], _places(name, is_array=True))


def _token_ids(values: list[Any], where: str, name: str) -> list[int]:
    if not values:
        raise RequestError(Why.INVALID, f"{where}: expected at least one token id, found an empty array", name)
    if set(map(type, values)) == {int}:  # two million ids in 0.04 s; below, they would stop the event loop for 0.3 s
        return values
    found = [whole(value) for value in values]
    for number, value in enumerate(found):
        if type(value) is not int:  # a bool is not a token id
            raise wrong(f"{where}[{number}]", "a token id", value, name)
    return found


def _check_size(
    texts: Sequence[Sequence[str | int]], name: str, most_texts: int, most_characters: int, query: int = 0
) -> None:  # a token id counts as a character
    """Raise RequestError if there are too many texts or characters. query: characters that are added to each text."""
    if len(texts) > most_texts:
        raise _too_many(name, len(texts), most_texts)
    characters = query * len(texts) + sum(map(len, texts))
    if characters > most_characters:
        where = ", each with the query" if query else ""
        raise RequestError(
            Why.TOO_LARGE,
            f"{name}: expected at most {most_characters:,} characters in all texts{where}, found {characters:,}: send "
            "several requests",
            name,
        )


def _too_many(name: str, found: int, most: int) -> RequestError:
    return RequestError(
        Why.TOO_LARGE, f"{name}: expected at most {most:,} texts, found {found:,}: send several requests", name
    )


def _direction(fields: Object) -> None:
    """A text that is too long loses its end: the tokens that the model was trained to see."""
    value = fields.get("truncation_direction")
    if not (value is None or (isinstance(value, str) and value.lower() == "right")):
        raise wrong("truncation_direction", "'right'", value)


def _positive(fields: Object, name: str, most: int | None = None) -> int | None:
    """An integer of at least 1, and at most `most`; None if the field is missing or null."""
    fields[name] = whole(fields.get(name))
    value = optional(fields, name, int)
    if value is not None and (value < 1 or (most is not None and value > most)):
        bounds = "of at least 1" if most is None else f"from 1 to {most}"
        raise wrong(name, f"an integer {bounds}", value)
    return value


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
