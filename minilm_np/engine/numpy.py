"""The readable engine: `reference.py` over batches of bounded size. Its last bits depend on BLAS and batch."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm_np import reference
from minilm_np._checks import check_ids, check_token_types
from minilm_np.engine.blas import one_blas_thread
from minilm_np.engine.protocol import Report, Vectors, Weights
from minilm_np.model_files.checkpoint import parameter_shapes
from minilm_np.model_files.config import ModelConfig

SHORT_TOKENS = 64  # up to this number of rows in a matrix, a second thread of BLAS costs more than it saves


class NumpyEngine:
    """`reference.py` as an engine.

    weights: (name, float32 array) for every parameter, in any order; stored without a copy.
    dtype: float32 as published, or float64 as a reference for measuring other results.
    """

    BATCH_TOKENS = 4096
    threads = None  # BLAS decides

    def __init__(
        self, config: ModelConfig, weights: Iterable[tuple[str, Vectors]], dtype: type[np.floating[Any]] = np.float32
    ) -> None:
        unordered = dict(weights)
        self._config = config
        self._weights = {name: unordered[name] for name in parameter_shapes(config)}
        self._nested = reference.nest(self._weights, dtype)

    def encode(
        self,
        texts: Sequence[Sequence[int]],
        *,
        normalize: bool,
        report: Report,
        token_type_ids: Sequence[Sequence[int]] | None = None,
    ) -> Vectors:
        check_ids(texts, self._config.vocab_size, self._config.max_tokens)
        check_token_types(token_type_ids, texts, self._config.type_vocab_size)
        vectors = np.empty((len(texts), self._config.vector_size), np.float32)
        rows = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        with np.errstate(all="ignore"):  # the caller checks for non-finite vectors and names the text
            while rows:
                size = max(1, self.BATCH_TOKENS // len(texts[rows[0]]))
                batch, rows = rows[:size], rows[size:]
                counts = Counter(len(texts[row]) for row in batch)  # texts of one length are one matrix
                types = None if token_type_ids is None else [token_type_ids[row] for row in batch]
                with _blas_threads(max(length * count for length, count in counts.items())):
                    vectors[batch] = reference.encode_ragged(
                        [texts[row] for row in batch], self._nested, self._config, types
                    )
                report(len(batch))
            return reference.normalize(vectors) if normalize and not self._config.normalize else vectors

    def encode_with_hidden_states(
        self, texts: Sequence[Sequence[int]], *, normalize: bool, report: Report
    ) -> tuple[Vectors, list[Vectors]]:
        check_ids(texts, self._config.vocab_size, self._config.max_tokens)
        vectors = np.empty((len(texts), self._config.vector_size), np.float32)
        hidden_states = []
        with np.errstate(all="ignore"):
            for row, text in enumerate(texts):
                with _blas_threads(len(text)):
                    x = reference.encoder(np.array(text), None, None, self._nested, self._config)  # (T, D)
                pooled = reference.pooling(x, None, self._config.pooling_mode)
                vectors[row] = self.output(pooled, normalize=normalize)
                hidden_states.append(x)
                report(1)
        return vectors, hidden_states

    def output(self, pooled: Vectors, *, normalize: bool) -> Vectors:
        config, vectors = self._config, pooled
        with np.errstate(all="ignore"):
            if config.dense_size is not None:
                vectors = reference.dense(vectors, self._nested["dense"]["linear"], config.dense_activation)
            return reference.normalize(vectors) if normalize or config.normalize else vectors

    def intermediates(
        self, text: Sequence[int], token_type_ids: Sequence[int] | None = None
    ) -> dict[str, NDArray[Any]]:
        check_ids([text], self._config.vocab_size, self._config.max_tokens)
        types = None
        if token_type_ids is not None:
            check_token_types([token_type_ids], [text], self._config.type_vocab_size)
            types = np.array(token_type_ids, np.int64)
        return intermediates(np.array(text, np.int64), self._nested, self._config, token_type_ids=types)

    def weights(self) -> Weights:
        return self._weights

    def iter_weights(self) -> Iterator[tuple[str, Vectors]]:
        return iter(self._weights.items())


def _blas_threads(n_tokens: int) -> AbstractContextManager[None]:
    return one_blas_thread() if n_tokens <= SHORT_TOKENS else nullcontext()


def intermediates(
    ids: NDArray[np.integer[Any]], weights: reference.Nested, config: ModelConfig, *,
    mask: NDArray[np.bool_] | None = None, token_type_ids: NDArray[np.integer[Any]] | None = None,
) -> dict[str, reference.Array]:  # fmt: skip
    """Return a copy of every array that `reference.forward` records, by name, in the model's order.

    The arguments are those of `reference.forward`; the arrays have the dtype of the weights. Infinities and NaNs stay
    in the arrays without a warning, so that their origin can be found. `embeddings.position_embeddings` is (T, D) for
    a batch, too, if positions count from 0.
    """
    return _recorded(
        ids.size,
        lambda record: reference.forward(ids, weights, config, mask=mask, token_type_ids=token_type_ids, record=record),
    )


def pair_intermediates(
    ids: Sequence[int], token_type_ids: Sequence[int], weights: reference.Nested, config: ModelConfig
) -> dict[str, reference.Array]:
    """Return a copy of every array that `reference.classify` records of one pair, as `intermediates` does."""
    return _recorded(
        len(ids),
        lambda record: reference.classify(np.array(ids), np.array(token_type_ids), weights, config, record=record),
    )


def _recorded(n_tokens: int, compute: Callable[[reference.Record], reference.Array]) -> dict[str, reference.Array]:
    """A copy of every array that a computation records."""
    copies: dict[str, reference.Array] = {}

    def record(name: str, x: reference.Array) -> reference.Array:
        copies[name] = x.copy()  # some are views of a table, or of an array that is recorded already
        return x

    with np.errstate(all="ignore"), _blas_threads(n_tokens):
        compute(record)
    return copies
