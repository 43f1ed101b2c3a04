"""A server of vectors over HTTP, with the API of OpenAI (/v1/embeddings) or text-embeddings-inference (/embed)."""

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

BATCH = 32  # texts per request: the default maximum of text-embeddings-inference
SECONDS = 120.0  # per request, from its start to the last byte of the response
LARGEST = 64 << 20  # bytes per response


class Endpoint:
    """The vectors that a server returns. No request is repeated, and no redirect is followed.

    url: ends in /v1/embeddings or /embed. OpenAI's API needs the name of a model: `?model=NAME` in the URL, or by
        default the name of the encoder's model.

    Raises InputValueError (another path), ImplementationError (no response, or one that cannot be read).
    """

    texts = None

    def __init__(self, url: str, encoder: SentenceEncoder, *, seconds: float = SECONDS, largest: int = LARGEST) -> None:
        parts = urllib.parse.urlsplit(url)
        path = parts.path.rstrip("/")
        self._is_openai = path.endswith("/embeddings")
        if not (self._is_openai or path.endswith("/embed")) or not parts.hostname:
            raise InputValueError(f"{url}: expected a URL that ends in /v1/embeddings or /embed")
        if parts.username is not None:
            raise InputValueError("the URL: expected one without a user name and a password")
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
        try:
            answer = json.loads(self._post(json.dumps(body).encode()))
        except (ValueError, RecursionError) as error:
            raise ImplementationError(f"{self.name}: the response is not JSON: {error}") from None
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
                # piece by piece: the timeout of the socket is per piece, and a server may send many small ones
                while piece := response.read1(1 << 16):
                    answer += piece
                    if len(answer) > self._largest:
                        raise ImplementationError(f"{self.name}: the response is longer than {self._largest} bytes")
                    if time.monotonic() > deadline:
                        raise TimeoutError
                if response.length:
                    raise ImplementationError(f"{self.name}: the response ends {response.length} bytes too early")
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(200).decode(errors="replace").strip()
            raise ImplementationError(f"{self.name}: the server answered {error.code} {error.reason}: {said}") from None
        except TimeoutError:
            raise ImplementationError(f"{self.name}: no complete response within {self._seconds:g} seconds") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            hint = ": is the server running, and on this port?" if isinstance(reason, ConnectionRefusedError) else ""
            raise ImplementationError(
                f"{self.name}: the request failed: {reason or type(error).__name__}{hint}"
            ) from None
        return answer


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """Makes a redirect an error: the POST would become a GET without the texts."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _in_order(answer: Any, count: int) -> list[Any] | None:
    """The embeddings of a response of OpenAI's API, in the order of their index; None if it is another JSON."""
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        return None
    places = [item.get("index", place) for place, item in enumerate(data)]
    if not all(isinstance(place, int) for place in places):
        return None
    by_index = {place: item.get("embedding") for place, item in zip(places, data, strict=True)}
    return [by_index[place] for place in range(count)] if set(by_index) == set(range(count)) else None
