"""The order of the kernels: a ragged batch of token ids in, one vector a text out, on any number of threads.

Twin: `reference.encoder`, `reference.layer`, `reference.pooling`, `reference.normalize`; a step here is a line there.

A pass is a row of stages, a stage is a few tasks that may run at the same time, and every stage waits for the one
before it. Each thread that calls `forward` with the same arguments takes tasks from common counters until the pass is
over, so a thread that comes late, or not at all, or that lost its processor, delays nobody: the others take its tasks.
Who computes what never changes a bit, since no kernel's sums depend on the rows or columns that it is given.

    by rows      a task is a range of tokens: its query, key and value; then, when all have theirs, the rest of the
                 layer. Two stages a layer, and every thread reads every weight: for many tokens.
    by columns   a task is a range of a product's outputs, or of heads: seven stages a layer, and each weight is read
                 by one thread: for few tokens, where reading the weights is what takes the time.
"""

from typing import Any, NamedTuple

from minilm_np.kernels import simd
from minilm_np.kernels.attention import attention, attention_rows
from minilm_np.kernels.embeddings import embeddings
from minilm_np.kernels.layer_norm import layer_norm
from minilm_np.kernels.layout import COLUMN_STAGES, COUNTER, ROW_STAGES
from minilm_np.kernels.linear import linear, linear_gelu, linear_residual
from minilm_np.kernels.pooling import normalize, pooling
from minilm_np.kernels.simd import kernel

SPINS = 4000  # pauses before a waiting thread offers its processor to others: some 50 microseconds


class Batch(NamedTuple):
    """N tokens of B texts, end to end."""

    token_ids: Any  # (N,) int64
    position_ids: Any  # (N,) int64
    offsets: Any  # (B + 1,) int64: text b is tokens offsets[b] to offsets[b + 1]


class Embeddings(NamedTuple):
    """The weights of `embeddings`, as in the checkpoint."""

    word: Any  # (V, D)
    position: Any  # (P, D)
    token_type: Any  # (types, D)
    norm_weight: Any  # (D,)
    norm_bias: Any  # (D,)


class Layers(NamedTuple):
    """The weights of all layers, one behind the other; matrices packed by `layout.pack`, in panels of 48 outputs."""

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


class Buffers(NamedTuple):
    """Where a pass keeps its intermediates; at least N rows each."""

    x: Any  # (N, D): what enters a layer, and what leaves it
    query_key_value: Any  # (N, 3 D)
    context: Any  # (N, D)
    attended: Any  # (N, D): after the attention's LayerNorm
    intermediate: Any  # (N, F)
    scratch: Any  # (threads, S): a row for each thread's attention


class Settings(NamedTuple):
    """The model's numbers that no array's shape tells."""

    n_heads: int
    eps: Any  # float32
    scale: Any  # float32(1 / sqrt(E))
    pooling_mode: int
    normalizes: int  # 0 or 1


@kernel
def forward(
    batch, table, layers, buffers, settings, out, counters, by_columns, tasks, member, stage_start, stage_stop
):  # fmt: skip
    # (N,) ids -> (B, D): stages stage_start to stage_stop of a pass, each in so many tasks, as this member of the team
    stages = COLUMN_STAGES if by_columns else ROW_STAGES
    last_stage = len(layers.output_bias) * stages + 1
    scratch = buffers.scratch[member]
    for stage in range(stage_start, stage_stop):
        layer, step = (stage - 1) // stages, (stage - 1) % stages
        taken, done = stage * COUNTER, stage * COUNTER + COUNTER // 2
        while True:
            task = simd.atomic_add(counters, taken, 1)
            if task >= tasks:
                break
            if stage == 0:
                _embed(batch, table, buffers.x, settings.eps, task, tasks)
            elif stage == last_stage:
                _pool(batch, buffers.x, settings, out, task, tasks)
            elif by_columns:
                _step_by_columns(step, layer, batch, layers, buffers, settings, scratch, task, tasks)
            else:
                _step_by_rows(step, layer, batch, layers, buffers, settings, scratch, task, tasks)
            simd.atomic_add(counters, done, 1)
        _wait(counters, done, tasks)


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
def _part(total, task, tasks):
    """Range number `task` of `tasks` nearly equal ranges of 0 .. total."""
    return total * task // tasks, total * (task + 1) // tasks


@kernel
def _embed(batch, table, x, eps, task, tasks):
    start, stop = _part(len(batch.token_ids), task, tasks)
    embeddings(
        batch.token_ids, batch.position_ids, table.word, table.position, table.token_type,
        table.norm_weight, table.norm_bias, eps, x, start, stop,
    )  # fmt: skip


@kernel
def _pool(batch, x, settings, out, task, tasks):
    start, stop = _part(len(batch.offsets) - 1, task, tasks)
    pooling(x, batch.offsets, settings.pooling_mode, out, start, stop)
    if settings.normalizes:
        normalize(out, out, start, stop)


@kernel
def _step_by_rows(step, layer, batch, layers, buffers, settings, scratch, task, tasks):
    x, query_key_value, context, attended, intermediate, _ = buffers
    start, stop = _part(len(batch.token_ids), task, tasks)
    if step == 0:
        packed = layers.query_key_value_packed[layer]
        linear(x, packed, layers.query_key_value_bias[layer], query_key_value, start, stop, 0, len(packed))
        return
    for b in range(len(batch.offsets) - 1):
        first, last = batch.offsets[b], batch.offsets[b + 1]
        row_start, row_stop = max(start, first), min(stop, last)
        if row_start < row_stop:
            attention_rows(
                query_key_value, first, last, row_start, row_stop, 0, settings.n_heads, settings.n_heads,
                settings.scale, context, scratch,
            )  # fmt: skip
    packed = layers.attention_output_packed[layer]
    linear_residual(context, packed, layers.attention_output_bias[layer], x, attended, start, stop, 0, len(packed))
    weight, bias = layers.attention_norm_weight[layer], layers.attention_norm_bias[layer]
    layer_norm(attended, weight, bias, settings.eps, attended, start, stop)
    packed = layers.intermediate_packed[layer]
    linear_gelu(attended, packed, layers.intermediate_bias[layer], intermediate, start, stop, 0, len(packed))
    packed = layers.output_packed[layer]
    linear_residual(intermediate, packed, layers.output_bias[layer], attended, x, start, stop, 0, len(packed))
    weight, bias = layers.output_norm_weight[layer], layers.output_norm_bias[layer]
    layer_norm(x, weight, bias, settings.eps, x, start, stop)


@kernel
def _step_by_columns(step, layer, batch, layers, buffers, settings, scratch, task, tasks):
    x, query_key_value, context, attended, intermediate, _ = buffers
    N = len(batch.token_ids)
    if step == 0:
        packed = layers.query_key_value_packed[layer]
        start, stop = _part(len(packed), task, tasks)
        linear(x, packed, layers.query_key_value_bias[layer], query_key_value, 0, N, start, stop)
    elif step == 1:
        start, stop = _part(settings.n_heads, task, tasks)
        texts = len(batch.offsets) - 1
        attention(
            query_key_value, batch.offsets, 0, texts, start, stop, settings.n_heads, settings.scale, context, scratch
        )
    elif step == 2:
        packed = layers.attention_output_packed[layer]
        start, stop = _part(len(packed), task, tasks)
        linear_residual(context, packed, layers.attention_output_bias[layer], x, attended, 0, N, start, stop)
    elif step == 3:
        start, stop = _part(N, task, tasks)
        weight, bias = layers.attention_norm_weight[layer], layers.attention_norm_bias[layer]
        layer_norm(attended, weight, bias, settings.eps, attended, start, stop)
    elif step == 4:
        packed = layers.intermediate_packed[layer]
        start, stop = _part(len(packed), task, tasks)
        linear_gelu(attended, packed, layers.intermediate_bias[layer], intermediate, 0, N, start, stop)
    elif step == 5:
        packed = layers.output_packed[layer]
        start, stop = _part(len(packed), task, tasks)
        linear_residual(intermediate, packed, layers.output_bias[layer], attended, x, 0, N, start, stop)
    else:
        start, stop = _part(N, task, tasks)
        weight, bias = layers.output_norm_weight[layer], layers.output_norm_bias[layer]
        layer_norm(x, weight, bias, settings.eps, x, start, stop)
