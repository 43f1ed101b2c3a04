"""The order of the operations: a ragged batch of token ids in, one vector per text out, on any number of threads.

Twin: `reference.encoder`, `reference.layer`, `reference.pooling`, `reference.normalize`; a step here is a line there.

A pass is a sequence of stages. A stage is a few tasks that may run at the same time, and it begins when the stage
before it is complete. All threads that share a pass call `forward` with the same arguments, except `member`, and take
tasks from common counters. So a thread that starts late, does not start at all, or loses its processor between two
tasks delays nobody: the other threads take its tasks.

For few tokens, a task is a range of a product's outputs (or of heads), for all tokens. If there are fewer panels or
heads than tasks, a task is a range of tokens as well. So, where possible, each weight is read by one thread only.

For more tokens, a task is a range of tokens, and passes through all stages from one attention to the next: only
attention needs the results of other tokens. So the threads wait for each other twice per layer, and what a thread has
written stays in its caches; in return, each thread reads all weights. On two threads of an undisturbed processor, texts
of 121 and 256 tokens take 2 (float32) to 8 (int8) per cent less time. A thread has two tasks or more: where one
processor was slower, a text of 256 tokens took up to a fifth longer with one task per thread.

No kernel's sums depend on the ranges that it is given, so the distribution of tasks never changes a bit.
"""

from typing import Any, NamedTuple

from minilm_np.engine.float32.kernels.activations import activate
from minilm_np.engine.float32.kernels.attention import attention
from minilm_np.engine.float32.kernels.embeddings import embeddings
from minilm_np.engine.float32.kernels.layer_norm import layer_norm
from minilm_np.engine.float32.kernels.layout import ATTENTION, COUNTER, GELU, LAYER_STAGES, PANEL
from minilm_np.engine.float32.kernels.linear import linear, linear_gelu, linear_residual
from minilm_np.engine.float32.kernels.pooling import normalize, pooling
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import kernel

_PRODUCTS = (0, 2, 4, 5)  # stages of a layer
SPINS = 4000  # pauses, about 50 microseconds, before a waiting thread yields its processor to others


class Batch(NamedTuple):
    """N tokens of B texts, end to end."""

    token_ids: Any  # (N,) int64
    position_ids: Any  # (N,) int64
    token_type_ids: Any  # (N,) int64
    offsets: Any  # (B + 1,) int64: text b is tokens offsets[b] to offsets[b + 1]


class Embeddings(NamedTuple):
    """The weights of `embeddings`, as in the checkpoint."""

    word: Any  # (V, D)
    position: Any  # (P, D)
    token_type: Any  # (types, D)
    norm_weight: Any  # (D,)
    norm_bias: Any  # (D,)


class Layers(NamedTuple):
    """The weights of all layers. Matrices are packed by `layout.pack`, in panels of 48 outputs."""

    query_key_value_packed: Any  # (L, 3 D / 48, D, 48)
    query_key_value_bias: Any  # (L, 3 D)
    attention_output_packed: Any  # (L, D / 48, D, 48)
    attention_output_bias: Any  # (L, D)
    attention_norm_weight: Any  # (L, D)
    attention_norm_bias: Any  # (L, D)
    intermediate_packed: Any  # (L, F / 48, D, 48)
    intermediate_bias: Any  # (L, F)
    output_packed: Any  # (L, D / 48, F, 48)
    output_bias: Any  # (L, D)
    output_norm_weight: Any  # (L, D)
    output_norm_bias: Any  # (L, D)
    relative_bias: Any  # (H, 2 P - 1), or (H, 0): see `attention.py`; shared by all layers


class Buffers(NamedTuple):
    """The intermediates of a pass; at least N rows each."""

    x: Any  # (N, D): the input and the output of a layer
    query_key_value: Any  # (N, 3 D)
    context: Any  # (N, D)
    attended: Any  # (N, D): after the attention's LayerNorm
    intermediate: Any  # (N, F)
    scratch: Any  # (threads, S): one row per thread, for attention


class Settings(NamedTuple):
    """The model's numbers that are not the shape of an array."""

    n_heads: int
    eps: Any  # float32
    scale: Any  # float32(1 / sqrt(E))
    activation: int  # of feed-forward: a number of `layout.ACTIVATIONS`
    pooling_mode: int
    normalizes: int  # 0 or 1


def make_forward(layer_stages, products, row_unit, columns, embed, step):
    """Make the function that runs the stages of a pass, for an engine.

    layer_stages: the number of stages of a layer. products: those that multiply, whose tokens are divided at multiples
    of row_unit, as are those of several stages together.
    columns(number, layers, settings): the number of parts, besides tokens, into which a stage of a layer can be split.
    embed(batch, table, layers, buffers, settings, start, stop) and step(number, layer, batch, layers, buffers,
    settings, member, start, stop, first, last) compute tokens start to stop, and step parts first to last.
    """

    @kernel
    def forward(
        batch, table, layers, buffers, settings, out, counters, tasks, row_tasks, member, stage_start, stage_stop
    ):
        # (N,) ids -> (B, D): as thread number `member`, stages stage_start to stage_stop. A stage has about `tasks`
        # tasks; the stages of single tokens together have `row_tasks`, unless it is 0.
        N, last_stage = len(batch.token_ids), len(counters) // COUNTER - 1
        stage = stage_start
        while stage < stage_stop:
            after = after_token_stages(stage, min(stage_stop, last_stage)) if row_tasks > 0 else stage
            is_together, is_product = after > stage, is_in_layer(stage, last_stage) and number_of(stage) in products
            rows = len(batch.offsets) - 1 if stage == last_stage else N
            unit = row_unit if is_together or is_product else 1
            units = (rows + unit - 1) // unit
            if is_together:
                row_parts, column_parts = min(units, row_tasks), 1
            else:
                after, column_parts = stage + 1, min(columns_of(stage, last_stage, layers, settings), tasks)
                row_parts = min(units, max(1, tasks // column_parts))
            taken, done = stage * COUNTER, stage * COUNTER + COUNTER // 2
            while True:
                task = simd.atomic_add(counters, taken, 1)
                if task >= row_parts * column_parts:
                    break
                start, stop = part(units, task // column_parts, row_parts)
                start, stop = start * unit, min(stop * unit, rows)
                for each in range(stage, after):
                    if each == 0:
                        embed(batch, table, layers, buffers, settings, start, stop)
                    elif each == last_stage:
                        _pool(batch, buffers.x, settings, out, start, stop)
                    else:
                        first, last = part(
                            columns_of(each, last_stage, layers, settings), task % column_parts, column_parts
                        )
                        layer = (each - 1) // layer_stages
                        step(number_of(each), layer, batch, layers, buffers, settings, member, start, stop, first, last)
                simd.atomic_add(counters, done, 1)
            _wait(counters, done, row_parts * column_parts)
            stage = after

    @kernel
    def after_token_stages(stage, limit):
        """The first stage, from `stage` on, that needs the results of other tokens: attention, or `limit`."""
        while stage < limit and (stage == 0 or number_of(stage) != ATTENTION):
            stage += 1
        return stage

    @kernel
    def number_of(stage):
        """The number within its layer of a stage that belongs to one."""
        return (stage - 1) % layer_stages

    @kernel
    def is_in_layer(stage, last_stage):
        return 0 < stage < last_stage

    @kernel
    def columns_of(stage, last_stage, layers, settings):
        return columns(number_of(stage), layers, settings) if is_in_layer(stage, last_stage) else 1

    return forward


@kernel
def _wait(counters, index, count):
    spins = 0
    while simd.atomic_load(counters, index) < count:
        spins += 1
        if spins < SPINS:
            simd.pause()
        else:
            simd.yield_processor()


@kernel
def part(total, task, tasks):
    """Start and stop of range number `task`, if 0 .. total is cut into `tasks` nearly equal ranges."""
    return total * task // tasks, total * (task + 1) // tasks


@kernel
def _embed(batch, table, layers, buffers, settings, start, stop):
    embeddings(
        batch.token_ids, batch.position_ids, batch.token_type_ids, table.word, table.position, table.token_type,
        table.norm_weight, table.norm_bias, settings.eps, buffers.x, start, stop,
    )  # fmt: skip


@kernel
def _pool(batch, x, settings, out, start, stop):
    pooling(x, batch.offsets, settings.pooling_mode, out, start, stop)
    if settings.normalizes:
        normalize(out, out, start, stop)


@kernel
def _columns(number, layers, settings):
    """Panels of outputs, or heads."""
    if number == 0:
        return layers.query_key_value_packed.shape[1]
    if number == ATTENTION:
        return settings.n_heads
    if number == 4:
        return layers.intermediate_packed.shape[1]
    return layers.output_packed.shape[1] if number in _PRODUCTS else 1


@kernel
def _step(step, layer, batch, layers, buffers, settings, member, start, stop, first, last):
    """Compute tokens start to stop, and panels or heads first to last, of one step of a layer."""
    x, query_key_value, context, attended, intermediate, scratch = buffers
    if step == 0:
        packed, bias = layers.query_key_value_packed[layer], layers.query_key_value_bias[layer]
        linear(x, packed, bias, query_key_value, start, stop, first, last)
    elif step == ATTENTION:
        for b in range(len(batch.offsets) - 1):
            text, end = batch.offsets[b], batch.offsets[b + 1]
            row_start, row_stop = max(start, text), min(stop, end)
            if row_start < row_stop:
                attention(
                    query_key_value, text, end, row_start, row_stop, first, last, settings.n_heads, settings.scale,
                    layers.relative_bias, context, scratch[member],
                )  # fmt: skip
    elif step == 2:
        packed, bias = layers.attention_output_packed[layer], layers.attention_output_bias[layer]
        linear_residual(context, packed, bias, x, attended, start, stop, first, last)
    elif step == 3:
        weight, bias = layers.attention_norm_weight[layer], layers.attention_norm_bias[layer]
        layer_norm(attended, weight, bias, settings.eps, attended, start, stop)
    elif step == 4:
        packed, bias = layers.intermediate_packed[layer], layers.intermediate_bias[layer]
        if settings.activation == GELU:
            linear_gelu(attended, packed, bias, intermediate, start, stop, first, last)
        else:
            linear(attended, packed, bias, intermediate, start, stop, first, last)
            last_column = min(last * PANEL, intermediate.shape[1])
            activate(intermediate, settings.activation, start, stop, first * PANEL, last_column)
    elif step == 5:
        packed, bias = layers.output_packed[layer], layers.output_bias[layer]
        linear_residual(intermediate, packed, bias, attended, x, start, stop, first, last)
    else:
        weight, bias = layers.output_norm_weight[layer], layers.output_norm_bias[layer]
        layer_norm(x, weight, bias, settings.eps, x, start, stop)


forward = make_forward(LAYER_STAGES, _PRODUCTS, 1, _columns, _embed, _step)
