"""Models whose pooling leaves out the tokens of a prompt: `include_prompt: false` in the folder's pooling config.

The engines pool whole texts. So the hidden states of texts with such a prompt come from an engine, and are pooled here.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from minilm_np.encoding.loaded_model import LoadedModel
from minilm_np.engine.doubles import pooling
from minilm_np.engine.protocol import Engine, Report, Vectors

BATCH_TOKENS = 65536  # whose hidden states are in memory at a time


def pooling_start(model: LoadedModel, prefix: str) -> int:
    """The first token that is pooled if `prefix` is put before a text: 0, or the number of tokens of the prompt.

    As in sentence-transformers, these are all tokens of the prompt alone except a special token at their end.
    """
    return 0 if model.config.include_prompt or not prefix else prompt_length(model, prefix)


def prompt_length(model: LoadedModel, prefix: str) -> int:
    """The number of tokens of a prompt alone, without a special token at their end."""
    return len(model.tokenizer([prefix]).ids[0]) - bool(model.tokenizer.after)


def encode(
    engine: Engine, texts: Sequence[Sequence[int]], start: int, mode: str, *, normalize: bool, report: Report
) -> Vectors:
    """Return what `engine.encode` does, if only the tokens from `start` on are pooled, by the model's pooling `mode`.

    A text that has no more tokens is represented by its last one.
    """
    if not start:
        return engine.encode(texts, normalize=normalize, report=report)
    vectors = [
        encode_with_hidden_states(engine, batch, start, mode, normalize=normalize, report=report)[0]
        for batch in _batches(texts)
    ]
    return np.concatenate(vectors) if vectors else engine.encode([], normalize=normalize, report=report)


def encode_with_hidden_states(
    engine: Engine, texts: Sequence[Sequence[int]], start: int, mode: str, *, normalize: bool, report: Report
) -> tuple[Vectors, list[Vectors]]:
    """Return what `encode` does, and for each text the hidden states after the last layer, (T, D)."""
    vectors, hidden_states = engine.encode_with_hidden_states(texts, normalize=normalize, report=report)
    if start and len(texts):
        pooled = np.stack([pooling(x, mode, min(start, len(x) - 1)) for x in hidden_states])
        vectors = engine.output(pooled, normalize=normalize)
    return vectors, hidden_states


def _batches(texts: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    batch: list[Sequence[int]] = []
    n_tokens = 0
    for ids in texts:
        if batch and n_tokens + len(ids) > BATCH_TOKENS:
            yield batch
            batch, n_tokens = [], 0
        batch.append(ids)
        n_tokens += len(ids)
    if batch:
        yield batch
