"""The order of the operations of the integer engine; one function for each width of the integers.

Twin: `forward` and `layer` in this engine's `reference.py`. The tasks and stages are those of
`float32/kernels/forward.py`, with two stages more: the inputs of the second and of the fourth product of a layer are
complete rows only when a stage is over, and are then quantised. Embeddings and LayerNorms quantise each row that they
have made.

A product reads each panel for all rows of a task, and writes a row's panels side by side.
"""

from typing import Any, NamedTuple

import numpy as np

from minilm_np.engine.float32.kernels.activations import activate
from minilm_np.engine.float32.kernels.attention import attention
from minilm_np.engine.float32.kernels.forward import make_forward
from minilm_np.engine.float32.kernels.layer_norm import layer_norm
from minilm_np.engine.float32.kernels.layout import GELU
from minilm_np.engine.integer.kernels import linear
from minilm_np.engine.integer.kernels.embeddings import embeddings
from minilm_np.engine.integer.kernels.layout import PANEL, ROW_BLOCK
from minilm_np.engine.integer.kernels.passes import (
    ATTENTION,
    ATTENTION_NORM,
    ATTENTION_OUTPUT,
    INTERMEDIATE,
    LAYER_STAGES,
    OUTPUT,
    QUANTISE_CONTEXT,
    QUANTISE_INTERMEDIATE,
    QUERY_KEY_VALUE,
)  # fmt: skip
from minilm_np.engine.integer.kernels.quantise import quantise_rows_8, quantise_rows_16
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import inlined, kernel, load_part, store_part

_ZERO = np.float32(0.0)

ROW_UNIT = ROW_BLOCK  # products are split at multiples of it
_PRODUCTS = (QUERY_KEY_VALUE, ATTENTION_OUTPUT, INTERMEDIATE, OUTPUT)
NORM_ROWS = 16  # rows that LayerNorm leaves in the first-level cache for the quantisation


class Embeddings(NamedTuple):
    """The weights of `embeddings`."""

    word: Any  # (V, 2 D padded) uint8
    word_scale: Any  # (V,)
    position: Any  # (P, D)
    token_type: Any  # (types, D)
    norm_weight: Any  # (D,)
    norm_bias: Any  # (D,)


class Product(NamedTuple):
    """The weights of one product, of all layers."""

    packed: Any  # (L, panels, bytes) uint8
    scale: Any  # (L, N)
    sum: Any  # (L, N) int32: of a row's integers; used with 8 bits only
    bias: Any  # (L, N)


class Layers(NamedTuple):
    """The weights of all layers."""

    query_key_value: Product
    attention_output: Product
    intermediate: Product
    output: Product
    attention_norm_weight: Any  # (L, D)
    attention_norm_bias: Any  # (L, D)
    output_norm_weight: Any  # (L, D)
    output_norm_bias: Any  # (L, D)
    channels: Any  # (2 L, D)
    relative_bias: Any  # (H, 2 P - 1), or (H, 0): see the kernel `attention`; shared by all layers


class Rows(NamedTuple):
    """Quantised rows."""

    integers: Any  # (N padded, bytes) uint8, for inputs of D elements
    wide: Any  # the same, for inputs of F elements: another task may still read the others
    scale: Any  # (N,)
    zero: Any  # (N,) int32; used with 8 bits only


class Buffers(NamedTuple):
    """The intermediates of a pass; at least N rows each."""

    x: Any  # (N, D): the input and the output of a layer
    query_key_value: Any  # (N, 3 D)
    context: Any  # (N, D); also rows times the channels, before they are quantised
    attended: Any  # (N, D): after the attention's LayerNorm
    intermediate: Any  # (N, F)
    scratch: Any  # (threads, S): one row per thread, for attention
    rows: Rows


@inlined
def _scale_row(x, channels, K, out):
    for k in range(0, K, simd.LANES):
        store_part(out + k, K - k, load_part(x + k, K - k, _ZERO) * load_part(channels + k, K - k, _ZERO))


def _make_forward(bits):
    panel = PANEL[bits]
    if bits == 16:

        @inlined
        def quantise(x, to, rows, start, stop):
            quantise_rows_16(x, to, rows.scale, start, stop)

        @inlined
        def product(x, rows, weight, layer, out, start, stop, first, last):
            linear.linear_16(
                x, rows.scale, weight.packed[layer], weight.scale[layer], weight.bias[layer], out,
                start, stop, first, last,
            )  # fmt: skip

        @inlined
        def product_gelu(x, rows, weight, layer, out, start, stop, first, last):
            linear.linear_gelu_16(
                x, rows.scale, weight.packed[layer], weight.scale[layer], weight.bias[layer], out,
                start, stop, first, last,
            )  # fmt: skip

        @inlined
        def product_residual(x, rows, weight, layer, residual, out, start, stop, first, last):
            linear.linear_residual_16(
                x, rows.scale, weight.packed[layer], weight.scale[layer], weight.bias[layer], residual, out,
                start, stop, first, last,
            )  # fmt: skip
    else:

        @inlined
        def quantise(x, to, rows, start, stop):
            quantise_rows_8(x, to, rows.scale, rows.zero, start, stop)

        @inlined
        def product(x, rows, weight, layer, out, start, stop, first, last):
            linear.linear_8(
                x, rows.scale, rows.zero, weight.packed[layer], weight.scale[layer], weight.sum[layer],
                weight.bias[layer], out, start, stop, first, last,
            )  # fmt: skip

        @inlined
        def product_gelu(x, rows, weight, layer, out, start, stop, first, last):
            linear.linear_gelu_8(
                x, rows.scale, rows.zero, weight.packed[layer], weight.scale[layer], weight.sum[layer],
                weight.bias[layer], out, start, stop, first, last,
            )  # fmt: skip

        @inlined
        def product_residual(x, rows, weight, layer, residual, out, start, stop, first, last):
            linear.linear_residual_8(
                x, rows.scale, rows.zero, weight.packed[layer], weight.scale[layer], weight.sum[layer],
                weight.bias[layer], residual, out, start, stop, first, last,
            )  # fmt: skip

    @kernel
    def quantise_norms(x, channels, scaled, rows, start, stop):
        # (N, D): rows start to stop of x; with 8 bits times the channels, in `scaled`
        if bits == 16:
            quantise(x, rows.integers, rows, start, stop)
        else:
            D = x.shape[1]
            for m in range(start, stop):
                _scale_row(simd.address(x) + m * D, simd.address(channels), D, simd.address(scaled) + m * D)
            quantise(scaled, rows.integers, rows, start, stop)

    @kernel
    def norm_rows(x, weight, bias, eps, channels, scaled, rows, start, stop):
        # (N, D): LayerNorm in place, then quantise the rows, a few at a time
        for first in range(start, stop, NORM_ROWS):
            last = min(first + NORM_ROWS, stop)
            layer_norm(x, weight, bias, eps, x, first, last)
            quantise_norms(x, channels, scaled, rows, first, last)

    @kernel
    def embed(batch, table, layers, buffers, settings, start, stop):
        x, channels = buffers.x, layers.channels[0]
        for first in range(start, stop, NORM_ROWS):
            last = min(first + NORM_ROWS, stop)
            embeddings(
                batch.token_ids, batch.position_ids, batch.token_type_ids, table.word, table.word_scale, table.position,
                table.token_type, table.norm_weight, table.norm_bias, settings.eps, x, first, last,
            )  # fmt: skip
            quantise_norms(x, channels, buffers.context, buffers.rows, first, last)

    @kernel
    def step(number, layer, batch, layers, buffers, settings, member, start, stop, first, last):
        """Compute tokens start to stop, and panels or heads first to last, of one step of a layer."""
        x, query_key_value, context, attended, intermediate, scratch, rows = buffers
        if number == QUERY_KEY_VALUE:
            product(rows.integers, rows, layers.query_key_value, layer, query_key_value, start, stop, first, last)
        elif number == ATTENTION:
            for b in range(len(batch.offsets) - 1):
                text, end = batch.offsets[b], batch.offsets[b + 1]
                row_start, row_stop = max(start, text), min(stop, end)
                if row_start < row_stop:
                    attention(
                        query_key_value, text, end, row_start, row_stop, first, last, settings.n_heads, settings.scale,
                        layers.relative_bias, context, scratch[member],
                    )  # fmt: skip
        elif number == QUANTISE_CONTEXT:
            quantise(context, rows.integers, rows, start, stop)
        elif number == ATTENTION_OUTPUT:
            product_residual(rows.integers, rows, layers.attention_output, layer, x, attended, start, stop, first, last)
        elif number == ATTENTION_NORM:
            norm_rows(
                attended, layers.attention_norm_weight[layer], layers.attention_norm_bias[layer], settings.eps,
                layers.channels[2 * layer + 1], context, rows, start, stop,
            )  # fmt: skip
        elif number == INTERMEDIATE:
            if settings.activation == GELU:
                product_gelu(rows.integers, rows, layers.intermediate, layer, intermediate, start, stop, first, last)
            else:
                product(rows.integers, rows, layers.intermediate, layer, intermediate, start, stop, first, last)
                last_column = min(last * panel, intermediate.shape[1])
                activate(intermediate, settings.activation, start, stop, first * panel, last_column)
        elif number == QUANTISE_INTERMEDIATE:
            quantise(intermediate, rows.wide, rows, start, stop)
        elif number == OUTPUT:
            product_residual(rows.wide, rows, layers.output, layer, attended, x, start, stop, first, last)
        else:
            following = min(2 * layer + 2, len(layers.channels) - 1)  # unused after the last layer
            norm_rows(
                x, layers.output_norm_weight[layer], layers.output_norm_bias[layer], settings.eps,
                layers.channels[following], context, rows, start, stop,
            )  # fmt: skip

    return make_forward(LAYER_STAGES, _PRODUCTS, ROW_UNIT, _columns, embed, step)


@kernel
def _columns(number, layers, settings):
    """Panels of outputs, or heads."""
    if number == QUERY_KEY_VALUE:
        return layers.query_key_value.packed.shape[1]
    if number == ATTENTION:
        return settings.n_heads
    if number == INTERMEDIATE:
        return layers.intermediate.packed.shape[1]
    return layers.output.packed.shape[1] if number in _PRODUCTS else 1


forward_16, forward_8 = _make_forward(16), _make_forward(8)
