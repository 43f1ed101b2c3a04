"""Texts to vectors through an engine that takes padded batches: what the peers share.

Each of them gets what helps it: the `tokenizers` library on as many threads, texts sorted by length, batches of the
size that is fastest for this engine and this workload, the mean and the norm in a few NumPy calls.
"""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

FIRST_SIZE = 1024  # tokens per batch, padding included; `tune` doubles or halves it
SAMPLES = 8  # batches that `tune` measures for each size

Hidden = Callable[[list[list[int]], Any, Any], Any]  # ragged ids, the same padded (B, T), mask (B, T) -> (B, T, D)
Batches = list[list[int]]  # the numbers of the texts of each batch, longest text first


class Padded:
    """Encode texts in padded batches, `callers` of them at a time.

    make_hidden: makes the function that computes the last hidden states; called once in each thread.
    """

    def __init__(self, folder: str, make_hidden: Callable[[], Hidden], callers: int) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(256)
        self._make_hidden, self._callers = make_hidden, callers
        self._local, self._executor = threading.local(), None  # type: Any, Any

    def __call__(self, texts: Sequence[str], size: int = FIRST_SIZE) -> Any:
        """Return the vectors (B, D). size: tokens per batch, padding included."""
        import numpy as np

        ids = self._tokenize(texts)
        batches = self._batches(ids, size)
        vectors: Any = None
        for batch, part in zip(batches, self._run(ids, batches), strict=True):
            if vectors is None:
                vectors = np.empty((len(ids), part.shape[1]), np.float32)
            vectors[batch] = part
        return vectors

    def tune(self, texts: Sequence[str]) -> int:
        """Return the fastest number of tokens per batch for these texts. Measures some of the batches of each size."""
        ids, found = self._tokenize(texts), dict[int, float]()
        most = 2 * sum(map(len, ids))

        def cost(size: int) -> float:
            if size not in found:
                batches = self._batches(ids, size)
                sample = batches[:: max(1, len(batches) // SAMPLES)]
                seconds = []
                for _ in range(3):  # the first compiles what an engine compiles for each shape
                    start = time.perf_counter()
                    self._run(ids, sample)
                    seconds.append(time.perf_counter() - start)
                found[size] = min(seconds[1:]) / sum(len(ids[row]) for batch in sample for row in batch)
            return found[size]

        best = FIRST_SIZE
        for factor in (2, 1 / 2):
            while 64 <= best * factor <= most and cost(int(best * factor)) < cost(best):
                best = int(best * factor)
        return best

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def _batches(self, ids: list[list[int]], size: int) -> Batches:
        """Return the texts sorted by length, in batches of at most `size` padded tokens, or of one text."""
        size = min(size, -(-sum(map(len, ids)) // self._callers))  # one batch per caller, at least
        batches: Batches = []
        for row in sorted(range(len(ids)), key=lambda row: -len(ids[row])):
            if batches and len(ids[batches[-1][0]]) * (len(batches[-1]) + 1) <= size:
                batches[-1].append(row)
            else:
                batches.append([row])
        return batches

    def _run(self, ids: list[list[int]], batches: Batches) -> list[Any]:
        """Return the vectors of each batch."""
        arguments = [[ids[row] for row in batch] for batch in batches]
        if len(batches) == 1 or self._callers == 1:
            return list(map(self._run_batch, arguments))
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor

            self._executor = ThreadPoolExecutor(self._callers)
        return list(self._executor.map(self._run_batch, arguments))

    def _run_batch(self, ids: list[list[int]]) -> Any:
        import numpy as np

        if not hasattr(self._local, "hidden"):
            self._local.hidden = self._make_hidden()
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        mask = np.arange(lengths[0]) < lengths[:, None]  # (B, T), the longest text comes first
        token_ids = np.zeros(mask.shape, np.int64)
        token_ids[mask] = np.fromiter(itertools.chain.from_iterable(ids), np.int64, lengths.sum())
        hidden = self._local.hidden(ids, token_ids, mask)  # (B, T, D)
        means = (mask[:, None].astype(np.float32) @ hidden)[:, 0] / lengths[:, None].astype(np.float32)  # (B, D)
        return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
