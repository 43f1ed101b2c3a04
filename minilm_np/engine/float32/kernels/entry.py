"""The functions that are called from outside, and their object code.

`run_pass` is `forward` for callers without Numba: it takes one record of addresses and sizes (`layout.Pass`).
"""

import numba
import numpy as np
from numba import types

from minilm_np.engine.float32.kernels import forward as passes
from minilm_np.engine.float32.kernels.forward import Batch, Buffers, Embeddings, Layers, Settings
from minilm_np.engine.float32.kernels.layout import COUNTER, PANEL, Pass, n_stages
from minilm_np.engine.float32.kernels.linear import linear
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.compilation import compile_function, symbol_and_object
from minilm_np.engine.runtime.simd import floats_at, ints_at, kernel

_RECORD = numba.from_dtype(np.dtype(Pass))
_stages = kernel(n_stages)


@kernel
def run_pass(p):
    B, N, L, H = p.n_texts, p.n_tokens, p.n_layers, p.n_heads
    D, F = p.hidden_size, p.intermediate_size
    hidden_panels, wide_panels = (D + PANEL - 1) // PANEL, (F + PANEL - 1) // PANEL
    batch = Batch(
        ints_at(p.token_ids, (N,)),
        ints_at(p.position_ids, (N,)),
        ints_at(p.token_type_ids, (N,)),
        ints_at(p.offsets, (B + 1,)),
    )
    table = Embeddings(
        floats_at(p.word, (p.vocab_size, D)),
        floats_at(p.position, (p.positions, D)),
        floats_at(p.token_type, (p.token_types, D)),
        floats_at(p.norm_weight, (D,)),
        floats_at(p.norm_bias, (D,)),
    )
    layers = Layers(
        floats_at(p.query_key_value_packed, (L, (3 * D + PANEL - 1) // PANEL, D, PANEL)),
        floats_at(p.query_key_value_bias, (L, 3 * D)),
        floats_at(p.attention_output_packed, (L, hidden_panels, D, PANEL)),
        floats_at(p.attention_output_bias, (L, D)),
        floats_at(p.attention_norm_weight, (L, D)),
        floats_at(p.attention_norm_bias, (L, D)),
        floats_at(p.intermediate_packed, (L, wide_panels, D, PANEL)),
        floats_at(p.intermediate_bias, (L, F)),
        floats_at(p.output_packed, (L, hidden_panels, F, PANEL)),
        floats_at(p.output_bias, (L, D)),
        floats_at(p.output_norm_weight, (L, D)),
        floats_at(p.output_norm_bias, (L, D)),
        floats_at(p.relative_bias, (H, p.bias_width)),
    )
    buffers = Buffers(
        floats_at(p.x, (N, D)),
        floats_at(p.query_key_value, (N, 3 * D)),
        floats_at(p.context, (N, D)),
        floats_at(p.attended, (N, D)),
        floats_at(p.intermediate, (N, F)),
        floats_at(p.scratch, (p.members, p.scratch_size)),
    )
    settings = Settings(H, p.eps, p.scale, p.activation, p.pooling_mode, p.normalizes)
    out, counters = floats_at(p.out, (B, D)), ints_at(p.counters, (COUNTER * _stages(L),))
    passes.forward(
        batch, table, layers, buffers, settings, out, counters, p.tasks, p.row_tasks, p.member,
        p.stage_start, p.stage_stop,
    )  # fmt: skip


@kernel
def exchange_float_mode(mode):
    """Set the calling thread's float mode (MXCSR, FPCR) and return the previous one.

    The host program may flush subnormals to zero, which would change bits; new threads inherit that. This is a separate
    function, because within one function LLVM may move arithmetic across the change.
    """
    before = simd.get_float_mode()
    simd.set_float_mode(mode)
    return before


@kernel
def run_linear(x, packed, bias, out, M, N, K):
    """`linear.linear` by addresses."""
    panels = (N + PANEL - 1) // PANEL
    linear(
        floats_at(x, (M, K)), floats_at(packed, (panels, K, PANEL)), floats_at(bias, (N,)), floats_at(out, (M, N)),
        0, M, 0, panels,
    )  # fmt: skip


_SIGNATURES = {
    "run_pass": (run_pass, (_RECORD,), types.void),
    "run_linear": (run_linear, (types.int64,) * 7, types.void),
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
