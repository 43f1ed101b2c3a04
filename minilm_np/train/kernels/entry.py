"""The functions that `train/engine.py` calls: the kernels for callers without Numba, with addresses for arrays.

`layout.ENTRIES` has the types of their arguments: integers, and at the end float32. Each calling thread passes its own
`scratch`.
"""

import ctypes

from numba import types

from minilm_np.engine.float32.kernels import layer_norm as forward_norm
from minilm_np.engine.float32.kernels import linear
from minilm_np.engine.float32.kernels.layout import PANEL
from minilm_np.engine.runtime.compilation import compile_function, symbol_and_object
from minilm_np.engine.runtime.simd import floats_at, ints_at, kernel
from minilm_np.train.kernels import activation, products
from minilm_np.train.kernels import attention as heads
from minilm_np.train.kernels import dropout as masks
from minilm_np.train.kernels import layer_norm as norms
from minilm_np.train.kernels.layout import ENTRIES


@kernel
def pack(weight, by_outputs, by_inputs, M, K, first_output, M_packed):
    # weight (M, K) -> outputs first_output..first_output + M of both packed forms, which have M_packed outputs
    source = floats_at(weight, (M, K))
    outputs = floats_at(by_outputs, ((M_packed + PANEL - 1) // PANEL, K, PANEL))
    inputs = floats_at(by_inputs, ((K + PANEL - 1) // PANEL, M_packed, PANEL))
    products.pack_outputs(source, outputs, first_output)
    products.pack_inputs(source, inputs, first_output)


@kernel
def dense(x, weight_packed, bias, out, K, M, row_start, row_stop, panel_stop):
    packed = floats_at(weight_packed, (panel_stop, K, PANEL))
    y = floats_at(out, (row_stop, M))
    linear.linear(floats_at(x, (row_stop, K)), packed, floats_at(bias, (M,)), y, row_start, row_stop, 0, panel_stop)


@kernel
def dense_residual(x, weight_packed, bias, residual, out, K, M, row_start, row_stop, panel_stop):
    packed = floats_at(weight_packed, (panel_stop, K, PANEL))
    y, added = floats_at(out, (row_stop, M)), floats_at(residual, (row_stop, M))
    inputs, biases = floats_at(x, (row_stop, K)), floats_at(bias, (M,))
    linear.linear_residual(inputs, packed, biases, added, y, row_start, row_stop, 0, panel_stop)


@kernel
def weight_gradient(scratch, d_y, x, d_weight, N, M, K, output_start, output_stop):
    size = products.SPAN * ((output_stop - output_start + 15) // 16 * 16 + PANEL)
    products.weight_gradient(
        floats_at(d_y, (N, M)), floats_at(x, (N, K)), floats_at(d_weight, (M, K)), floats_at(scratch, (size,)),
        output_start, output_stop,
    )  # fmt: skip


@kernel
def column_sums(x, out, N, C, column_start, column_stop):
    products.column_sums(floats_at(x, (N, C)), floats_at(out, (C,)), column_start, column_stop)


@kernel
def column_dots(x, y, out, N, C, column_start, column_stop):
    products.column_dots(
        floats_at(x, (N, C)), floats_at(y, (N, C)), floats_at(out, (C,)), column_start, column_stop
    )  # fmt: skip


@kernel
def norm(x, weight, bias, out, D, row_start, row_stop, eps):
    scale, shift = floats_at(weight, (D,)), floats_at(bias, (D,))
    source, y = floats_at(x, (row_stop, D)), floats_at(out, (row_stop, D))
    forward_norm.layer_norm(source, scale, shift, eps, y, row_start, row_stop)


@kernel
def norm_backward(d_y, x, weight, d_x, x_hat, D, row_start, row_stop, eps):
    shape = (row_stop, D)
    norms.layer_norm_backward(
        floats_at(d_y, shape), floats_at(x, shape), floats_at(weight, (D,)), eps, floats_at(d_x, shape),
        floats_at(x_hat, shape), row_start, row_stop,
    )  # fmt: skip


@kernel
def gelu(x, y, start, stop):
    activation.gelu(floats_at(x, (stop,)), floats_at(y, (stop,)), start, stop)


@kernel
def gelu_backward(d_y, x, d_x, y, start, stop):
    shape = (stop,)
    activation.gelu_backward(
        floats_at(d_y, shape), floats_at(x, shape), floats_at(d_x, shape), floats_at(y, shape), start, stop
    )


@kernel
def dropout_add(
    scratch, x, residual, adds, texts, rows, out, D, seed, place, step, threshold, row_start, row_stop, factor
):  # fmt: skip
    shape = (row_stop, D)
    masks.dropout_add(
        floats_at(x, shape), floats_at(residual, shape), adds, ints_at(texts, (row_stop,)), ints_at(rows, (row_stop,)),
        seed, place, step, threshold, factor, floats_at(scratch, (D + 4,)), floats_at(out, shape), row_start, row_stop,
    )  # fmt: skip


@kernel
def attention(
    scratch, scratch_size, qkv, offsets, texts, N, B, D, n_heads, seed, place, step, threshold, context, start, stop,
    scale, factor,
):  # fmt: skip
    heads.attention_forward(
        floats_at(qkv, (N, 3 * D)), ints_at(offsets, (B + 1,)), ints_at(texts, (B,)), n_heads, scale, seed, place, step,
        threshold, factor, floats_at(context, (N, D)), floats_at(scratch, (scratch_size,)), start, stop,
    )  # fmt: skip


@kernel
def attention_backward(
    scratch, scratch_size, qkv, d_context, offsets, texts, N, B, D, n_heads, seed, place, step, threshold, d_qkv, start,
    stop, scale, factor,
):  # fmt: skip
    heads.attention_backward(
        floats_at(qkv, (N, 3 * D)), floats_at(d_context, (N, D)), ints_at(offsets, (B + 1,)), ints_at(texts, (B,)),
        n_heads, scale, seed, place, step, threshold, factor, floats_at(d_qkv, (N, 3 * D)),
        floats_at(scratch, (scratch_size,)), start, stop,
    )  # fmt: skip


NAMES = tuple(ENTRIES)


def object_code(name):
    """The symbol and the object code of an entry, see `compilation.symbol_and_object`."""
    numba_types = {ctypes.c_int64: types.int64, ctypes.c_float: types.float32}
    arguments = tuple(numba_types[argument] for argument in ENTRIES[name])
    return symbol_and_object(compile_function(globals()[name], arguments, types.void))
