"""A server of vectors over HTTP, with the API of OpenAI (/v1/embeddings) or text-embeddings-inference (/embed)."""

import json
import urllib.parse
from collections.abc import Sequence
from typing import Any

import numpy as np

from minilm_np._checks import printable
from minilm_np.errors import ImplementationError, InputValueError
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.verify.http_post import post
from minilm_np.verify.interface import Array
from minilm_np.verify.vector_arrays import as_vectors

BATCH = 32  # texts per request: the default maximum of text-embeddings-inference
SECONDS = 120.0  # per request, from its start to the last byte of the response
NUMBERS = 4096  # largest length of a vector for which a response has room
CHARACTERS = 32  # per number: float64 has up to 24; a comma and the indentation are added
ENVELOPE = 64 << 10  # bytes of a response around the vectors


class Endpoint:
    """The vectors that a server returns. No request is repeated, and no redirect is followed.

    url: http:// or https://, ends in /v1/embeddings or /embed. OpenAI's API needs the name of a model: `?model=NAME`
        in the URL, or by default the name of the encoder's model.
    seconds: the limit of one request, from name resolution to the last byte of the response.
    largest: the limit of one response in bytes; None: what the vectors of the texts can need.

    Raises InputValueError (another URL), ImplementationError (no response, or one that cannot be read).
    """

    texts = None

    def __init__(
        self, url: str, encoder: SentenceEncoder, *, seconds: float = SECONDS, largest: int | None = None
    ) -> None:
        parts = parts_of_url(url)
        path = parts.path.rstrip("/")
        self._is_openai = path.endswith("/embeddings")
        self.name = f"{parts.scheme}://{parts.netloc}{path}"
        if not (self._is_openai or path.endswith("/embed")):
            raise InputValueError(f"{self.name}: expected a URL that ends in /v1/embeddings or /embed")
        named = urllib.parse.parse_qs(parts.query).get("model", [])
        own_name = encoder.folder.name if encoder.folder is not None else ""
        self._model = named[0] if named else own_name or "minilm"
        self._size = encoder.config.vector_size
        self._seconds, self._largest = seconds, largest
        self._url = url

    def vectors(self, texts: Sequence[str]) -> Array:
        found = [self._ask(list(texts[start : start + BATCH])) for start in range(0, len(texts), BATCH)]
        if len({len(part[0]) for part in found}) > 1:
            raise ImplementationError(f"{self.name}: the responses have vectors of different lengths")
        return np.concatenate(found) if found else np.empty((0, self._size))

    def intermediates(self, texts: Sequence[str]) -> None:
        return None

    def token_ids(self, texts: Sequence[str]) -> None:
        return None

    def _ask(self, texts: list[str]) -> Array:
        """The vectors of at most BATCH texts, by one request."""
        body: dict[str, Any] = {"inputs": texts, "truncate": True}
        if self._is_openai:
            body = {"model": self._model, "input": texts, "encoding_format": "float"}
        largest = self._largest or len(texts) * NUMBERS * CHARACTERS + ENVELOPE
        raw = post(self._url, json.dumps(body).encode(), name=self.name, seconds=self._seconds, largest=largest)
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise ImplementationError(f"{self.name}: the response is not JSON: {error}") from None
        rows = _in_order(answer, len(texts)) if self._is_openai else answer
        if not isinstance(rows, list) or len(rows) != len(texts):
            found = printable(raw[:200].decode(errors="replace"))
            raise ImplementationError(f"{self.name}: expected {len(texts)} vectors, found {found}")
        try:
            return as_vectors(rows, [f"{self.name}: vector {number}" for number in range(len(rows))])
        except InputValueError as error:
            raise ImplementationError(str(error)) from None


def parts_of_url(url: str) -> urllib.parse.SplitResult:
    """Return the parts of the URL of a server. Raises InputValueError, without the URL: it may contain a password."""
    try:
        parts = urllib.parse.urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bracket that is not closed, a port that is not a number
        is_valid = False
    if not is_valid or not url.isprintable() or " " in url:
        raise InputValueError(
            "the URL of the server is not valid: expected http://HOST:PORT/PATH or https://HOST:PORT/PATH: check the "
            "host, its brackets, the port, and that there is no space"
        )
    if parts.username is not None:
        raise InputValueError("the URL of the server: expected one without a user name and a password")
    return parts


def _in_order(answer: Any, count: int) -> list[Any] | None:
    """The embeddings of a response of OpenAI's API, in the order of their index; None if it is another JSON."""
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or len(data) != count or not all(isinstance(item, dict) for item in data):
        return None
    places = [item.get("index", place) for place, item in enumerate(data)]
    if not all(isinstance(place, int) for place in places):
        return None
    by_index = {place: item.get("embedding") for place, item in zip(places, data, strict=True)}
    return [by_index[place] for place in range(count)] if set(by_index) == set(range(count)) else None
