"""The training engine in Numba: token ids to vectors, and gradients of the vectors to gradients of the weights.

Its twin is `backward.ReferenceTrainingEngine`, with the functions that it calls, in the same order. A batch is ragged:
nothing is padded. It is split into chunks of whole texts of bounded total length. A batch of one chunk stores its
activations from the forward to the backward pass. If there are more chunks, each is run forward a second time before
it is run backward (gradient caching: Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup, 2021). The second time it has the same dropout, so the gradient is the same.

Each step is split among the threads by ranges of rows, outputs or heads. No sum depends on the ranges, so the bits of
the gradients do not depend on the number of threads.
"""

import functools
import itertools
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm_np import reference
from minilm_np.engine.float32 import loading
from minilm_np.engine.runtime import entries, processor, workers
from minilm_np.model_files.checkpoint import parameter_shapes
from minilm_np.model_files.config import ModelConfig, require_plain_bert
from minilm_np.train import ragged
from minilm_np.train.backward import normalize_backward
from minilm_np.train.dense_layers import Gradients, Product, products
from minilm_np.train.dropout import ATTENTION, ATTENTION_OUTPUT, EMBEDDINGS, OUTPUT, Dropout
from minilm_np.train.kernels.layout import ENTRIES, LANES, attention_scratch_size, gradient_scratch_size
from minilm_np.train.optim import Gradient, SparseRows
from minilm_np.train.ragged import Chunk, Integers

Array = NDArray[np.float32]

CHUNK_TOKENS = 4096  # tokens whose activations are in memory at once: 450 MB for the published model
TASKS_PER_THREAD = 4  # of each step
GRADIENT_ROWS = 192  # rows of a weight's gradient per task, so that the data it copies stays in the L2 cache

WORD, POSITION, TYPE = (f"embeddings.{table}_embeddings.weight" for table in ("word", "position", "token_type"))


@functools.cache
def _kernels() -> tuple[dict[str, Any], Any]:
    return entries.load_entries("minilm_np.train.kernels", ENTRIES)


class TrainingEngine:
    """The weights of a model, with the compiled kernels for the forward and the backward pass.

    config: the configuration of the model.
    weights: a C-contiguous float32 array for every parameter, by name. An optimiser may change them in place; call
        `refresh` after that.
    threads: as for `SentenceEncoder`.

    The constructor loads the kernels, or compiles them. An engine is not thread-safe: only one thread at
    a time may call its methods. Raises InputTypeError, InputValueError (threads is not an int of at least 1),
    ConfigError (the model is not BERT with GELU, or has a Dense module).
    """

    def __init__(self, config: ModelConfig, weights: Mapping[str, Array], threads: int | None = None) -> None:
        require_plain_bert(config, "train")
        self.config = config
        self.weights = {name: weights[name] for name in parameter_shapes(config)}
        self.threads = workers.check_threads(threads)
        self._products = products(config, self.weights)
        self._kernels, self._code = _kernels()
        self._exchange_float_mode = loading.load().exchange_float_mode
        self._zeros = np.zeros(max(config.hidden_size, config.intermediate_size), np.float32)
        self._buffers: dict[tuple[str, int], Array] = {}
        self._scratch = [np.empty(0, np.float32)] * self.threads
        self._kept: tuple[Chunk, Dropout | None] | None = None  # of the activations in the buffers
        self.refresh()

    def refresh(self) -> None:
        """Pack the weights again after they have changed."""
        self._kept = None
        every = (product for layer in self._products for product in layer.values())
        self._run("pack", [arguments for product in every for arguments in product.packing()])

    # ---- a batch -----------------------------------------------------------------------------------------------------

    def forward(self, texts: Sequence[Sequence[int]], dropout: Dropout | None = None) -> Array:
        """The vectors (B, D) of B texts, given as token ids; of unit length if the model normalises."""
        chunks = list(ragged.chunks(texts, CHUNK_TOKENS))
        vectors = [self._pooled(self._forward(chunk, dropout, keep=len(chunks) == 1), chunk) for chunk in chunks]
        pooled = np.concatenate(vectors)
        return reference.normalize(pooled) if self.config.normalize else pooled

    def backward(
        self, texts: Sequence[Sequence[int]], d_vectors: Array, dropout: Dropout | None = None
    ) -> dict[str, Gradient]:
        """Gradient of every parameter, by name: `SparseRows` for the word embeddings, an array for each other one.

        texts, dropout: as given to `forward`.
        d_vectors: the gradient with respect to the vectors that `forward` returned, (B, D).
        """
        gradients = Gradients(self.config)
        word = SparseRows(np.empty(0, np.int64), np.empty((0, self.config.hidden_size), np.float32))
        for chunk in ragged.chunks(texts, CHUNK_TOKENS):
            if self._kept is None or self._kept[1] != dropout or not self._kept[0].same(chunk):
                self._forward(chunk, dropout, keep=True)
            rows, values = self._backward(chunk, d_vectors[chunk.numbers], dropout, gradients)
            if len(word.rows):
                numbers, both = np.concatenate([word.rows, rows]), np.concatenate([word.values, values])
                rows, values = ragged.sum_rows(both, numbers)
            word = SparseRows(rows, values)
        return {**gradients.arrays, WORD: word}

    # ---- a chunk: `reference.encoder` and `backward.encoder_backward` -----------------------------------------------

    def _forward(self, chunk: Chunk, dropout: Dropout | None, keep: bool) -> Array:
        """The token vectors (N, D). With `keep`, activations stay for `_backward`; without, layers share buffers."""
        L = self.config.num_hidden_layers
        self._kept = (chunk, dropout) if keep else None
        x = self._buffer("x", 0, chunk)
        self._norm(self._embedded(chunk), "embeddings.LayerNorm", x)
        self._drop(x, None, x, chunk, dropout, L, EMBEDDINGS)
        for number, product in enumerate(self._products):
            layer, buffer = f"encoder.layer.{number}", number if keep else 0
            qkv, context, attended, middle, hidden, total = (self._buffer(name, buffer, chunk) for name in _ACTIVATIONS)
            active = self._buffer("active", 0, chunk)
            self._dense(x, product["query_key_value"], qkv)
            self._attention("attention", (qkv,), context, chunk, dropout, number)
            self._dense(context, product["attention_output"], attended)
            self._drop(attended, x, attended, chunk, dropout, number, ATTENTION_OUTPUT)
            self._norm(attended, f"{layer}.attention.output.LayerNorm", middle)
            self._dense(middle, product["intermediate"], hidden)
            self._elements("gelu", hidden, active)
            self._dense(active, product["output"], total)
            self._drop(total, middle, total, chunk, dropout, number, OUTPUT)
            x = self._buffer("x", number + 1 if keep else 1 - number % 2, chunk)
            self._norm(total, f"{layer}.output.LayerNorm", x)
        return x

    def _backward(
        self, chunk: Chunk, d_vectors: Array, dropout: Dropout | None, gradients: Gradients
    ) -> tuple[Integers, Array]:
        """Add the gradients of one chunk to `gradients`, from the activations that `_forward` stored.

        The activations are overwritten. Returns the gradient of the word embeddings: row numbers and rows.
        """
        config, L = self.config, self.config.num_hidden_layers
        self._kept = None
        x = self._buffer("x", L, chunk)
        if config.normalize:
            d_vectors = normalize_backward(d_vectors, self._pooled(x, chunk))
        d_x, d_total = self._buffer("d_x", 0, chunk), self._buffer("d_total", 0, chunk)
        active, d_hidden = self._buffer("active", 0, chunk), self._buffer("d_hidden", 0, chunk)
        d_context, d_qkv = self._buffer("d_context", 0, chunk), self._buffer("d_query_key_value", 0, chunk)
        d_x[:] = ragged.pooling_backward(d_vectors, x, chunk.offsets, config.pooling_mode)
        for number in reversed(range(L)):
            layer, product, d_product = f"encoder.layer.{number}", self._products[number], gradients.products[number]
            qkv, context, attended, middle, hidden, total = (self._buffer(name, number, chunk) for name in _ACTIVATIONS)
            x = self._buffer("x", number, chunk)

            self._norm_backward(d_x, total, f"{layer}.output.LayerNorm", gradients, d_total)
            d_dense = self._drop(d_total, None, self._buffer("d_dense", 0, chunk), chunk, dropout, number, OUTPUT)
            self._dense_backward(d_dense, product["output"], None, d_hidden)
            self._elements("gelu_backward", d_hidden, hidden, d_hidden, active)
            self._weight_gradient(d_dense, active, *d_product["output"])
            self._weight_gradient(d_hidden, middle, *d_product["intermediate"])
            self._dense_backward(d_hidden, product["intermediate"], d_total, d_x)

            self._norm_backward(d_x, attended, f"{layer}.attention.output.LayerNorm", gradients, d_total)
            d_dense = self._drop(
                d_total, None, self._buffer("d_dense", 0, chunk), chunk, dropout, number, ATTENTION_OUTPUT
            )
            self._weight_gradient(d_dense, context, *d_product["attention_output"])
            self._dense_backward(d_dense, product["attention_output"], None, d_context)
            self._attention("attention_backward", (qkv, d_context), d_qkv, chunk, dropout, number)
            self._weight_gradient(d_qkv, x, *d_product["query_key_value"])
            self._dense_backward(d_qkv, product["query_key_value"], d_total, d_x)
        self._drop(d_x, None, d_x, chunk, dropout, L, EMBEDDINGS)
        self._norm_backward(d_x, self._embedded(chunk), "embeddings.LayerNorm", gradients, d_total)
        rows, values = ragged.sum_rows(d_total, chunk.rows)
        gradients.arrays[POSITION][rows] += values
        self._column_sums(d_total, gradients.arrays[TYPE][0])
        return ragged.sum_rows(d_total, chunk.ids)

    def _embedded(self, chunk: Chunk) -> Array:
        """The sum of word, position and token type embeddings, (N, D)."""
        total = self._buffer("embedded", 0, chunk)
        np.add(self.weights[WORD][chunk.ids], self.weights[POSITION][chunk.rows], out=total)
        total += self.weights[TYPE][0]
        return total

    def _pooled(self, x: Array, chunk: Chunk) -> Array:
        return ragged.pooling(x, chunk.offsets, self.config.pooling_mode)

    def _buffer(self, name: str, number: int, chunk: Chunk) -> Array:
        """An array (N, C) with this name and number; its memory is reused from call to call."""
        D = self.config.hidden_size
        width = {"hidden": self.config.intermediate_size, "query_key_value": 3 * D}.get(name.removeprefix("d_"), D)
        width = self.config.intermediate_size if name == "active" else width
        N = len(chunk.ids)
        memory = self._buffers.get((name, number))
        if memory is None or memory.size < N * width + LANES:
            memory = np.empty(max(N, CHUNK_TOKENS) * width + LANES, np.float32)  # uses memory only where it is written
            self._buffers[name, number] = memory
        return memory[: N * width].reshape(N, width)

    # ---- steps: each is one operation of `reference.py` or `backward.py`, split among the threads --------------------

    def _dense(self, x: Array, product: Product, out: Array) -> None:
        """`linear`."""
        where = x.ctypes.data, product.weight_packed.ctypes.data, product.bias.ctypes.data, out.ctypes.data
        sizes, panels = (product.K, product.M), len(product.weight_packed)
        self._run("dense", ((*where, *sizes, *rows, panels) for rows in self._parts(len(x))))

    def _dense_backward(self, d_y: Array, product: Product, past: Array | None, out: Array) -> None:
        """`linear_backward`, the gradient of x, plus `past`: the gradient through a residual connection, or None."""
        weight = product.transposed_packed
        where = d_y.ctypes.data, weight.ctypes.data, self._zeros.ctypes.data
        results: tuple[int, ...] = (out.ctypes.data,)
        entry = "dense"
        if past is not None:
            entry, results = "dense_residual", (past.ctypes.data, *results)
        sizes = product.M, product.K
        self._run(entry, ((*where, *results, *sizes, *rows, len(weight)) for rows in self._parts(len(d_y))))

    def _weight_gradient(self, d_y: Array, x: Array, d_weight: Array, d_bias: Array) -> None:
        """`linear_backward`, the gradients of weight and bias, added to d_weight and d_bias."""
        where = d_y.ctypes.data, x.ctypes.data, d_weight.ctypes.data
        (N, M), K = d_y.shape, x.shape[1]
        n_parts = max(-(-M // GRADIENT_ROWS), min(2 * self.threads, -(-M // LANES)) if self.threads > 1 else 1)
        parts = [(M * part // n_parts, M * (part + 1) // n_parts) for part in range(n_parts)]
        size = gradient_scratch_size(-(-M // n_parts))
        self._run("weight_gradient", ((*where, N, M, K, *part) for part in parts), size)
        self._column_sums(d_y, d_bias)

    def _column_sums(self, x: Array, out: Array) -> None:
        where = x.ctypes.data, out.ctypes.data
        self._run("column_sums", ((*where, *x.shape, *part) for part in self._parts(x.shape[1], LANES)))

    def _norm(self, x: Array, name: str, out: Array) -> None:
        """`layer_norm`."""
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        where = x.ctypes.data, weight.ctypes.data, bias.ctypes.data, out.ctypes.data, x.shape[1]
        self._run("norm", ((*where, *rows, self.config.layer_norm_eps) for rows in self._parts(len(x))))

    def _norm_backward(self, d_y: Array, x: Array, name: str, gradients: Gradients, out: Array) -> None:
        """`layer_norm_backward`. Overwrites x with the normalised x."""
        weight, x_hat = self.weights[f"{name}.weight"], x
        where = d_y.ctypes.data, x.ctypes.data, weight.ctypes.data, out.ctypes.data, x_hat.ctypes.data, x.shape[1]
        self._run("norm_backward", ((*where, *rows, self.config.layer_norm_eps) for rows in self._parts(len(x))))
        arrays = d_y, x_hat, gradients.arrays[f"{name}.weight"]
        sums = tuple(array.ctypes.data for array in arrays)
        self._run("column_dots", ((*sums, *x.shape, *part) for part in self._parts(x.shape[1], LANES)))
        self._column_sums(d_y, gradients.arrays[f"{name}.bias"])

    def _elements(self, entry: str, *arrays: Array) -> None:
        """`gelu` or `gelu_backward` of each element. Buffers are padded to a whole number of SIMD vectors."""
        where = [array.ctypes.data for array in arrays]
        size = -(-arrays[0].size // LANES) * LANES
        self._run(entry, ((*where, *part) for part in self._parts(size, LANES)))

    def _drop(
        self,
        x: Array,
        residual: Array | None,
        out: Array,
        chunk: Chunk,
        dropout: Dropout | None,
        layer: int,
        place: int,
    ) -> Array:
        """out = dropout(x) + residual. Returns out, or x itself if nothing is dropped or added."""
        key = _key(dropout, layer, place)
        if residual is None and key is None:
            return x
        added = (x.ctypes.data, 0) if residual is None else (residual.ctypes.data, 1)
        which = chunk.texts.ctypes.data, chunk.rows.ctypes.data
        *counter, factor = key or (0, 0, 0, 0, 1.0)
        where = x.ctypes.data, *added, *which, out.ctypes.data, x.shape[1], *counter
        self._run("dropout_add", ((*where, *rows, factor) for rows in self._parts(len(x))), x.shape[1] + 4)
        return out

    def _attention(
        self, entry: str, inputs: tuple[Array, ...], out: Array, chunk: Chunk, dropout: Dropout | None, layer: int
    ) -> None:
        """`self_attention` from query, key and value to context, or the gradient of that part."""
        config, B = self.config, len(chunk.numbers)
        size = attention_scratch_size(int(np.diff(chunk.offsets).max()), config.head_size)
        which = chunk.offsets.ctypes.data, chunk.numbers.ctypes.data
        sizes = len(chunk.ids), B, config.hidden_size, config.num_attention_heads
        *counter, factor = _key(dropout, layer, ATTENTION) or (0, 0, 0, 0, 1.0)
        where = (size, *(array.ctypes.data for array in inputs), *which, *sizes, *counter, out.ctypes.data)
        scale = 1.0 / math.sqrt(config.head_size)
        heads = self._parts(B * config.num_attention_heads)
        self._run(entry, ((*where, *part, scale, factor) for part in heads), size)

    def _parts(self, total: int, step: int = 1) -> list[tuple[int, int]]:
        """Nearly equal ranges of 0 .. total that begin at multiples of `step`: TASKS_PER_THREAD for each thread."""
        steps = -(-total // step)
        parts = min(steps, TASKS_PER_THREAD * self.threads)
        return [(steps * p // parts * step, min(total, steps * (p + 1) // parts * step)) for p in range(parts)]

    def _run(self, entry: str, tasks: Iterable[tuple[float, ...]], scratch: int = 0) -> None:
        """Call a kernel once per task, on all threads.

        scratch: the floats of scratch memory that the kernel needs per thread. Their address is its first argument.
        """
        kernel, waiting, members = self._kernels[entry], deque(tasks), itertools.count()

        def work() -> None:
            first: tuple[int, ...] = ()
            if scratch:
                member = next(members)
                if self._scratch[member].size < scratch:
                    self._scratch[member] = np.empty(scratch, np.float32)
                first = (self._scratch[member].ctypes.data,)
            mode = self._exchange_float_mode(processor.STANDARD_FLOAT_MODE)
            try:
                while True:
                    try:
                        task = waiting.popleft()
                    except IndexError:
                        return
                    kernel(*first, *task)
            finally:
                self._exchange_float_mode(mode)

        workers.run(work, min(self.threads, len(waiting)) - 1, cancel=waiting.clear)


# The stored activations of a layer, in the order in which they are computed.
_ACTIVATIONS = ("query_key_value", "context", "attention_total", "middle", "hidden", "output_total")


def _key(dropout: Dropout | None, layer: int, place: int) -> tuple[float, ...] | None:
    """Seed, place, step, threshold and factor for the kernels; None if nothing is dropped."""
    p = 0.0 if dropout is None else dropout.attention if place == ATTENTION else dropout.hidden
    if dropout is None or p == 0.0:
        return None
    return dropout.seed, 4 * layer + place, dropout.step, math.floor(p * 2**32 + 0.5), 1.0 / (1.0 - p)
