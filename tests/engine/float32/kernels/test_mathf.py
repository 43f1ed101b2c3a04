"""exp, erf and the activations: near float64, bit-equal to the contract's scalar loops."""

import math

import numpy as np
from scipy.special import erf, erfc

from minilm_np.engine.float32.kernels import mathf
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import kernel
from tests.support import contract
from tests.support.kernels import assert_same_bits


def over_array(function):
    @kernel
    def run(x, out):
        for i in range(0, len(x), simd.LANES):
            simd.store(simd.address(out) + i, function(simd.load(simd.address(x) + i)))

    def call(x):
        out = np.empty(-(-len(x) // 16) * 16, np.float32)
        run(np.pad(x, (0, len(out) - len(x))), out)
        return out[: len(x)]

    return call


exp, erf_kernel, gelu = over_array(mathf.exp), over_array(mathf.erf), over_array(mathf.gelu)
gelu_tanh, relu, silu = over_array(mathf.gelu_tanh), over_array(mathf.relu), over_array(mathf.silu)


def ulps(found, true):
    return np.abs(found - true) / np.spacing(np.abs(true).astype(np.float32))


def sampled(low, high, seed):
    """Floats of every size up to the ends, and of the middle of the range."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, np.float32(max(-low, high)).view(np.int32), 200_000).astype(np.int32).view(np.float32)
    signed = np.where(rng.random(len(bits)) < 0.5, bits, -bits)
    x = np.concatenate([signed, rng.uniform(low, high, 200_000), [low, high, 0.0, -0.0]]).astype(np.float32)
    return x[(x >= low) & (x <= high)]


def test_exp():
    x = sampled(-104.0, 0.0, 3)
    found, true = exp(x), np.exp(x.astype(np.float64))
    normal_result = x > -87.3365
    assert ulps(found, true)[normal_result].max() <= 1.0
    assert (found[x < -87.3366] == 0).all()
    assert_same_bits(found, contract.exp(x))
    special = exp(np.array([0.0, -0.0, -np.inf, np.nan, -87.33654, -3e38], np.float32))
    assert special[:3].tolist() == [1.0, 1.0, 0.0] and np.isnan(special[3])
    assert special[4] >= np.finfo(np.float32).tiny and special[5] == 0.0


def test_erf():
    x = sampled(-32.0, 32.0, 4)
    found = erf_kernel(x)
    assert np.abs(found - erf(x.astype(np.float64))).max() <= 2.0e-7
    assert (np.abs(found[np.abs(x) >= 4]) == 1.0).all()
    assert_same_bits(found, contract.erf(x))
    assert_same_bits(erf_kernel(-x), -found)


def test_gelu():
    x = sampled(-32.0, 32.0, 5)
    found, wide = gelu(x), x.astype(np.float64)
    assert np.abs(found - 0.5 * wide * erfc(-wide * math.sqrt(0.5)))[np.abs(x) < 8].max() <= 7.0e-7
    assert_same_bits(found, contract.gelu(x))
    special = gelu(np.array([-1e30, -5.7, 1e30, np.nan, 0.0], np.float32))
    assert special[[0, 1, 2, 4]].tolist() == [0.0, 0.0, np.float32(1e30), 0.0] and np.isnan(special[3])


def test_gelu_tanh():
    x = sampled(-32.0, 32.0, 6)
    found, wide = gelu_tanh(x), x.astype(np.float64)
    inner = 2.0 * math.sqrt(2.0 / math.pi) * (wide + 0.044715 * wide**3)
    with np.errstate(over="ignore"):
        true = wide / (1.0 + np.exp(-inner))
    assert np.abs(found - true).max() <= 4.0e-6  # 2 ULP of 32
    assert np.abs(found - true)[np.abs(x) < 4].max() <= 7.0e-7
    assert_same_bits(found, contract.gelu_tanh(x))
    special = gelu_tanh(np.array([-1e15, 1e15, np.nan, 0.0], np.float32))
    assert special[[0, 1, 3]].tolist() == [0.0, np.float32(1e15), 0.0] and np.isnan(special[2])


def test_silu():
    x = sampled(-80.0, 80.0, 7)
    found, wide = silu(x), x.astype(np.float64)
    true = wide / (1.0 + np.exp(-wide))
    normal_result = np.abs(true) >= np.finfo(np.float32).tiny
    assert ulps(found, true)[normal_result].max() <= 4.0
    assert_same_bits(found, contract.silu(x))
    special = silu(np.array([-1e30, 1e30, np.nan, 0.0], np.float32))
    assert special[[0, 1, 3]].tolist() == [0.0, np.float32(1e30), 0.0] and np.isnan(special[2])


def test_relu():
    x = sampled(-32.0, 32.0, 8)
    assert_same_bits(relu(x), contract.relu(x))
    special = relu(np.array([-np.inf, np.inf, np.nan, 0.0], np.float32))
    assert special[[0, 1, 3]].tolist() == [0.0, np.inf, 0.0] and np.isnan(special[2])
