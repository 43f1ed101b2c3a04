"""LayerNorm: bit-equal to the contract's scalar loops, near float64, in place, row by row."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minilm_np.engine.float32.kernels import layer_norm
from tests.support import contract
from tests.support.kernels import EPS, EPSILON, assert_same_bits, few, guarded, normal, scales, seeds, sizes


@few
@given(seeds, st.integers(1, 5), sizes, scales)
def test_layer_norm(seed, N, D, scale):
    rng = np.random.default_rng(seed)
    x, _ = guarded(normal(rng, N, D, scale=scale) + np.float32(rng.standard_normal() * scale))
    weight, bias = guarded(normal(rng, D))[0], guarded(normal(rng, D))[0]
    out, intact = guarded(np.empty((N, D), np.float32))
    layer_norm.layer_norm(x, weight, bias, EPS, out, 0, N)
    assert_same_bits(out, contract.layer_norm(x, weight, bias, EPS))
    wide = x.astype(np.float64)
    mean, deviation = wide.mean(1, keepdims=True), np.sqrt(wide.var(1, keepdims=True) + float(EPS))
    bound = 40 * EPSILON * (1 + np.abs(mean) / deviation) * math.sqrt(D) * (1 + np.abs(weight).max())
    assert (np.abs(out - ((wide - mean) / deviation * weight + bias)) <= bound + 1e-6 * np.abs(bias)).all()

    parts = np.empty_like(out)
    for start in range(N):
        layer_norm.layer_norm(x, weight, bias, EPS, parts, start, start + 1)
    assert_same_bits(parts, out)
    layer_norm.layer_norm(x, weight, bias, EPS, x, 0, N)  # in place
    assert_same_bits(x.copy(), out.copy())
    assert intact()
