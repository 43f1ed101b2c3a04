"""Implementations for the tests of verify: a port with a planted fault, and stored vectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minilm_np import SentenceEncoder, reference

TEXTS = ["hello world", "", "a longer text than the others"]


class Port:
    """An implementation in float64 with a fault: `change` gets every step, and what it returns goes into the next."""

    name = "a port"
    texts = None

    def __init__(self, encoder: SentenceEncoder, change: Any = lambda name, x: x, ids: Any = None) -> None:
        self._encoder, self._change, self._ids = encoder, change, ids
        self._weights = reference.nest(encoder.weights, np.float64)

    def _run(self, text: str, record: Any) -> np.ndarray:
        ids = np.array(self._encoder.tokenizer([text]).ids[0], np.int64)
        return reference.forward(ids, self._weights, self._encoder.config, record=record)

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self._run(text, self._change) for text in texts])

    def intermediates(self, texts: Sequence[str]) -> list[dict[str, np.ndarray]]:
        found = []
        for text in texts:
            steps: dict[str, np.ndarray] = {}

            def keep(name: str, x: np.ndarray, steps: dict[str, np.ndarray] = steps) -> np.ndarray:
                steps[name] = self._change(name, x)
                return steps[name]

            self._run(text, keep)
            found.append(steps)
        return found

    def token_ids(self, texts: Sequence[str]) -> Any:
        return self._ids


def fault(where: str, change: Any) -> Any:
    return lambda name, x: change(x) if name == where else x


class Stored:
    """Vectors with no more to them."""

    name = "stored"

    def __init__(self, vectors: Any, texts: list[str] | None = None) -> None:
        self._vectors, self.texts = vectors, texts

    def vectors(self, texts: Sequence[str]) -> Any:
        return self._vectors

    def intermediates(self, texts: Sequence[str]) -> None:
        return None

    def token_ids(self, texts: Sequence[str]) -> None:
        return None


def recorded(encoder: SentenceEncoder, text: str) -> dict[str, np.ndarray]:
    """The intermediates of the reference in float32."""
    steps: dict[str, np.ndarray] = {}

    def keep(name: str, x: np.ndarray) -> np.ndarray:
        steps[name] = x
        return x

    ids = np.array(encoder.tokenizer([text]).ids[0], np.int64)
    reference.forward(ids, reference.nest(encoder.weights), encoder.config, record=keep)
    return steps
