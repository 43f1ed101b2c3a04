"""Vectors and scores to JSON; vectors in parts of bounded size.

orjson writes a float32 as the shortest decimal that reads back as the same bits. It reads the array itself: 384 numbers
take 11 microseconds. `json.dumps` takes 300, and writes more digits.
"""

import base64
import uuid
from collections.abc import Iterator, Sequence

import numpy as np
import orjson

from minilm_np.engine.classifier import activate
from minilm_np.engine.protocol import Vectors

PART = 64  # vectors; 64 of 384 numbers are 280 kB of JSON


def openai_parts(vectors: Vectors, model: str, n_tokens: int, *, as_base64: bool) -> Iterator[bytes]:
    """Yield the JSON of a response of POST /v1/embeddings. as_base64: little-endian float32 instead of numbers."""
    yield b'{"object":"list","data":['
    for start in range(0, len(vectors), PART):
        rows = vectors[start : start + PART]
        embeddings = [_base64(row) for row in rows] if as_base64 else rows
        items = [
            {"object": "embedding", "index": index, "embedding": embedding}
            for index, embedding in enumerate(embeddings, start)
        ]
        yield _items(items, start)
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    yield b'],"model":' + orjson.dumps(model) + b',"usage":' + orjson.dumps(usage) + b"}"


def tei_parts(vectors: Vectors) -> Iterator[bytes]:
    """Yield the JSON of a response of POST /embed: an array of arrays."""
    yield b"["
    for start in range(0, len(vectors), PART):
        yield _items(vectors[start : start + PART], start)
    yield b"]"


def _items(items: object, start: int) -> bytes:
    """JSON items without the brackets around them; `start` is the index of the first one."""
    return (b"," if start else b"") + orjson.dumps(items, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


def _base64(vector: Vectors) -> str:
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode()


def cosines(vectors: Vectors) -> bytes:
    """Return JSON: the cosine of the first vector, of unit length, and each other one. Computed in float64."""
    wide = vectors.astype(np.float64)
    return orjson.dumps((wide[1:] * wide[0]).sum(axis=1).astype(np.float32), option=orjson.OPT_SERIALIZE_NUMPY)


def tei_ranks(logits: Vectors, texts: Sequence[str] | None, *, raw_scores: bool) -> bytes:
    """Return the JSON of a response of POST /rerank: the texts by their scores, the best one first.

    logits: (n, 1). texts: to repeat; None: none. raw_scores: the scores are the logits; else they are from 0 to 1.
    """
    scores = logits[:, 0] if raw_scores else _probabilities(logits)
    ranks = [
        {"index": number, "score": scores[number]} | ({} if texts is None else {"text": texts[number]})
        for number in _best_first(logits)
    ]
    return orjson.dumps(ranks, option=orjson.OPT_SERIALIZE_NUMPY)


def v1_ranks(logits: Vectors, texts: Sequence[str] | None, top: int | None, model: str, n_tokens: int) -> bytes:
    """Return the JSON of a response of POST /v1/rerank: the `top` best documents. Scores are from 0 to 1.

    The other arguments are those of `tei_ranks`. `id` and `meta` are Cohere's, `model` and `usage` Jina's.
    """
    scores = _probabilities(logits)
    results = [
        {"index": number, "relevance_score": scores[number]}
        | ({} if texts is None else {"document": {"text": texts[number]}})
        for number in _best_first(logits)[:top]
    ]
    answer = {
        "id": str(uuid.uuid4()), "model": model, "results": results, "usage": {"total_tokens": n_tokens},
        "meta": {"api_version": {"version": "1"}},
    }  # fmt: skip
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _best_first(logits: Vectors) -> list[int]:  # (n, 1)
    """The numbers of the texts by their logits; those with equal ones stay in their order."""
    return np.argsort(-logits[:, 0], kind="stable").tolist()


def _probabilities(logits: Vectors) -> Vectors:  # (n, 1) -> (n,)
    """The sigmoid of each logit, whatever the activation of the model is, as in text-embeddings-inference."""
    return activate(logits, "Sigmoid")[:, 0]
