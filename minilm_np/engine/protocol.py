"""What turns token ids into vectors: the protocol, and `reference.py` as an engine (the other is `encoder.Encoder`)."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from minilm_np import reference
from minilm_np.errors import NonFiniteError
from minilm_np.model_files.checkpoint import parameter_shapes
from minilm_np.model_files.config import ModelConfig

Vectors = NDArray[np.float32]
Weights = dict[str, Vectors]


class Engine(Protocol):
    """What turns token ids into vectors: `encoder.Encoder`, or `ReferenceEngine` below."""

    @property
    def threads(self) -> int | None: ...

    def encode(self, texts: Sequence[Sequence[int]], *, normalize: bool, report: Callable[[int], object]) -> Vectors:
        """Ragged token ids of B texts -> (B, D), scaled to unit length where the model does or `normalize` asks for it.

        report: called with the number of texts that were done since.
        """

    def intermediates(self, text: Sequence[int]) -> dict[str, Vectors]:
        """Arrays of one text by the names of `reference.py`, among them the output of the last layer."""

    def weights(self) -> Weights:
        """The weights by Hugging Face's names, in the model's order; read-only."""


class ReferenceEngine:
    """`reference.py` as an engine: texts of similar length together, a bounded number of tokens at a time."""

    BATCH_TOKENS = 4096
    threads = None

    def __init__(self, config: ModelConfig, weights: Iterable[tuple[str, Vectors]]) -> None:
        unordered = dict(weights)
        self._config = config
        self._weights = {name: unordered[name] for name in parameter_shapes(config)}
        self._nested = reference.nest(self._weights)

    def encode(self, texts: Sequence[Sequence[int]], *, normalize: bool, report: Callable[[int], object]) -> Vectors:
        vectors = np.empty((len(texts), self._config.hidden_size), np.float32)
        rows = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        with np.errstate(all="ignore"):  # check_finite names the text, which a warning cannot
            while rows:
                size = max(1, self.BATCH_TOKENS // len(texts[rows[0]]))
                batch, rows = rows[:size], rows[size:]
                vectors[batch] = reference.encode_ragged([texts[row] for row in batch], self._nested, self._config)
                report(len(batch))
            return reference.normalize(vectors) if normalize and not self._config.normalize else vectors

    def intermediates(self, text: Sequence[int]) -> dict[str, Vectors]:
        with np.errstate(all="ignore"):
            x = reference.encoder(np.array(text), None, None, self._nested, self._config)
        return {_last_layer(self._config): x}

    def weights(self) -> Weights:
        return self._weights


def token_vectors(engine: Engine, config: ModelConfig, text: Sequence[int]) -> Vectors:
    """The hidden states of one text's T tokens after the last layer, (T, D): what pooling makes a vector of."""
    return engine.intermediates(text)[_last_layer(config)]


def _last_layer(config: ModelConfig) -> str:
    return f"encoder.layer.{config.num_hidden_layers - 1}.output.LayerNorm"


def check_finite(vectors: Vectors, first: int) -> None:
    """Raise NonFiniteError, naming the text whose vector is NaN or infinite; `first` is the number of the first one."""
    if not np.isfinite(vectors).all():
        row = first + int(np.argmin(np.isfinite(vectors).all(axis=1)))
        raise NonFiniteError(
            f"text {row}: its vector is not finite. The weights overflow float32 on this text: check the model that "
            "was loaded"
        )
