"""Dense layers: bit-equal to the contract's scalar loops, near float64, the same however they are split."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minilm_np.engine.float32.kernels import layout, linear
from tests.support import contract
from tests.support.kernels import EPSILON, assert_same_bits, few, guarded, normal, scales, seeds, sizes


def packed(weight):
    out = np.zeros(layout.packed_shape(*weight.shape), np.float32)
    layout.pack(weight, out)
    return out


@few
@given(seeds, sizes, st.integers(1, 29), sizes, scales)
def test_linear(seed, K, M, N, scale):
    rng = np.random.default_rng(seed)
    x, x_intact = guarded(normal(rng, M, K, scale=scale))
    weight_packed, _ = guarded(packed(weight := normal(rng, N, K, scale=min(scale, 1.0))))
    bias, _ = guarded(normal(rng, N, scale=scale))
    residual, _ = guarded(normal(rng, M, N))
    out, out_intact = guarded(np.empty((M, N), np.float32))
    ranges = 0, M, 0, len(weight_packed)

    linear.linear(x, weight_packed, bias, out, *ranges)
    assert_same_bits(out, contract.linear(x, weight, bias))
    wide, wide_weight = x.astype(np.float64), weight.astype(np.float64)
    bound = (min(K, 128) + K // 128 + 3) * EPSILON * (np.abs(wide) @ np.abs(wide_weight.T) + np.abs(bias))
    assert (np.abs(out - (wide @ wide_weight.T + bias)) <= bound + K * 2.0**-149).all()

    linear.linear_gelu(x, weight_packed, bias, out, *ranges)
    assert_same_bits(out, contract.linear_gelu(x, weight, bias))
    linear.linear_residual(x, weight_packed, bias, residual, out, *ranges)
    assert_same_bits(out, contract.linear_residual(x, weight, bias, residual))
    expected = out.copy()
    out[:] = residual
    linear.linear_residual(x, weight_packed, bias, out, out, *ranges)  # in place
    assert_same_bits(out, expected)
    assert out_intact() and x_intact()


@few
@given(seeds, st.integers(2, 40), sizes, st.data())
def test_linear_is_the_same_however_split(seed, M, N, data):
    rng = np.random.default_rng(seed)
    x, weight, bias = normal(rng, M, 150), normal(rng, N, 150), normal(rng, N)
    weight_packed, whole, parts = packed(weight), np.empty((M, N), np.float32), np.empty((M, N), np.float32)
    P = len(weight_packed)
    linear.linear_gelu(x, weight_packed, bias, whole, 0, M, 0, P)
    row, panel = data.draw(st.integers(0, M)), data.draw(st.integers(0, P))
    for rows in ((0, row), (row, M)):
        for panels in ((0, panel), (panel, P)):
            linear.linear_gelu(x, weight_packed, bias, parts, *rows, *panels)
    assert_same_bits(parts, whole)


def test_pack_joins_weights():
    weights = [normal(np.random.default_rng(i), n, 10) for i, n in enumerate((30, 50, 7))]
    out = np.zeros(layout.packed_shape(87, 10), np.float32)
    layout.pack(weights[0], out)
    layout.pack(weights[1], out, 30)
    layout.pack(weights[2], out, 80)
    assert_same_bits(out, packed(np.concatenate(weights)))
    assert (out[1, :, 87 - 48 :] == 0).all()
