"""From checked texts to what a call asked for: a bounded number of texts at a time, through tokenizer and engine."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm_np.engine.protocol import Engine, Vectors, check_finite, token_vectors
from minilm_np.errors import MissingExtraError
from minilm_np.model_files.config import ModelConfig
from minilm_np.text.tokenizer import TextTokenizer
from minilm_np.text.truncation import Truncation

SLICE = 4096  # texts whose tokens are kept at a time; enough to sort by length and share out evenly


@dataclass(frozen=True)
class Pipeline:
    """One call's way from texts to vectors: what takes part in it, and how."""

    config: ModelConfig
    tokenizer: TextTokenizer
    engine: Engine
    prefix: str  # put before each text
    truncation: Truncation
    normalize: bool
    dimension: int  # d, how many numbers of a vector are kept

    def vectors(self, texts: Sequence[str], report: Callable[[int], object], first: int = 0) -> Vectors:
        """Vectors of n texts that are checked, (n, d); `first` is the number of the first one, for errors."""
        truncates = self.dimension < self.config.hidden_size
        vectors = np.empty((len(texts), self.dimension), np.float32)
        for part, ids in self._slices(texts):
            whole = self.engine.encode(ids, normalize=self.normalize and not truncates, report=report)
            check_finite(whole, first + part.start)
            kept = whole[:, : self.dimension]
            vectors[part] = unit_length(kept) if self.normalize and truncates else kept
        return vectors

    def hidden_states(self, texts: Sequence[str], report: Callable[[int], object]) -> list[tuple[list[int], Vectors]]:
        """Of each text its T token ids and their vectors after the last layer, (T, D)."""
        found: list[tuple[list[int], Vectors]] = []
        for _, all_ids in self._slices(texts):
            for ids in all_ids:
                x = token_vectors(self.engine, self.config, ids)
                check_finite(x.reshape(1, -1), len(found))
                found.append((ids, x))
                report(1)
        return found

    def features(self, texts: Sequence[str], report: Callable[[int], object]) -> list[dict[str, Any]]:
        """All that sentence-transformers knows of a text, its features, with nothing padded."""
        found = []
        of_prompt = {"prompt_length": len(self.tokenizer([self.prefix]).ids[0]) - 1} if self.prefix else {}
        for ids, x in self.hidden_states(texts, report):
            features = {name: array[0] for name, array in padded([ids], 0).items()}  # (T,) each
            vector = self.engine.encode([ids], normalize=False, report=lambda done: None)[0, : self.dimension]
            found.append(
                {**features, "token_embeddings": x, "sentence_embedding": vector, "modality": "text", **of_prompt}
            )
        return found

    def _slices(self, texts: Sequence[str]) -> Iterator[tuple[slice, list[list[int]]]]:
        for start in range(0, len(texts), SLICE):
            part = slice(start, start + SLICE)
            some = texts[part]
            tokenized = self.tokenizer([self.prefix + text for text in some] if self.prefix else some)
            self.truncation.note(some, tokenized.truncated)
            yield part, tokenized.ids


def padded(texts: Sequence[Sequence[int]], pad_id: int) -> dict[str, NDArray[np.int64]]:
    """Token ids of B texts as torch's BertModel takes them, (B, T) each, padded to the longest."""
    B, T = len(texts), max(map(len, texts), default=0)
    input_ids = np.full((B, T), pad_id, np.int64)
    attention_mask = np.zeros((B, T), np.int64)
    for row, ids in enumerate(texts):
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
    return {
        "input_ids": input_ids,
        "token_type_ids": np.zeros((B, T), np.int64),
        "attention_mask": attention_mask,
    }


def unit_length(vectors: Vectors) -> Vectors:  # (n, d) -> (n, d)
    """Vectors scaled to unit length, with the same bits on every machine: float64, added in order, rounded once."""
    wide = vectors.astype(np.float64)
    squares = np.cumsum(wide * wide, axis=1)[:, -1:]  # `sum` may add in any order
    return (wide / np.maximum(np.sqrt(squares), 1e-12)).astype(np.float32)


def as_tensors(found: Any) -> Any:
    """Arrays, in lists and dicts too, as torch tensors that share their memory. Raises MissingExtraError."""
    try:
        import torch
    except ImportError:
        raise MissingExtraError(
            "convert_to_tensor=True needs torch, which is not installed: `pip install torch`, or take the arrays"
        ) from None
    if isinstance(found, list):
        return [as_tensors(one) for one in found]
    if isinstance(found, dict):
        return {name: as_tensors(one) for name, one in found.items()}
    return torch.from_numpy(found) if isinstance(found, np.ndarray) else found
