"""The Numba engine: workspaces, and who computes what. Ragged token ids in, vectors out.

`reference.py` is its twin: `encode_ragged` there, `Encoder.encode` here. The order of the kernels, and how threads
share one pass, is in `kernels/forward.py`. What is decided here is how many passes there are: few tokens make one
pass, which all threads share; many tokens make many passes of whole texts, which the threads take one by one.

The vectors' bits are those of the numerical contract, whatever is decided: see CONTRACT.md.
"""

import ctypes
import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from minilm_np.engine.float32.kernels.layout import COUNTER, LAYER_STAGES, Pass, n_stages, scratch_size
from minilm_np.engine.float32.packing import PackedWeights
from minilm_np.engine.runtime import code_cache, workers
from minilm_np.errors import InputValueError
from minilm_np.model_files.config import POOLING_MODES, ModelConfig

Vectors = NDArray[np.float32]

CONTRACT_VERSION = 1  # of CONTRACT.md: changes when any bit of any vector may

CHUNK_TOKENS = 512  # of whole texts in one thread's pass; its activations are then 10 MB
SHARED_TOKENS = 1024  # up to so many tokens all threads share one pass
LEAST_TOKENS = 64  # that a pass of its own is worth
TASKS_A_THREAD = 2  # of each stage of a shared pass: a thread that loses its processor leaves some to the others
CALL_SECONDS = 0.25  # one call into compiled code takes about this long at most, so that Ctrl-C is answered
ASSUMED_FLOPS = 2e10  # a second, of a slow core, to reckon that with


class Encoder:
    """A model's weights, packed for the kernels, and the threads that run them.

    config: the model. weights: (name, float32 array) of every parameter, see `PackedWeights`. threads: how many threads
    work on a call, the caller's included; None for `workers.default_threads()`. The kernels are compiled here, or
    loaded from the cache. Encoding changes nothing that another call sees: many threads may call one encoder.

    Raises InputTypeError, InputValueError: threads is not a number of 1 to 1024.
    """

    def __init__(self, config: ModelConfig, weights: Iterable[tuple[str, Vectors]], threads: int | None = None) -> None:
        self.config = config
        self.threads = workers.check_threads(threads)
        self._packed = PackedWeights(config, weights)
        self.kernels = code_cache.load()
        self.model = self._described()
        self._idle: deque[_Workspace] = deque(maxlen=2 * self.threads)  # of passes that are over
        D, F = config.hidden_size, config.intermediate_size
        flops = (8 * D * D + 4 * D * F) * max(CHUNK_TOKENS, config.max_position_embeddings)  # of a layer, at most
        self.call_layers = max(1, int(CALL_SECONDS * ASSUMED_FLOPS / flops))

    def _described(self) -> Pass:
        """A `Pass` with all that is the same for every pass."""
        config = self.config
        return Pass(
            n_layers=config.num_hidden_layers,
            n_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            vocab_size=config.vocab_size,
            positions=config.max_position_embeddings,
            token_types=config.type_vocab_size,
            pooling_mode=POOLING_MODES.index(config.pooling_mode),
            normalizes=config.normalize,
            eps=config.layer_norm_eps,
            scale=1.0 / math.sqrt(config.head_size),
            **{field: array.ctypes.data for field, array in self._packed.arrays.items()},
        )

    def weights(self) -> dict[str, Vectors]:
        """The weights as they came, by the names and in the order of `parameter_shapes`; read-only."""
        return self._packed.unpacked()

    def encode(
        self,
        texts: Sequence[Sequence[int]],
        *,
        normalize: bool = False,
        report: Callable[[int], object] = lambda done: None,
    ) -> Vectors:  # B texts of T tokens each, whatever T -> (B, D)
        """Sentence vectors of token ids, at least one and at most max_position_embeddings of them a text.

        normalize: scale them to unit length even if the model does not.
        report: called from any thread, one at a time, with the number of texts that were done since.
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

    def intermediates(self, text: Sequence[int]) -> dict[str, Vectors]:
        """What the engine computes of one text and does not fuse, by the names of `reference.py`, in its order.

        They are (T, D), (T, F) and, last, (D,). The last array is the vector of `encode`, bit for bit.
        Raises InputValueError as `encode`.
        """
        self._check([text])
        alone = _RaggedPass(self, [text], False, 1)
        kept = {name: array.copy() for name, array in alone.run_and_show()}
        alone.finish()
        return {name: array[0] if name in ("pooling", "normalize") else array for name, array in kept.items()}

    def _encode_together(self, texts: Sequence[Sequence[int]], normalize: bool, vectors: Vectors) -> None:
        """One pass, shared by all threads."""
        shared = _RaggedPass(self, texts, normalize, self.threads)
        members = itertools.count()
        workers.run(lambda: shared.run(next(members)), self.threads - 1, cancel=lambda: None)
        vectors[:] = shared.finish()

    def _encode_apart(
        self, texts: Sequence[Sequence[int]], normalize: bool, vectors: Vectors, report: Callable[[int], object]
    ) -> None:
        """Passes of whole texts, which the threads take one after the other."""
        lengths = [len(text) for text in texts]
        rows = sorted(range(len(texts)), key=lambda row: -lengths[row])  # the longest first, for an even end
        waiting = deque(_chunks(rows, lengths, self.threads))
        reporting = threading.Lock()  # a progress bar counts in one thread at a time

        def work() -> None:
            while True:
                try:
                    chunk = waiting.popleft()
                except IndexError:
                    return
                alone = _RaggedPass(self, [texts[row] for row in chunk], normalize, 1)
                alone.run(0)
                vectors[chunk] = alone.finish()
                with reporting:
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
        return _Workspace(config, self.model, max(n_tokens, CHUNK_TOKENS), max(longest, config.max_seq_length), members)

    def give_back(self, workspace: "_Workspace") -> None:
        """Let other passes use a workspace that no thread writes any more."""
        self._idle.append(workspace)


class _RaggedPass:
    """A ragged batch on its way through the model. Each of its threads calls `run`; when all are back, `finish`."""

    def __init__(self, encoder: Encoder, texts: Sequence[Sequence[int]], normalize: bool, members: int) -> None:
        lengths = [len(text) for text in texts]
        B, N, D = len(texts), sum(lengths), encoder.config.hidden_size
        self._stages = n_stages(encoder.config.num_hidden_layers)
        self._encoder = encoder
        self._workspace = encoder.workspace(N, max(lengths), members)
        self._out = np.empty((B, D), np.float32)
        token_ids = itertools.chain.from_iterable(texts)
        position_ids = itertools.chain.from_iterable(map(range, lengths))
        batch = [*token_ids, *position_ids, 0, *itertools.accumulate(lengths)]
        # one array, of which the parts are: token_ids (N), position_ids (N), offsets (B + 1), counters
        self._integers = np.zeros(len(batch) + COUNTER * self._stages, np.int64)
        self._integers[: len(batch)] = batch
        # addresses only: the attributes keep the arrays alive
        start = self._integers.ctypes.data
        self._pass = self._workspace.described.copy()
        self._pass.n_texts, self._pass.n_tokens = B, N
        self._pass.token_ids, self._pass.position_ids = start, start + 8 * N
        self._pass.offsets, self._pass.counters = start + 16 * N, start + 8 * len(batch)
        self._pass.members, self._pass.tasks = members, TASKS_A_THREAD * members if members > 1 else 1
        self._pass.normalizes |= normalize
        self._pass.out = self._out.ctypes.data

    def run(self, member: int) -> None:
        """Take part, in calls of a few layers each."""
        step = self._encoder.call_layers * LAYER_STAGES + 1
        for start in range(0, self._stages, step):
            self._run_stages(member, start, min(self._stages, start + step))

    def _run_stages(self, member: int, start: int, stop: int) -> None:
        """One call into compiled code; the float mode is the contract's meanwhile."""
        kernels, described = self._encoder.kernels, self._pass.copy()
        described.member, described.stage_start, described.stage_stop = member, start, stop
        mode = kernels.exchange_float_mode(code_cache.STANDARD_FLOAT_MODE)
        try:
            kernels.run_pass(ctypes.addressof(described))
        finally:
            kernels.exchange_float_mode(mode)

    def run_and_show(self) -> Iterator[tuple[str, Vectors]]:
        """`run` alone, stage by stage: yields the (name, array) that each leaves, which the next ones overwrite."""
        arrays = {field: array[: self._pass.n_tokens] for field, array in self._workspace.arrays.items()}
        query, key, value = np.split(arrays["query_key_value"], 3, axis=1)
        # by stage of a layer; the third and the sixth leave a product with the residual in it, which has no name
        named: tuple[dict[str, Vectors], ...] = (
            {"attention.self.query": query, "attention.self.key": key, "attention.self.value": value},
            {"attention.self.context": arrays["context"]},
            {},
            {"attention.output.LayerNorm": arrays["attended"]},
            {"intermediate.intermediate_act_fn": arrays["intermediate"]},
            {},
            {"output.LayerNorm": arrays["x"]},
        )
        self._run_stages(0, 0, 1)
        yield "embeddings.LayerNorm", arrays["x"]
        last = self._stages - 1
        for stage in range(1, last):
            self._run_stages(0, stage, stage + 1)
            layer, step = divmod(stage - 1, LAYER_STAGES)
            for name, array in named[step].items():
                yield f"encoder.layer.{layer}.{name}", array
        normalizes, self._pass.normalizes = self._pass.normalizes, 0
        self._run_stages(0, last, last + 1)
        yield "pooling", self._out
        if normalizes:  # the last stage once more: it only reads x
            self._pass.normalizes = normalizes
            self._integers[-COUNTER:] = 0
            self._run_stages(0, last, last + 1)
            yield "normalize", self._out

    def finish(self) -> Vectors:
        """The vectors; the workspace is free again."""
        self._encoder.give_back(self._workspace)
        return self._out


class _Workspace:
    """The arrays that one pass writes, for at most so many tokens, tokens of one text, and threads."""

    def __init__(self, config: ModelConfig, model: Pass, n_tokens: int, longest: int, members: int) -> None:
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
        self.described = model.copy()
        self.described.scratch_size = shapes["scratch"][1]
        for field, array in self.arrays.items():
            setattr(self.described, field, array.ctypes.data)

    def holds(self, n_tokens: int, longest: int, members: int) -> bool:
        return n_tokens <= self._n_tokens and longest <= self._longest and members <= self._members


def _chunks(rows: list[int], lengths: list[int], threads: int) -> Iterator[list[int]]:
    """Cut rows into runs of at most CHUNK_TOKENS tokens, or of one text.

    For several threads they grow shorter towards the end, so that no thread is left alone with a long one.
    """
    chunk: list[int] = []
    tokens, left = 0, sum(lengths)
    for row in rows:
        share = left // (2 * threads) if threads > 1 else left
        if chunk and tokens + lengths[row] > min(CHUNK_TOKENS, max(LEAST_TOKENS, share)):
            yield chunk
            left -= tokens
            chunk, tokens = [], 0
        chunk.append(row)
        tokens += lengths[row]
    if chunk:
        yield chunk
