"""A call of every public method and function, and the bits of what it returns."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import GeneratorType
from typing import Any

import numpy as np

from minilm_np import SentenceEncoder, util
from minilm_np.evaluation import retrieval_vectors
from tests.faults.writers import CONFIG

TEXTS = ["a", "", "the second text", "Ünïcödé, RÉSUMÉ: 東京 [SEP]", "one that goes on and on, beyond 32 tokens"] * 3
LONG = "abc def. " * 40
CLOSE = 1e-30  # the vectors of some calls are so small that squares of their numbers are subnormal, or zero


def public_calls(encoder: SentenceEncoder) -> dict[str, Callable[[], object]]:
    """Calls by name: the method's or function's name, and after a space what the call is about."""
    quiet: dict[str, Any] = {"on_truncation": "ignore"}
    vectors = encoder.encode(TEXTS, **quiet)
    a, b = vectors[:8], vectors[7:]
    config, tokenizer, weights = encoder.config, encoder.tokenizer, encoder.weights

    def saved() -> Iterator[tuple[str, bytes]]:
        with TemporaryDirectory() as folder:
            encoder.save_pretrained(Path(folder, "model"))
            for path in sorted(Path(folder).rglob("*.*")):
                yield path.name, path.read_bytes()

    def truncated() -> np.ndarray:
        with SentenceEncoder._of(encoder.model).truncate_embeddings(5):  # another object, because all threads see it
            return encoder.encode(TEXTS, **quiet)

    calls: dict[str, Callable[[], object]] = {
        "encode texts": lambda: encoder.encode(TEXTS, **quiet),
        "encode one": lambda: encoder.encode(TEXTS[2]),
        "encode binary": lambda: encoder.encode(TEXTS, precision="binary", **quiet),
        "encode tokens": lambda: encoder.encode(TEXTS, output_value="token_embeddings", **quiet),
        "encode everything": lambda: encoder.encode(TEXTS, output_value=None, **quiet),
        "encode normalized": lambda: encoder.encode(TEXTS, normalize_embeddings=True, truncate_dim=7, **quiet),
        "encode_query": lambda: encoder.encode_query(TEXTS, prompt="query: ", **quiet),
        "encode_document": lambda: encoder.encode_document(TEXTS, **quiet),
        "encode_iter": lambda: list(encoder.encode_iter(iter(TEXTS), 4, **quiet)),
        "encode_long": lambda: encoder.encode_long([LONG, TEXTS[0]], 16, 8),
        "encode_long windows": lambda: encoder.encode_long(LONG, 16, 8, pooling=None),
        "trace": lambda: dict(encoder.trace(TEXTS[2])),
        "trace numba": lambda: dict(encoder.trace(TEXTS[2], backend="numba")),
        "fingerprint": lambda: encoder.fingerprint(TEXTS),
        "tokenize": lambda: encoder.tokenize(TEXTS),
        "preprocess": lambda: encoder.preprocess(TEXTS),
        "tokenize_report": lambda: encoder.tokenize_report(TEXTS),
        "similarity": lambda: encoder.similarity(a, b),
        "similarity_pairwise": lambda: encoder.similarity_pairwise(a, b),
        "weights": lambda: encoder.weights,
        "weights_digest": lambda: encoder.weights_digest,
        "save_pretrained": lambda: list(saved()),
        "truncate_embeddings": truncated,
        "random": lambda: SentenceEncoder.random(CONFIG, 1).encode(TEXTS, **quiet),
        "from_weights": lambda: SentenceEncoder.from_weights(config, tokenizer, weights).encode(TEXTS, **quiet),
        "get_embedding_dimension": encoder.get_embedding_dimension,
        "get_max_seq_length": encoder.get_max_seq_length,
        "get_sentence_embedding_dimension": encoder.get_sentence_embedding_dimension,
        "retrieval_vectors": lambda: retrieval_vectors(a, b, [[n] for n in range(8)]),
        "quantize_embeddings": lambda: util.quantize_embeddings(vectors, "ubinary"),
        "semantic_search": lambda: util.semantic_search(a, b, top_k=3),
        "community_detection": lambda: util.community_detection(vectors, 0.9, 2),
        "paraphrase_mining": lambda: util.paraphrase_mining(encoder, [text[:20] for text in TEXTS]),
        "paraphrase_mining_embeddings": lambda: util.paraphrase_mining_embeddings(vectors),
        "normalize_embeddings": lambda: util.normalize_embeddings(vectors),
        "normalize_embeddings small": lambda: util.normalize_embeddings(vectors * np.float32(CLOSE)),
        "util.truncate_embeddings": lambda: util.truncate_embeddings(vectors, 3),
    }
    for name in ("cos_sim", "dot_score", "euclidean_sim", "manhattan_sim"):
        matrix, pairwise = getattr(util, name), getattr(util, f"pairwise_{name}")
        calls[name] = lambda matrix=matrix: matrix(a, b)  # type: ignore[misc]
        calls[f"{name} small"] = lambda matrix=matrix: matrix(a * np.float32(CLOSE), b)  # type: ignore[misc]
        calls[f"pairwise_{name}"] = lambda pairwise=pairwise: pairwise(a, b)  # type: ignore[misc]
    calls["pairwise_angle_sim"] = lambda: util.pairwise_angle_sim(a, b)
    return calls


# public names that are not called: properties that hold no result of a computation, and other names of methods
_OTHERS = {
    "SimilarityFunction", "backend", "compute_type", "config", "contract", "default_prompt_name", "device", "folder",
    "max_seq_length", "model", "model_card_data", "model_path", "prompts", "pytorch_cos_sim", "save", "settings",
    "similarity_fn_name", "threads", "tokenizer", "truncate_dim", "truncate_sentence_embeddings", "use",
}  # fmt: skip


def not_called(calls: Mapping[str, object]) -> set[str]:
    """The public methods of SentenceEncoder and functions of `util` that no call is about."""
    public = {name for name in dir(SentenceEncoder) if not name.startswith("_")} | set(util.__all__)
    return public - {name.split()[0].removeprefix("util.") for name in calls} - _OTHERS


def bits(value: Any) -> str:
    """A digest of a result: of every array dtype, shape and bytes, of everything else its repr."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
        elif isinstance(value, Mapping):
            for key, item in value.items():
                digest.update(f"{key}:".encode())
                add(item)
        elif isinstance(value, list | tuple | GeneratorType):
            digest.update(b"[")
            for item in value:
                add(item)
            digest.update(b"]")
        else:
            digest.update(repr(value).encode())

    add(value)
    return digest.hexdigest()
