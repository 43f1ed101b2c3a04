"""The functions that are called from outside, and their object code.

`run_pass_16` and `run_pass_8` are `forward` for callers without Numba: each takes one record, `passes.Pass`.
"""

import numba
import numpy as np
from numba import types

from minilm_np.engine.float32.kernels.entry import exchange_float_mode
from minilm_np.engine.float32.kernels.forward import Batch, Settings
from minilm_np.engine.float32.kernels.layout import COUNTER
from minilm_np.engine.integer.kernels import forward as passes
from minilm_np.engine.integer.kernels import weights
from minilm_np.engine.integer.kernels.forward import Buffers, Embeddings, Layers, Product, Rows
from minilm_np.engine.integer.kernels.layout import PANEL, ROW_BLOCK, padded, row_bytes
from minilm_np.engine.integer.kernels.passes import Pass, n_stages, padded_width
from minilm_np.engine.runtime.compilation import compile_function, symbol_and_object
from minilm_np.engine.runtime.simd import floats_at, inlined, integers, ints_at, kernel

_RECORD = numba.from_dtype(np.dtype(Pass))
_stages, _padded, _padded_width = kernel(n_stages), kernel(padded), kernel(padded_width)


def _make_run_pass(bits, forward):
    panel, element_bytes = PANEL[bits], bits // 8
    x_bytes = row_bytes(bits, padded(1)) // padded(1)  # of an element of quantised x

    @inlined
    def product_at(packed, scale, total, bias, L, N, K):
        return Product(
            integers.bytes_at(packed, (L, (N + panel - 1) // panel, panel * _padded(K) * element_bytes)),
            floats_at(scale, (L, N)),
            integers.ints32_at(total, (L, N)),
            floats_at(bias, (L, N)),
        )

    @kernel
    def run_pass(p):
        B, N, L, H = p.n_texts, p.n_tokens, p.n_layers, p.n_heads
        D, F = p.hidden_size, p.intermediate_size
        batch = Batch(
            ints_at(p.token_ids, (N,)),
            ints_at(p.position_ids, (N,)),
            ints_at(p.token_type_ids, (N,)),
            ints_at(p.offsets, (B + 1,)),
        )
        table = Embeddings(
            integers.bytes_at(p.word, (p.vocab_size, 2 * _padded_width(D))),
            floats_at(p.word_scale, (p.vocab_size,)),
            floats_at(p.position, (p.positions, D)),
            floats_at(p.token_type, (p.token_types, D)),
            floats_at(p.norm_weight, (D,)),
            floats_at(p.norm_bias, (D,)),
        )
        layers = Layers(
            product_at(
                p.query_key_value_packed, p.query_key_value_scale, p.query_key_value_sum, p.query_key_value_bias,
                L, 3 * D, D,
            ),
            product_at(
                p.attention_output_packed, p.attention_output_scale, p.attention_output_sum, p.attention_output_bias,
                L, D, D,
            ),
            product_at(p.intermediate_packed, p.intermediate_scale, p.intermediate_sum, p.intermediate_bias, L, F, D),
            product_at(p.output_packed, p.output_scale, p.output_sum, p.output_bias, L, D, F),
            floats_at(p.attention_norm_weight, (L, D)),
            floats_at(p.attention_norm_bias, (L, D)),
            floats_at(p.output_norm_weight, (L, D)),
            floats_at(p.output_norm_bias, (L, D)),
            floats_at(p.channels, (2 * L, D)),
            floats_at(p.relative_bias, (H, p.bias_width)),
        )  # fmt: skip
        padded_rows = (N + ROW_BLOCK - 1) // ROW_BLOCK * ROW_BLOCK
        rows = Rows(
            integers.bytes_at(p.rows, (padded_rows, x_bytes * _padded(D))),
            integers.bytes_at(p.wide_rows, (padded_rows, x_bytes * _padded(F))),
            floats_at(p.row_scale, (N,)),
            integers.ints32_at(p.row_zero, (N,)),
        )
        buffers = Buffers(
            floats_at(p.x, (N, D)),
            floats_at(p.query_key_value, (N, 3 * D)),
            floats_at(p.context, (N, D)),
            floats_at(p.attended, (N, D)),
            floats_at(p.intermediate, (N, F)),
            floats_at(p.scratch, (p.members, p.scratch_size)),
            rows,
        )
        settings = Settings(H, p.eps, p.scale, p.activation, p.pooling_mode, p.normalizes)
        out, counters = floats_at(p.out, (B, D)), ints_at(p.counters, (COUNTER * _stages(L),))
        forward(
            batch, table, layers, buffers, settings, out, counters, p.tasks, p.row_tasks, p.member,
            p.stage_start, p.stage_stop,
        )  # fmt: skip

    return run_pass


@kernel
def quantise_weight(weight, channels, levels, out, scale, scratch, N, K):
    """`weights.quantise_weight` by addresses."""
    weights.quantise_weight(
        floats_at(weight, (N, K)), floats_at(channels, (K,)), levels, integers.bytes_at(out, (N, 2 * _padded_width(K))),
        floats_at(scale, (N,)), floats_at(scratch, (K,)),
    )  # fmt: skip


_SIGNATURES = {
    "quantise_weight": (quantise_weight, (types.int64,) * 8, types.void),
    "run_pass_16": (_make_run_pass(16, passes.forward_16), (_RECORD,), types.void),
    "run_pass_8": (_make_run_pass(8, passes.forward_8), (_RECORD,), types.void),
    "exchange_float_mode": (exchange_float_mode, (types.int64,), types.int64),
}


NAMES = tuple(_SIGNATURES)


def compile_entry(name):
    """Numba's CompileResult of an entry."""
    dispatcher, arguments, result = _SIGNATURES[name]
    return compile_function(dispatcher, arguments, result)


def object_code(name):
    """The symbol and the object code of an entry, see `compilation.symbol_and_object`."""
    return symbol_and_object(compile_entry(name))
