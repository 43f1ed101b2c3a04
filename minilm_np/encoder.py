"""The Numba engine: packed weights, workspaces, and who computes what. Ragged token ids in, vectors out.

`reference.py` is its twin: `encode_ragged` there, `Encoder.encode` here. The order of the kernels, and how threads
share one pass, is in `kernels/forward.py`. What is decided here is how many passes there are: few tokens make one
pass, which all threads share; many tokens make many passes of whole texts, which the threads take one by one.

The vectors' bits are those of the numerical contract, whatever is decided: see CONTRACT.md.
"""

import itertools
import math
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from minilm_np import workers
from minilm_np.checkpoint import parameter_shapes
from minilm_np.config import POOLING_MODES, ModelConfig
from minilm_np.errors import InputTypeError, InputValueError
from minilm_np.kernel_cache import compile_kernel
from minilm_np.kernels import attention, linear, simd
from minilm_np.kernels.forward import (
    COUNTER,
    Batch,
    Buffers,
    Embeddings,
    Layers,
    Settings,
    exchange_float_mode,
    forward,
    n_stages,
)

Weights = dict[str, NDArray[np.float32]]
Vectors = NDArray[np.float32]

CONTRACT_VERSION = 1  # of CONTRACT.md: changes when any bit of any vector may

CHUNK_TOKENS = 512  # of whole texts in one thread's pass; its activations are then 10 MB
SHARED_TOKENS = 1024  # up to so many tokens all threads share one pass
COLUMN_TOKENS = 64  # of which up to so many are shared by columns
CALL_SECONDS = 0.25  # one call into compiled code takes about this long at most, so that Ctrl-C is answered
ASSUMED_FLOPS = 2e10  # a second, of a slow core, to reckon that with

_POOLING = {"mean": 0, "cls": 1, "max": 2, "mean_sqrt_len_tokens": 3}
assert set(_POOLING) == set(POOLING_MODES)


class Encoder:
    """A model's weights, packed for the kernels, and the threads that run them.

    config: the model. weights: float32 arrays by the names of `parameter_shapes`; the dict is emptied while they are
    packed, so that there is never a second copy of all of them. threads: how many threads work on a call, the caller's
    included; None for `default_threads()`. Everything is compiled here, or loaded from the cache.

    Raises InputTypeError, InputValueError: threads is not a number of at least 1.
    """

    def __init__(self, config: ModelConfig, weights: Weights, threads: int | None = None) -> None:
        self.config = config
        self.threads = check_threads(threads)
        self._table, self._layers = _pack(config, weights)
        self._settings = Settings(
            n_heads=config.num_attention_heads,
            eps=np.float32(config.layer_norm_eps),
            scale=np.float32(1.0 / math.sqrt(config.head_size)),
            pooling_mode=_POOLING[config.pooling_mode],
            normalizes=int(config.normalize),
        )
        self._idle: deque[_Workspace] = deque()  # of passes that are over
        D, F = config.hidden_size, config.intermediate_size
        flops = (8 * D * D + 4 * D * F) * max(CHUNK_TOKENS, config.max_position_embeddings)  # of a layer, at most
        self._call_layers = max(1, int(CALL_SECONDS * ASSUMED_FLOPS / flops))
        self._compile()

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
        lengths = [len(text) for text in texts]
        self._check(texts, lengths)
        vectors = np.empty((len(texts), self.config.hidden_size), np.float32)
        settings = self._settings._replace(normalizes=1) if normalize else self._settings
        if self.threads > 1 and sum(lengths) <= SHARED_TOKENS:
            self._encode_together(texts, lengths, settings, vectors)
            report(len(texts))
        else:
            self._encode_apart(texts, lengths, settings, vectors, report)
        return vectors

    def _encode_together(
        self, texts: Sequence[Sequence[int]], lengths: list[int], settings: Settings, vectors: Vectors
    ) -> None:
        """One pass, shared by all threads."""
        if not texts:
            return
        workspace = self._workspace(sum(lengths), max(lengths), self.threads)
        batch = _batch(texts, lengths)
        by_columns = len(batch.token_ids) <= COLUMN_TOKENS
        counters = np.zeros(COUNTER * n_stages(self.config.num_hidden_layers, by_columns), np.int64)
        members = itertools.count()

        def work() -> None:
            self._pass(batch, workspace, settings, vectors, counters, by_columns, 2 * self.threads, next(members))

        workers.run(work, self.threads - 1, cancel=lambda: None)
        self._idle.append(workspace)

    def _encode_apart(
        self,
        texts: Sequence[Sequence[int]],
        lengths: list[int],
        settings: Settings,
        vectors: Vectors,
        report: Callable[[int], None],
    ) -> None:
        """Passes of whole texts, which the threads take one after the other."""
        rows = sorted(range(len(texts)), key=lambda row: -lengths[row])  # the longest first, for an even end
        budget = min(CHUNK_TOKENS, max(COLUMN_TOKENS, sum(lengths) // (8 * self.threads)))
        waiting = deque(_chunks(rows, lengths, budget))

        def work() -> None:
            with suppress(IndexError):
                while True:
                    chunk = waiting.popleft()
                    chosen = [lengths[row] for row in chunk]
                    workspace = self._workspace(sum(chosen), max(chosen), 1)
                    batch = _batch([texts[row] for row in chunk], chosen)
                    out = np.empty((len(chunk), self.config.hidden_size), np.float32)
                    counters = np.zeros(COUNTER * n_stages(self.config.num_hidden_layers, False), np.int64)
                    self._pass(batch, workspace, settings, out, counters, False, 1, 0)
                    self._idle.append(workspace)
                    vectors[chunk] = out
                    report(len(chunk))

        workers.run(work, min(self.threads, len(waiting)) - 1, cancel=waiting.clear)

    def _pass(
        self, batch: Batch, workspace: "_Workspace", settings: Settings, out: Vectors, counters: NDArray[np.int64],
        by_columns: bool, tasks: int, member: int,
    ) -> None:  # fmt: skip
        """Take part in a pass, in calls of a few layers each; the float mode is the contract's meanwhile."""
        stages = n_stages(self.config.num_hidden_layers, by_columns)
        step = self._call_layers * (n_stages(1, by_columns) - 2) + 1
        mode = exchange_float_mode(simd.STANDARD_FLOAT_MODE)
        try:
            for start in range(0, stages, step):
                forward(
                    batch, self._table, self._layers, workspace.buffers, settings, out, counters, by_columns,
                    tasks, member, start, min(stages, start + step),
                )  # fmt: skip
        finally:
            exchange_float_mode(mode)

    def _workspace(self, n_tokens: int, longest: int, members: int) -> "_Workspace":
        """One that is free and large enough, or a new one."""
        for _ in range(len(self._idle)):
            with suppress(IndexError):  # another thread may take it first
                workspace = self._idle.popleft()
                if workspace.holds(n_tokens, longest, members):
                    return workspace
        return _Workspace(self.config, max(n_tokens, CHUNK_TOKENS), max(longest, self.config.max_seq_length), members)

    def _check(self, texts: Sequence[Sequence[int]], lengths: list[int]) -> None:
        """The kernels check nothing: an id or a position outside its table would read foreign memory."""
        V, P = self.config.vocab_size, self.config.max_position_embeddings
        for number, (text, length) in enumerate(zip(texts, lengths, strict=True)):
            if not 1 <= length <= P:
                raise InputValueError(f"text {number}: expected 1 to {P} tokens, found {length}")
            if not 0 <= min(text) <= max(text) < V:
                raise InputValueError(f"text {number}: expected token ids from 0 to {V - 1}, found {max(text)}")

    def _compile(self) -> None:
        """Compile the kernels for these arrays' types, by compiling, not by running, them."""
        workspace = _Workspace(self.config, 1, 1, 1)
        counters = np.zeros(1, np.int64)
        out = np.empty((1, self.config.hidden_size), np.float32)
        arguments = (
            _batch([[0]], [1]), self._table, self._layers, workspace.buffers, self._settings, out, counters, False,
            1, 0, 0, 1,
        )  # fmt: skip
        with _compiling:
            compile_kernel(exchange_float_mode, (numba.int64,), _say_once)
            compile_kernel(forward, tuple(numba.typeof(argument) for argument in arguments), _say_once)

    def weights(self) -> Weights:
        """The weights as they came, by the names of `parameter_shapes`: the same bits; those of the products copied."""
        return _unpack(self.config, self._table, self._layers)


class _Workspace:
    """The arrays that one pass writes, for at most so many tokens, tokens of one text, and threads."""

    def __init__(self, config: ModelConfig, n_tokens: int, longest: int, members: int) -> None:
        D, F = config.hidden_size, config.intermediate_size
        self.n_tokens, self.longest, self.members = n_tokens, longest, members
        self.buffers = Buffers(
            x=np.empty((n_tokens, D), np.float32),
            query_key_value=np.empty((n_tokens, 3 * D), np.float32),
            context=np.empty((n_tokens, D), np.float32),
            attended=np.empty((n_tokens, D), np.float32),
            intermediate=np.empty((n_tokens, F), np.float32),
            scratch=np.empty((members, attention.scratch_size(longest, config.head_size)), np.float32),
        )

    def holds(self, n_tokens: int, longest: int, members: int) -> bool:
        return n_tokens <= self.n_tokens and longest <= self.longest and members <= self.members


def default_threads() -> int:
    """OMP_NUM_THREADS if that is set, but at most the processors that this process may use, and a container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # "max 100000", or "200000 100000" for two processors' time
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        allowed = min(allowed, max(1, math.ceil(int(quota) / int(period))))
    with suppress(ValueError):  # "4", or "4,2" for nested teams
        allowed = min(allowed, max(1, int(os.environ.get("OMP_NUM_THREADS", "").split(",")[0])))
    return allowed


def check_threads(threads: int | None) -> int:
    """A number of threads, None being the default. Raises InputTypeError, InputValueError."""
    if threads is None:
        return default_threads()
    if isinstance(threads, bool) or not isinstance(threads, int):
        raise InputTypeError(f"threads: expected an int or None, found {type(threads).__name__}")
    if threads < 1:
        raise InputValueError(f"threads: expected at least 1, found {threads}")
    return threads


_compiling = threading.Lock()
_said = False


def _say_once() -> None:
    global _said
    if not _said:
        _said = True
        print("minilm-np: compiling the kernels for this machine, once (some 10 s)", file=sys.stderr, flush=True)


def _batch(texts: Sequence[Sequence[int]], lengths: list[int]) -> Batch:
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    token_ids = np.fromiter(itertools.chain.from_iterable(texts), np.int64, int(offsets[-1]))
    return Batch(token_ids, np.arange(len(token_ids)) - np.repeat(offsets[:-1], lengths), offsets)


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


# ---- packing ---------------------------------------------------------------------------------------------------------

_LAYER = "encoder.layer.{}."
# field of Layers -> the modules whose outputs stand side by side in it, inside a layer
_PRODUCTS = {
    "query_key_value": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention_output": ("attention.output.dense",),
    "intermediate": ("intermediate.dense",),
    "output": ("output.dense",),
}
_NORMS = {"attention_norm": "attention.output.LayerNorm", "output_norm": "output.LayerNorm"}
_TABLE = {
    "word": "embeddings.word_embeddings.weight",
    "position": "embeddings.position_embeddings.weight",
    "token_type": "embeddings.token_type_embeddings.weight",
    "norm_weight": "embeddings.LayerNorm.weight",
    "norm_bias": "embeddings.LayerNorm.bias",
}


def _pack(config: ModelConfig, weights: Weights) -> tuple[Embeddings, Layers]:
    """Take the weights out of their dict, one by one, into the kernels' arrays."""
    L, D, F = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    outputs = {"query_key_value": 3 * D, "attention_output": D, "intermediate": F, "output": D}
    arrays: dict[str, Any] = {}
    for field, n_outputs in outputs.items():
        n_inputs = F if field == "output" else D
        arrays[f"{field}_packed"] = _aligned_zeros((L, *linear.packed_shape(n_outputs, n_inputs)))
        arrays[f"{field}_bias"] = np.empty((L, n_outputs), np.float32)
    for field in _NORMS:
        arrays[f"{field}_weight"], arrays[f"{field}_bias"] = np.empty((2, L, D), np.float32)
    for layer in range(L):
        for field, modules in _PRODUCTS.items():
            first = 0
            for module in modules:
                name = _LAYER.format(layer) + module
                weight, bias = weights.pop(f"{name}.weight"), weights.pop(f"{name}.bias")
                linear.pack(weight, arrays[f"{field}_packed"][layer], first)
                arrays[f"{field}_bias"][layer, first : first + len(bias)] = bias
                first += len(bias)
        for field, module in _NORMS.items():
            for kind in ("weight", "bias"):
                arrays[f"{field}_{kind}"][layer] = weights.pop(f"{_LAYER.format(layer)}{module}.{kind}")
    table = Embeddings(**{field: _read_only(weights.pop(name)) for field, name in _TABLE.items()})
    return table, Layers(**{field: _read_only(array) for field, array in arrays.items()})


def _unpack(config: ModelConfig, table: Embeddings, layers: Layers) -> Weights:
    """The inverse of `_pack`, in the order of `parameter_shapes`."""
    weights: Weights = {name: getattr(table, field) for field, name in _TABLE.items()}
    for layer in range(config.num_hidden_layers):
        for field, modules in _PRODUCTS.items():
            packed, bias = getattr(layers, f"{field}_packed")[layer], getattr(layers, f"{field}_bias")[layer]
            weight = packed.transpose(0, 2, 1).reshape(-1, packed.shape[1])[: len(bias)]
            for number, module in enumerate(modules):
                part = slice(len(bias) // len(modules) * number, len(bias) // len(modules) * (number + 1))
                weights[f"{_LAYER.format(layer)}{module}.weight"] = _read_only(np.ascontiguousarray(weight[part]))
                weights[f"{_LAYER.format(layer)}{module}.bias"] = bias[part]
        for field, module in _NORMS.items():
            for kind in ("weight", "bias"):
                weights[f"{_LAYER.format(layer)}{module}.{kind}"] = getattr(layers, f"{field}_{kind}")[layer]
    return {name: weights[name] for name in parameter_shapes(config)}


def _read_only(array: Vectors) -> Vectors:
    array.flags.writeable = False
    return array


def _aligned_zeros(shape: tuple[int, ...]) -> Vectors:
    """Zeros that begin at a cache line; NumPy's own begin anywhere."""
    memory = np.zeros(4 * math.prod(shape) + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + 4 * math.prod(shape)].view(np.float32).reshape(shape)
