"""A server of vectors, asked over HTTP: OpenAI's /v1/embeddings, or /embed of text-embeddings-inference."""

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any

import numpy as np

from minilm_np.errors import ImplementationError, InputValueError
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.verify.interface import Array
from minilm_np.verify.stored_vectors import as_vectors

BATCH = 32  # texts a request: what text-embeddings-inference takes at most, as it is configured by default
SECONDS = 120.0  # a request, from its start to the last byte of the answer
LARGEST = 64 << 20  # bytes of an answer


class Endpoint:
    """The vectors that a URL answers with; no request is repeated, and no redirection followed.

    url: ends in /v1/embeddings or /embed. OpenAI's needs a model's name: `?model=NAME`, or else the encoder's own.

    Raises InputValueError (another path), ImplementationError (no answer, or one that cannot be read).
    """

    texts = None

    def __init__(self, url: str, encoder: SentenceEncoder, *, seconds: float = SECONDS, largest: int = LARGEST) -> None:
        parts = urllib.parse.urlsplit(url)
        path = parts.path.rstrip("/")
        self._is_openai = path.endswith("/embeddings")
        if not (self._is_openai or path.endswith("/embed")) or not parts.hostname:
            raise InputValueError(f"{url}: expected a URL that ends in /v1/embeddings or /embed")
        if parts.username is not None:
            raise InputValueError("the URL: expected none with a user's name or a password in it")
        named = urllib.parse.parse_qs(parts.query).get("model", [])
        own_name = encoder.folder.name if encoder.folder is not None else ""
        self._model = named[0] if named else own_name or "minilm"
        self._size = encoder.config.hidden_size
        self._seconds, self._largest = seconds, largest
        self._url = url
        self.name = f"{parts.scheme}://{parts.netloc}{path}"

    def vectors(self, texts: Sequence[str]) -> Array:
        found = [self._ask(list(texts[start : start + BATCH])) for start in range(0, len(texts), BATCH)]
        if len({len(part[0]) for part in found}) > 1:
            raise ImplementationError(f"{self.name}: it answered with vectors of different lengths")
        return np.concatenate(found) if found else np.empty((0, self._size))

    def intermediates(self, texts: Sequence[str]) -> None:
        return None

    def token_ids(self, texts: Sequence[str]) -> None:
        return None

    def _ask(self, texts: list[str]) -> Array:
        """One request of at most BATCH texts."""
        body: dict[str, Any] = {"inputs": texts, "truncate": True}
        if self._is_openai:
            body = {"model": self._model, "input": texts, "encoding_format": "float"}
        try:
            answer = json.loads(self._post(json.dumps(body).encode()))
        except (ValueError, RecursionError) as error:
            raise ImplementationError(f"{self.name}: its answer is not JSON: {error}") from None
        rows = _in_order(answer, len(texts)) if self._is_openai else answer
        if not isinstance(rows, list) or len(rows) != len(texts):
            raise ImplementationError(f"{self.name}: expected {len(texts)} vectors, found {json.dumps(answer)[:200]}")
        try:
            return as_vectors(rows, [f"{self.name}: vector {number}" for number in range(len(rows))])
        except InputValueError as error:
            raise ImplementationError(str(error)) from None

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "minilm-np"}
        request = urllib.request.Request(self._url, body, headers)
        deadline = time.monotonic() + self._seconds
        answer = b""
        try:
            with urllib.request.build_opener(_NoRedirection).open(request, timeout=self._seconds) as response:
                # piece by piece: the socket's own time-out is for each of them, and a server may drip
                while piece := response.read1(1 << 16):
                    answer += piece
                    if len(answer) > self._largest:
                        raise ImplementationError(f"{self.name}: its answer is longer than {self._largest} bytes")
                    if time.monotonic() > deadline:
                        raise TimeoutError
                if response.length:
                    raise ImplementationError(f"{self.name}: its answer ends {response.length} bytes too early")
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(200).decode(errors="replace").strip()
            raise ImplementationError(f"{self.name}: it answered {error.code} {error.reason}: {said}") from None
        except TimeoutError:
            raise ImplementationError(f"{self.name}: no whole answer within {self._seconds:g} seconds") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            hint = ": is the server running, and on this port?" if isinstance(reason, ConnectionRefusedError) else ""
            raise ImplementationError(
                f"{self.name}: it cannot be asked: {reason or type(error).__name__}{hint}"
            ) from None
        return answer


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """A redirected POST becomes a GET, without its texts: let it be an error."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _in_order(answer: Any, count: int) -> list[Any] | None:
    """OpenAI's answer -> the embeddings by their index; None where it is something else."""
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        return None
    places = [item.get("index", place) for place, item in enumerate(data)]
    if not all(isinstance(place, int) for place in places):
        return None
    by_index = {place: item.get("embedding") for place, item in zip(places, data, strict=True)}
    return [by_index[place] for place in range(count)] if set(by_index) == set(range(count)) else None
