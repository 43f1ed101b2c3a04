"""The other implementations of a cross-encoder, by the name, path or URL that a command line gives."""

import io
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minilm_np._checks import printable
from minilm_np._files import MAX_ARRAYS, bounded_lines, open_regular, parse_json
from minilm_np.cross_encoder import CrossEncoder
from minilm_np.errors import ImplementationError, InputValueError
from minilm_np.verify.endpoint import BATCH, CHARACTERS, ENVELOPE, SECONDS, parts_of_url
from minilm_np.verify.http_post import post
from minilm_np.verify.implementations import PAIR_SOURCES
from minilm_np.verify.interface import Array, PairImplementation, TextPair
from minilm_np.verify.npy_files import read_floats
from minilm_np.verify.torch_pairs import SentenceTransformersPairs
from minilm_np.verify.vector_arrays import as_vector, stacked


def open_pair_implementation(source: str, model: CrossEncoder) -> PairImplementation:
    """Open another implementation, to compare it with a cross-encoder.

    source: `sentence-transformers`; the path of a file of scores (see `StoredScores`); or the URL of an endpoint with
        the API /rerank of text-embeddings-inference.

    Raises InputValueError (no such source or file, or no scores), MissingExtraError (a package is not installed),
    ImplementationError (the other implementation cannot load the folder).
    """
    if source == "sentence-transformers":
        return SentenceTransformersPairs(model)
    if re.match("https?://", source, re.IGNORECASE):
        return RerankEndpoint(source, model)
    path = Path(source)
    if path.suffix.lower() not in (".npy", ".jsonl"):
        raise InputValueError(f"source (--against): expected {PAIR_SOURCES} for a cross-encoder, found {source!r}")
    if not path.is_file():
        raise InputValueError(f"source (--against): there is no file {source}: check the path")
    return StoredScores(path)


class StoredScores:
    """A file of the scores of n pairs, as `CrossEncoder.predict` returns them.

    .npy: an (n,) or (n, C) array of floats, in the order of the pairs.
    .jsonl: one object per line, with `query`, `document` and `score`, a number or a list of C numbers.

    Raises InputValueError: the file is broken, empty, or contains something else.
    """

    activation = None

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.pairs: list[TextPair] | None = None
        try:
            if path.suffix.lower() == ".npy":
                self._scores = read_floats(path, (1, 2), "(pairs,) or (pairs, labels)")
            else:
                self.pairs, self._scores = _read_jsonl(path)
        except OSError as error:
            raise InputValueError(f"{path} cannot be read: {error.strerror or error}") from None

    def scores(self, pairs: Sequence[TextPair]) -> Array:
        """Return the scores of these pairs. Raises InputValueError: the file does not have them."""
        if self.pairs is None:
            if len(pairs) != len(self._scores):
                raise InputValueError(
                    f"{self.name} has {len(self._scores)} scores without pairs, but {len(pairs)} pairs are compared: "
                    "give the pairs of the scores, in their order (--texts FILE)"
                )
            return self._scores
        if list(pairs) == self.pairs:  # a pair may occur twice, with two scores
            return self._scores
        rows = {pair: row for row, pair in reversed(list(enumerate(self.pairs)))}
        if missing := [pair for pair in pairs if pair not in rows]:
            raise InputValueError(
                f"{self.name} has no score for {len(missing)} of the {len(pairs)} pairs, the first is "
                f"{missing[0]!r:.100}: leave out --texts, or give pairs of this file"
            )
        return self._scores[[rows[pair] for pair in pairs]]

    def intermediates(self, pair: TextPair) -> dict[str, Array]:
        return {}

    def token_ids(self, pairs: Sequence[TextPair]) -> None:
        return None


def _read_jsonl(path: Path) -> tuple[list[TextPair], Array]:
    pairs: list[TextPair] = []
    scores: list[Array] = []
    with open_regular(path, MAX_ARRAYS) as unbuffered, io.BufferedReader(unbuffered) as file:
        for number, line in enumerate(bounded_lines(file.readline), 1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                item = parse_json(line)
            except ValueError as error:
                raise InputValueError(f"{place}: {error}") from None
            query, document = (item.get("query"), item.get("document")) if isinstance(item, dict) else (None, None)
            if not isinstance(query, str) or not isinstance(document, str) or "score" not in item:
                raise InputValueError(
                    f'{place}: expected an object with "query", "document" and "score", found '
                    f"{line.strip()[:60].decode(errors='replace')}"
                )
            values = item["score"] if isinstance(item["score"], list) else [item["score"]]
            if not values or not all(type(value) in (int, float) for value in values):
                raise InputValueError(f"{place}: score: expected a number or a list of numbers")
            if scores and len(values) != len(scores[0]):
                raise InputValueError(f"{place}: score: expected {len(scores[0])} numbers, found {len(values)}")
            pairs.append((query, document))
            scores.append(as_vector(values, f"{place}: score", None))
    if not pairs:
        raise InputValueError(f"{path}: expected at least one score, found none")
    return pairs, stacked(scores)


class RerankEndpoint:
    """The scores that a server returns, asked for as logits. No request is repeated, and no redirect is followed.

    url: http:// or https://, ends in /rerank, with the API of text-embeddings-inference.

    Raises InputValueError (another URL), ImplementationError (no response, or one that cannot be read).
    """

    pairs = None
    activation = "Identity"

    def __init__(self, url: str, model: CrossEncoder) -> None:
        parts = parts_of_url(url)
        path = parts.path.rstrip("/")
        self.name = f"{parts.scheme}://{parts.netloc}{path}"
        if not path.endswith("/rerank") or path.endswith("/v1/rerank"):
            raise InputValueError(
                f"{self.name}: expected a URL that ends in /rerank, with the API of text-embeddings-inference"
            )
        if model.num_labels != 1:
            raise InputValueError(f"{self.name}: expected a model with 1 label, found {model.num_labels}")
        self._url = url

    def scores(self, pairs: Sequence[TextPair]) -> Array:
        found: list[float] = []
        for query, group in itertools.groupby(pairs, lambda pair: pair[0]):
            texts = [text for _, text in group]
            for start in range(0, len(texts), BATCH):
                found += self._ask(query, texts[start : start + BATCH])
        return np.array(found, np.float64)

    def intermediates(self, pair: TextPair) -> dict[str, Array]:
        return {}

    def token_ids(self, pairs: Sequence[TextPair]) -> None:
        return None

    def _ask(self, query: str, texts: list[str]) -> list[float]:
        """The scores of at most BATCH texts, by one request."""
        body = json.dumps({"query": query, "texts": texts, "raw_scores": True, "truncate": True}).encode()
        raw = post(self._url, body, name=self.name, seconds=SECONDS, largest=len(texts) * 4 * CHARACTERS + ENVELOPE)
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise ImplementationError(f"{self.name}: the response is not JSON: {error}") from None
        scores = _by_index(answer, len(texts))
        if scores is None:
            found = printable(raw[:200].decode(errors="replace"))
            raise ImplementationError(
                f"{self.name}: expected the index and the score of {len(texts)} texts, found {found}"
            )
        return [scores[index] for index in range(len(texts))]


def _by_index(answer: Any, count: int) -> dict[int, float] | None:
    """The scores of a response by the index of their texts; a score of null is NaN. None unless each text has one."""
    if not isinstance(answer, list) or len(answer) != count:
        return None
    scores: dict[int, float] = {}
    for item in answer:
        if not isinstance(item, dict) or type(item.get("index")) is not int or "score" not in item:
            return None
        try:
            scores[item["index"]] = float(as_vector([item["score"]], "score", None)[0])
        except InputValueError:
            return None
    return scores if scores.keys() == set(range(count)) else None
