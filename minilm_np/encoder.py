"""The Numba engine: workspaces, and who computes what. Ragged token ids in, vectors out.

`reference.py` is its twin: `encode_ragged` there, `Encoder.encode` here. The order of the kernels, and how threads
share one pass, is in `kernels/forward.py`. What is decided here is how many passes there are: few tokens make one
pass, which all threads share; many tokens make many passes of whole texts, which the threads take one by one.

The vectors' bits are those of the numerical contract, whatever is decided: see CONTRACT.md.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm_np import compiled, workers
from minilm_np.config import ModelConfig
from minilm_np.errors import InputValueError
from minilm_np.kernels.layout import COUNTER, PASS, POOLING_MODES, n_stages, scratch_size
from minilm_np.packed_weights import PackedWeights

Vectors = NDArray[np.float32]

CONTRACT_VERSION = 1  # of CONTRACT.md: changes when any bit of any vector may

CHUNK_TOKENS = 512  # of whole texts in one thread's pass; its activations are then 10 MB
SHARED_TOKENS = 1024  # up to so many tokens all threads share one pass
COLUMN_TOKENS = 64  # of which up to so many are shared by columns
TASKS_A_THREAD = 2  # of each stage of a shared pass: a thread that loses its processor leaves some to the others
CALL_SECONDS = 0.25  # one call into compiled code takes about this long at most, so that Ctrl-C is answered
ASSUMED_FLOPS = 2e10  # a second, of a slow core, to reckon that with


class Encoder:
    """A model's weights, packed for the kernels, and the threads that run them.

    config: the model. weights: (name, float32 array) of every parameter, see `PackedWeights`. threads: how many threads
    work on a call, the caller's included; None for `workers.default_threads()`. The kernels are compiled here, or
    loaded from the cache. Encoding changes nothing that another call sees: many threads may call one encoder.

    Raises InputTypeError, InputValueError: threads is not a number of at least 1.
    """

    def __init__(self, config: ModelConfig, weights: Iterable[tuple[str, Vectors]], threads: int | None = None) -> None:
        self.config = config
        self.threads = workers.check_threads(threads)
        self._packed = PackedWeights(config, weights)
        self.kernels = compiled.load()
        self._model = self._described()
        self._idle: deque[_Workspace] = deque(maxlen=2 * self.threads)  # of passes that are over
        D, F = config.hidden_size, config.intermediate_size
        flops = (8 * D * D + 4 * D * F) * max(CHUNK_TOKENS, config.max_position_embeddings)  # of a layer, at most
        self.call_layers = max(1, int(CALL_SECONDS * ASSUMED_FLOPS / flops))

    def _described(self) -> Any:
        """A `layout.PASS` record with all that is the same for every pass."""
        config, record = self.config, np.zeros(1, PASS)
        record["n_layers"], record["n_heads"] = config.num_hidden_layers, config.num_attention_heads
        record["hidden_size"], record["intermediate_size"] = config.hidden_size, config.intermediate_size
        record["vocab_size"], record["positions"] = config.vocab_size, config.max_position_embeddings
        record["token_types"] = config.type_vocab_size
        record["pooling_mode"], record["normalizes"] = POOLING_MODES.index(config.pooling_mode), config.normalize
        record["eps"], record["scale"] = config.layer_norm_eps, 1.0 / math.sqrt(config.head_size)
        for field, array in self._packed.arrays.items():
            record[field] = array.ctypes.data
        return record

    def weights(self) -> dict[str, Vectors]:
        """The weights as they came, by the names and in the order of `parameter_shapes`; read-only."""
        return self._packed.unpacked()

    def encode(
        self,
        texts: Sequence[Sequence[int]],
        *,
        normalize: bool = False,
        report: Callable[[int], None] = lambda done: None,
    ) -> Vectors:  # B texts of T tokens each, whatever T -> (B, D)
        """Sentence vectors of token ids, at least one and at most max_position_embeddings of them a text.

        normalize: scale them to unit length even if the model does not.
        report: called from any thread with the number of texts that were done since.
        Raises InputValueError: a text of another length, or an id that the model does not embed.
        """
        self._check(texts)
        vectors = np.empty((len(texts), self.config.hidden_size), np.float32)
        if self.threads > 1 and 1 <= sum(map(len, texts)) <= SHARED_TOKENS:
            self._encode_together(texts, normalize, vectors)
            report(len(texts))
        else:
            self._encode_apart(texts, normalize, vectors, report)
        return vectors

    def _encode_together(self, texts: Sequence[Sequence[int]], normalize: bool, vectors: Vectors) -> None:
        """One pass, shared by all threads."""
        by_columns = sum(map(len, texts)) <= COLUMN_TOKENS
        shared = _Pass(self, texts, normalize, by_columns, self.threads)
        members = itertools.count()
        workers.run(lambda: shared.run(next(members)), self.threads - 1, cancel=lambda: None)
        vectors[:] = shared.finish()

    def _encode_apart(
        self, texts: Sequence[Sequence[int]], normalize: bool, vectors: Vectors, report: Callable[[int], None]
    ) -> None:
        """Passes of whole texts, which the threads take one after the other."""
        lengths = [len(text) for text in texts]
        rows = sorted(range(len(texts)), key=lambda row: -lengths[row])  # the longest first, for an even end
        budget = min(CHUNK_TOKENS, max(COLUMN_TOKENS, sum(lengths) // (8 * self.threads)))
        waiting = deque(_chunks(rows, lengths, budget))

        def work() -> None:
            while True:
                try:
                    chunk = waiting.popleft()
                except IndexError:
                    return
                alone = _Pass(self, [texts[row] for row in chunk], normalize, False, 1)
                alone.run(0)
                vectors[chunk] = alone.finish()
                report(len(chunk))

        workers.run(work, min(self.threads, len(waiting)) - 1, cancel=waiting.clear)

    def _check(self, texts: Sequence[Sequence[int]]) -> None:
        """The kernels check nothing: an id or a position outside its table would read foreign memory."""
        V, P = self.config.vocab_size, self.config.max_position_embeddings
        for number, text in enumerate(texts):
            if not 1 <= len(text) <= P:
                raise InputValueError(f"text {number}: expected 1 to {P} tokens, found {len(text)}")
            if min(text) < 0 or max(text) >= V:
                found = min(text) if min(text) < 0 else max(text)
                raise InputValueError(f"text {number}: expected token ids from 0 to {V - 1}, found {found}")

    def workspace(self, n_tokens: int, longest: int, members: int) -> "_Workspace":
        """One that is free and large enough, or a new one."""
        while True:
            try:
                workspace = self._idle.popleft()
            except IndexError:
                break
            if workspace.holds(n_tokens, longest, members):
                return workspace
        config = self.config
        return _Workspace(config, max(n_tokens, CHUNK_TOKENS), max(longest, config.max_seq_length), members)

    def give_back(self, workspace: "_Workspace") -> None:
        """Let other passes use a workspace that no thread writes any more."""
        self._idle.append(workspace)


class _Pass:
    """A ragged batch on its way through the model. Each of its threads calls `run`; when all are back, `finish`."""

    def __init__(
        self, encoder: Encoder, texts: Sequence[Sequence[int]], normalize: bool, by_columns: bool, members: int
    ) -> None:
        lengths = [len(text) for text in texts]
        N = sum(lengths)
        token_ids = np.fromiter(itertools.chain.from_iterable(texts), np.int64, N)
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        position_ids = np.arange(N) - np.repeat(offsets[:-1], lengths)
        self._stages = n_stages(encoder.config.num_hidden_layers, by_columns)
        self._call_stages = encoder.call_layers * (n_stages(1, by_columns) - n_stages(0, by_columns)) + 1
        self._encoder = encoder
        self._workspace = encoder.workspace(N, max(lengths), members)
        self._out = np.empty((len(texts), encoder.config.hidden_size), np.float32)
        # the record holds addresses only: here is what keeps the arrays alive
        self._arrays: dict[str, NDArray[Any]] = {
            "token_ids": token_ids,
            "position_ids": position_ids,
            "offsets": offsets,
            "counters": np.zeros(COUNTER * self._stages, np.int64),
            "out": self._out,
            **self._workspace.arrays,
        }
        record = encoder._model.copy()
        record["n_texts"], record["n_tokens"] = len(texts), N
        record["by_columns"], record["members"] = by_columns, members
        record["tasks"] = TASKS_A_THREAD * members if members > 1 else 1
        record["scratch_size"] = self._workspace.arrays["scratch"].shape[1]
        record["normalizes"] |= normalize
        for field, array in self._arrays.items():
            record[field] = array.ctypes.data
        self._record = record

    def run(self, member: int) -> None:
        """Take part, in calls of a few layers each; the float mode is the contract's meanwhile."""
        kernels, record = self._encoder.kernels, self._record.copy()
        record["member"] = member
        mode = kernels.exchange_float_mode(compiled.STANDARD_FLOAT_MODE)
        try:
            for start in range(0, self._stages, self._call_stages):
                record["stage_start"], record["stage_stop"] = start, min(self._stages, start + self._call_stages)
                kernels.run_pass(record.ctypes.data)
        finally:
            kernels.exchange_float_mode(mode)

    def finish(self) -> Vectors:
        """The vectors; the workspace is free again."""
        self._encoder.give_back(self._workspace)
        return self._out


class _Workspace:
    """The arrays that one pass writes, for at most so many tokens, tokens of one text, and threads."""

    def __init__(self, config: ModelConfig, n_tokens: int, longest: int, members: int) -> None:
        D, F = config.hidden_size, config.intermediate_size
        self._n_tokens, self._longest, self._members = n_tokens, longest, members
        shapes = {
            "x": (n_tokens, D),
            "query_key_value": (n_tokens, 3 * D),
            "context": (n_tokens, D),
            "attended": (n_tokens, D),
            "intermediate": (n_tokens, F),
            "scratch": (members, scratch_size(longest, config.head_size)),
        }
        self.arrays = {field: np.empty(shape, np.float32) for field, shape in shapes.items()}

    def holds(self, n_tokens: int, longest: int, members: int) -> bool:
        return n_tokens <= self._n_tokens and longest <= self._longest and members <= self._members


def _chunks(rows: list[int], lengths: list[int], budget: int) -> Iterator[list[int]]:
    """Cut rows into runs of at most `budget` tokens, or of one text."""
    chunk: list[int] = []
    tokens = 0
    for row in rows:
        if chunk and tokens + lengths[row] > budget:
            yield chunk
            chunk, tokens = [], 0
        chunk.append(row)
        tokens += lengths[row]
    if chunk:
        yield chunk
