"""The float32 engine: ragged token ids in, vectors out, on any number of threads.

Twin: `reference.encode_ragged`. The order of the operations, and how threads share one pass, are in
`kernels/forward.py`. This file decides how many passes there are. For few tokens, or for one text, it makes one pass,
which all threads share. For many texts it makes many passes of whole texts, which the threads take one by one.

These decisions never change a bit of a vector: see CONTRACT.md.
"""

import ctypes
import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from minilm_np._checks import check_ids, check_token_types
from minilm_np.engine.doubles import unit_length
from minilm_np.engine.float32 import loading
from minilm_np.engine.float32.kernels.layout import ACTIVATIONS, COUNTER, LAYER_STAGES, Pass, scratch_size
from minilm_np.engine.float32.packing import RELATIVE_TABLE, PackedWeights, relative_bias
from minilm_np.engine.protocol import Arrays, Packed, Report, Vectors
from minilm_np.engine.runtime import workers
from minilm_np.engine.runtime.processor import STANDARD_FLOAT_MODE
from minilm_np.model_files.config import POOLING_MODES, ModelConfig

Texts = Sequence[Sequence[int]]  # the token ids of each text

CHUNK_TOKENS = 512  # of whole texts in one thread's pass; its activations then take 10 MB
SHARED_TOKENS = 1024  # up to this number of tokens, all threads share one pass; one text is always shared
LEAST_TOKENS = 64  # fewest tokens that are worth a separate pass
TASKS_PER_THREAD = 2  # of each stage of a shared pass: a thread that loses its processor leaves tasks to the others
LEAST_ROWS = 28  # tokens per thread of a pass whose tasks pass through several stages, and of such a task
CALL_SECONDS = 0.25  # upper limit of one call into compiled code, so that Ctrl-C is answered soon
CACHE_LINE = 64  # bytes
ASSUMED_FLOPS = 2e10  # per second, of a slow core: the basis of that limit


class Kernels(Protocol):
    """Entry points of compiled code."""

    run_pass: Callable[..., int]  # takes the address of a `Pass`
    exchange_float_mode: Callable[..., int]


class Float32Engine:
    """A model's weights, packed for the kernels, and the threads that run them.

    config: the model. weights: (name, float32 array) of every parameter, or packed arrays, see `PackedWeights`.
    threads: the number of threads per call, the caller's included; None for `workers.default_threads()`. The
    constructor loads the kernels, or compiles them. Many threads may call one engine at the same time.

    Raises InputTypeError, InputValueError: threads is not an int from 1 to 1024.
    """

    layer_stages = LAYER_STAGES  # of a pass; another engine may have others
    task_rows = 32  # tokens of a task that passes through several stages, in a long pass

    def __init__(
        self, config: ModelConfig, weights: Iterable[tuple[str, Vectors]] | Packed, threads: int | None = None
    ) -> None:
        self.config = config
        self.threads = workers.check_threads(threads)
        self._load(weights)
        self._relative_bias = relative_bias(self.packed(), config)
        self._model = self._described()
        self._max_tokens = config.max_tokens
        self.n_stages = 1 + config.num_hidden_layers * self.layer_stages + 1  # embeddings, layers, pooling
        self._idle: deque[_Workspace] = deque(maxlen=2 * self.threads)  # workspaces that no pass uses
        D, F = config.hidden_size, config.intermediate_size
        flops = (8 * D * D + 4 * D * F) * max(CHUNK_TOKENS, config.max_position_embeddings)  # of a layer, at most
        self.call_layers = max(1, int(CALL_SECONDS * ASSUMED_FLOPS / flops))

    def _load(self, weights: Iterable[tuple[str, Vectors]] | Packed) -> None:
        """Pack the weights, load the kernels."""
        if isinstance(weights, Packed):
            loading.load()  # first, because another thread reads the weights meanwhile
        self._packed = PackedWeights(self.config, weights)
        self.kernels: Kernels = loading.load()

    def _described(self) -> Pass:
        """A `Pass` with the fields that are the same for every pass."""
        return Pass(**self._fields(self._packed.arrays))

    def _fields(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """These fields; arrays: the packed weights."""
        config = self.config
        return dict(
            n_layers=config.num_hidden_layers,
            n_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            vocab_size=config.vocab_size,
            positions=config.max_position_embeddings,
            token_types=max(1, config.type_vocab_size),
            activation=ACTIVATIONS[config.hidden_act],
            bias_width=self._relative_bias.shape[1],
            relative_bias=self._relative_bias.ctypes.data,
            pooling_mode=POOLING_MODES.index(config.pooling_mode),
            normalizes=config.normalize,
            eps=config.layer_norm_eps,
            scale=1.0 / math.sqrt(config.head_size),
            **{field: array.ctypes.data for field, array in arrays.items() if field != RELATIVE_TABLE},
        )

    def weights(self) -> dict[str, Vectors]:
        """The original weights, by the names and in the order of `parameter_shapes`; read-only. Unpacks them all."""
        return dict(self._packed.unpacked())

    def iter_weights(self) -> Iterator[tuple[str, Vectors]]:
        """The same, one by one."""
        return self._packed.unpacked()

    def packed(self) -> Arrays:
        """The weights in the layout of the kernels, by field of `Pass`."""
        return self._packed.arrays

    # ---- texts -------------------------------------------------------------------------------------------------------

    def encode(
        self,
        texts: Texts,
        *,
        normalize: bool = False,
        report: Report = lambda done: None,
        token_type_ids: Texts | None = None,
    ) -> Vectors:
        """Sentence vectors (B, D) of the token ids of B texts, each of 1 to `config.max_tokens` tokens.

        normalize: scale the vectors to unit length even if the model does not.
        report: called from any thread, by one thread at a time.
        token_type_ids: the type of each token; None: all are 0.
        Raises InputValueError: the length of a text, a token id or a token type is out of range.
        """
        return self._encode(texts, normalize, report, None, token_type_ids)

    def encode_with_hidden_states(
        self, texts: Texts, *, normalize: bool = False, report: Report = lambda done: None
    ) -> tuple[Vectors, list[Vectors]]:
        """Sentence vectors (B, D) as `encode` returns them, and of each text the output of the last layer, (T, D).

        One pass computes both. The parameters and errors are those of `encode`.
        """
        hidden_states: list[Vectors] = [np.empty(0, np.float32)] * len(texts)
        return self._encode(texts, normalize, report, hidden_states), hidden_states

    def output(self, pooled: Vectors, *, normalize: bool = False) -> Vectors:
        """The vectors of texts that are pooled elsewhere, of unit length if the model or `normalize` says so."""
        return unit_length(pooled) if normalize or self.config.normalize else pooled

    def intermediates(self, text: Sequence[int], token_type_ids: Sequence[int] | None = None) -> dict[str, Vectors]:
        """The intermediates of one text that the kernels do not fuse, by the names and in the order of `reference.py`.

        They are (T, D) or (T, F). The pooled and the normalised vector come last, (D,); the last array has the bits of
        `encode`. Raises InputValueError as `encode` does.
        """
        types = None if token_type_ids is None else [token_type_ids]
        check_ids([text], self.config.vocab_size, self._max_tokens)
        check_token_types(types, [text], self.config.type_vocab_size)
        single = _RaggedPass(self, [text], False, 1, types)
        found = {name: array.copy() for name, array in single.run_by_stage()}
        single.close()
        return {name: array[0] if name in ("pooling", "normalize") else array for name, array in found.items()}

    def _encode(
        self,
        texts: Texts,
        normalize: bool,
        report: Report,
        hidden_states: list[Vectors] | None,
        token_type_ids: Texts | None = None,
    ) -> Vectors:
        """The vectors. Fills `hidden_states`, unless it is None."""
        check_ids(texts, self.config.vocab_size, self._max_tokens)
        check_token_types(token_type_ids, texts, self.config.type_vocab_size)
        vectors = np.empty((len(texts), self.config.hidden_size), np.float32)

        def collect(finished: "_RaggedPass", rows: list[int]) -> None:
            vectors[rows] = finished.vectors
            if hidden_states is not None:
                for row, x in zip(rows, finished.hidden_states(), strict=True):
                    hidden_states[row] = x
            finished.close()

        if self.threads > 1 and (len(texts) == 1 or 1 <= sum(map(len, texts)) <= SHARED_TOKENS):
            self._encode_together(texts, token_type_ids, normalize, collect)
            report(len(texts))
        else:
            self._encode_apart(texts, token_type_ids, normalize, collect, report)
        return vectors

    def _encode_together(
        self,
        texts: Texts,
        types: Texts | None,
        normalize: bool,
        collect: Callable[["_RaggedPass", list[int]], None],
    ) -> None:
        """One pass, shared by all threads."""
        shared = _RaggedPass(self, texts, normalize, self.threads, types)
        members = itertools.count()
        workers.run(lambda: shared.run(next(members)), self.threads - 1, cancel=lambda: None)
        collect(shared, list(range(len(texts))))

    def _encode_apart(
        self,
        texts: Texts,
        types: Texts | None,
        normalize: bool,
        collect: Callable[["_RaggedPass", list[int]], None],
        report: Report,
    ) -> None:
        """Passes of whole texts, which the threads take one by one."""
        lengths = [len(text) for text in texts]
        rows = sorted(range(len(texts)), key=lambda row: -lengths[row])  # longest first: threads finish together
        waiting = deque(_chunks(rows, lengths, self.threads))
        reporting = threading.Lock()  # a progress bar must not be updated by two threads at once

        def work() -> None:
            while True:
                try:
                    chunk = waiting.popleft()
                except IndexError:
                    return
                types_of_chunk = None if types is None else [types[row] for row in chunk]
                single = _RaggedPass(self, [texts[row] for row in chunk], normalize, 1, types_of_chunk)
                single.run(0)
                collect(single, chunk)
                with reporting:
                    report(len(chunk))

        workers.run(work, min(self.threads, len(waiting)) - 1, cancel=waiting.clear)

    def results(self, arrays: Mapping[str, Vectors]) -> tuple[dict[str, Vectors], ...]:
        """What each stage of a layer leaves in the arrays of a workspace, by the names of `reference.py`."""
        query, key, value = np.split(arrays["query_key_value"], 3, axis=1)
        # the results of the third and the sixth contain the residual, so they have no name
        return (
            {"attention.self.query": query, "attention.self.key": key, "attention.self.value": value},
            {"attention.self.context": arrays["context"]},
            {},
            {"attention.output.LayerNorm": arrays["attended"]},
            {"intermediate.intermediate_act_fn": arrays["intermediate"]},
            {},
            {"output.LayerNorm": arrays["x"]},
        )

    # ---- workspaces --------------------------------------------------------------------------------------------------

    def take_workspace(self, n_tokens: int, longest: int, members: int) -> "_Workspace":
        """An idle workspace that is large enough, or a new one."""
        while True:
            try:
                workspace = self._idle.popleft()
            except IndexError:
                break
            if workspace.holds(n_tokens, longest, members):
                return workspace
        n_tokens, longest = max(n_tokens, CHUNK_TOKENS), max(longest, self.config.max_seq_length)
        return _Workspace(self, self._model, n_tokens, longest, members)

    def workspace_arrays(self, n_tokens: int, longest: int, members: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and dtype of the arrays that a pass writes, by field of `Pass`."""
        D, F = self.config.hidden_size, self.config.intermediate_size
        shapes = {
            "x": (n_tokens, D),
            "query_key_value": (n_tokens, 3 * D),
            "context": (n_tokens, D),
            "attended": (n_tokens, D),
            "intermediate": (n_tokens, F),
            "scratch": (members, scratch_size(longest, self.config.head_size)),
        }
        return {field: (shape, np.float32) for field, shape in shapes.items()}

    def return_workspace(self, workspace: "_Workspace") -> None:
        """Make a workspace available to other passes. No thread may use it any more."""
        self._idle.append(workspace)


class _RaggedPass:
    """One pass of a ragged batch through the model.

    Each of its threads calls `run`. When all have returned, read `vectors` and `hidden_states()`, then call `close`.
    """

    def __init__(
        self, engine: Float32Engine, texts: Texts, normalize: bool, members: int, types: Texts | None = None
    ) -> None:
        self._lengths = [len(text) for text in texts]
        B, N, D = len(texts), sum(self._lengths), engine.config.hidden_size
        self._stages = engine.n_stages
        self._engine = engine
        self._workspace = engine.take_workspace(N, max(self._lengths), members)
        self.vectors = np.empty((B, D), np.float32)
        token_ids = itertools.chain.from_iterable(texts)
        padding_idx = engine.config.padding_idx
        places = map(range, self._lengths) if padding_idx is None else (_positions(ids, padding_idx) for ids in texts)
        position_ids = itertools.chain.from_iterable(places)
        batch = [*token_ids, *position_ids, 0, *itertools.accumulate(self._lengths)]
        # one array with these parts: token_ids (N), position_ids (N), offsets (B + 1), token_type_ids (N), counters
        self._integers = np.zeros(len(batch) + N + COUNTER * self._stages, np.int64)
        self._integers[: len(batch)] = batch
        if types is not None:
            self._integers[len(batch) : len(batch) + N] = list(itertools.chain.from_iterable(types))
        # `Pass` holds addresses only; the attributes keep the arrays alive
        start = self._integers.ctypes.data
        self._pass = _copy(self._workspace.described)
        self._pass.n_texts, self._pass.n_tokens = B, N
        self._pass.token_ids, self._pass.position_ids = start, start + 8 * N
        self._pass.offsets, self._pass.token_type_ids = start + 16 * N, start + 8 * len(batch)
        self._pass.counters = start + 8 * (len(batch) + N)
        self._pass.members, self._pass.tasks = members, TASKS_PER_THREAD * members if members > 1 else 1
        self._pass.row_tasks = _row_tasks(N, members, engine.task_rows)
        self._pass.normalizes |= normalize
        self._pass.out = self.vectors.ctypes.data

    def run(self, member: int) -> None:
        """Run the pass as thread number `member`, in calls of a few layers each."""
        step = self._engine.call_layers * self._engine.layer_stages + 1
        for start in range(0, self._stages, step):
            self._run_stages(member, start, min(self._stages, start + step))

    def _run_stages(self, member: int, start: int, stop: int) -> None:
        """One call into compiled code, in the contract's float mode."""
        kernels, described = self._engine.kernels, _copy(self._pass)
        described.member, described.stage_start, described.stage_stop = member, start, stop
        mode = kernels.exchange_float_mode(STANDARD_FLOAT_MODE)
        try:
            kernels.run_pass(ctypes.addressof(described))
        finally:
            kernels.exchange_float_mode(mode)

    def run_by_stage(self) -> Iterator[tuple[str, Vectors]]:
        """Run the pass on one thread. Yields each stage's results, (name, array), which later stages overwrite."""
        arrays = {field: array[: self._pass.n_tokens] for field, array in self._workspace.arrays.items()}
        named = self._engine.results(arrays)
        self._run_stages(0, 0, 1)
        yield "embeddings.LayerNorm", arrays["x"]
        last = self._stages - 1
        for stage in range(1, last):
            self._run_stages(0, stage, stage + 1)
            layer, step = divmod(stage - 1, self._engine.layer_stages)
            for name, array in named[step].items():
                yield f"encoder.layer.{layer}.{name}", array
        normalizes, self._pass.normalizes = self._pass.normalizes, 0
        self._run_stages(0, last, last + 1)
        yield "pooling", self.vectors
        if normalizes:  # run the last stage again: it reads x, and does not change it
            self._pass.normalizes = normalizes
            self._integers[-COUNTER:] = 0
            self._run_stages(0, last, last + 1)
            yield "normalize", self.vectors

    def hidden_states(self) -> list[Vectors]:
        """A copy of each text's output of the last layer, (T, D). Pooling reads it, and does not change it."""
        x, stops = self._workspace.arrays["x"], itertools.accumulate(self._lengths)
        return [x[stop - length : stop].copy() for length, stop in zip(self._lengths, stops, strict=True)]

    def close(self) -> None:
        """Return the workspace. `vectors` stays valid."""
        self._engine.return_workspace(self._workspace)


class _Workspace:
    """The arrays that a pass writes, for at most this number of tokens, tokens of one text, and threads.

    They share one block of memory, because NumPy asks the system for huge pages for 4 MB and more. With small pages, a
    product writes each row to other pages; texts of 121 tokens then take 2 (float32) to 7 (int8) per cent longer.
    """

    def __init__(self, engine: Float32Engine, model: Pass, n_tokens: int, longest: int, members: int) -> None:
        self._n_tokens, self._longest, self._members = n_tokens, longest, members
        self.arrays: dict[str, NDArray[Any]] = {}
        self.described = _copy(model)
        needed = engine.workspace_arrays(n_tokens, longest, members)
        sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in needed.values()]
        starts = [0, *itertools.accumulate(-(-size // CACHE_LINE) * CACHE_LINE for size in sizes)]
        block = np.empty(starts[-1] + CACHE_LINE, np.uint8)
        block = block[-block.ctypes.data % CACHE_LINE :]
        for (field, (shape, dtype)), start, size in zip(needed.items(), starts, sizes, strict=False):
            self.arrays[field] = array = block[start : start + size].view(dtype).reshape(shape)
            setattr(self.described, field, array.ctypes.data)
        self.described.scratch_size = self.arrays["scratch"].shape[1]

    def holds(self, n_tokens: int, longest: int, members: int) -> bool:
        return n_tokens <= self._n_tokens and longest <= self._longest and members <= self._members


def _positions(ids: Sequence[int], padding_idx: int) -> Iterable[int]:
    """`reference.positions` of one text of a model whose positions count from padding_idx + 1."""
    counts = itertools.accumulate(number != padding_idx for number in ids)
    return (padding_idx + (count if number != padding_idx else 0) for number, count in zip(ids, counts, strict=True))


def _copy(described: Pass) -> Pass:
    """Return a copy of a pass's record, of the same class."""
    return type(described).from_buffer_copy(described)


def _row_tasks(n_tokens: int, members: int, task_rows: int) -> int:
    """Number of tasks into which threads divide the tokens of a pass; 0 if they are to divide the outputs.

    Two per thread, if they are not too small for the kernels, and more for many tokens: two processors are seldom
    equally fast, and with one task per thread the faster one would wait.
    """
    per_thread = n_tokens // members
    if members == 1 or per_thread < LEAST_ROWS:
        return 0
    return members * max(min(2, per_thread // LEAST_ROWS), per_thread // task_rows)


def _chunks(rows: list[int], lengths: list[int], threads: int) -> Iterator[list[int]]:
    """Cut rows into runs of at most CHUNK_TOKENS tokens, or of one text.

    For several threads the runs become shorter towards the end, so that no thread is left alone with a long one.
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
