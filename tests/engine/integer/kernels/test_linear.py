"""Integer products: equal to Python's integers at every shape and at the ends of the range, then rounded by rule."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minilm_np.engine.integer.kernels import layout, linear
from tests.support.compare import assert_same_bits
from tests.support.integer_kernels import (
    F32,
    MOST_NORM,
    exact_product,
    linear_rule,
    packed,
    run_linear,
    within_norm,
)  # fmt: skip

few = settings(max_examples=40, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
sizes = st.one_of(st.integers(1, 70), st.sampled_from([63, 64, 65, 128, 192, 300]))
heights = st.one_of(st.integers(1, 20), st.sampled_from([31, 32, 33, 48, 70]))


def floats(rng, *shape):
    return rng.standard_normal(shape).astype(F32)


def drawn_rows(rng, bits, n, K):
    """Rows of every kind: full range, within the norm; all at one end; zeros; one huge among tiny ones."""
    if bits == 16:
        rows = within_norm(rng.integers(-32_767, 32_768, (n, K)))
        end = min(32_767, int(MOST_NORM / K**0.5))
    else:
        rows, end = rng.integers(-127, 128, (n, K)), 127
    for row, kind in zip(rows, rng.integers(0, 6, n), strict=True):
        if kind == 0:
            row[:] = end
        elif kind == 1:
            row[:] = end * rng.choice([-1, 1], K)
        elif kind == 2:
            row[:] = 0
        elif kind == 3:
            row[:] = rng.integers(-1, 2, K)
            row[rng.integers(0, K)] = 32_767 if bits == 16 else -127
    return rows.astype(np.int16 if bits == 16 else np.int8)


@pytest.mark.parametrize("kind", ["linear", "linear_gelu", "linear_residual"])
@few
@given(seeds, heights, sizes, sizes)
@example(1, 1, 1, 1)
@example(2, 33, 300, 130)
def test_16(kind, seed, M, K, N):
    rng = np.random.default_rng(seed)
    x, weight = drawn_rows(rng, 16, M, K), drawn_rows(rng, 16, N, K)
    scales = abs(floats(rng, M)) * F32(2.0**-20), abs(floats(rng, N)) * F32(2.0**-10)
    bias, residual = floats(rng, N), floats(rng, M, N) if kind == "linear_residual" else None
    found = run_linear(16, x, scales[0], weight, scales[1], bias, kind, residual=residual)
    assert_same_bits(found, linear_rule(exact_product(x, weight), *scales, bias, kind, residual))


@pytest.mark.parametrize("kind", ["linear", "linear_gelu", "linear_residual"])
@few
@given(seeds, heights, sizes, sizes)
@example(1, 1, 1, 1)
@example(2, 33, 300, 130)
def test_8(kind, seed, M, K, N):
    rng = np.random.default_rng(seed)
    x, weight = (drawn_rows(rng, 8, M, K).astype(np.int16) + 128).astype(np.uint8), drawn_rows(rng, 8, N, K)
    zero = rng.choice([0, 1, 127, 128, 254, 255], M).astype(np.int32)
    scales = abs(floats(rng, M)) * F32(2.0**-10), abs(floats(rng, N)) * F32(2.0**-10)
    bias, residual = floats(rng, N), floats(rng, M, N) if kind == "linear_residual" else None
    found = run_linear(8, x, scales[0], weight, scales[1], bias, kind, zero, residual)
    sums = exact_product(x, weight) - zero.astype(object)[:, None] * weight.astype(object).sum(1)
    assert_same_bits(found, linear_rule(sums, *scales, bias, kind, residual))


def ones(n):
    return np.ones(n, F32)


@pytest.mark.parametrize("K", [2, 384, 1536, 46_340])
@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, -1)])
def test_16_at_the_bound(K, signs):
    """Rows of equal values and of one value, as long as the norm allows: the sums come close to 2^31."""
    level = min(32_767, int(MOST_NORM / K**0.5))
    x, weight = np.full((2, K), signs[0] * level, np.int16), np.full((2, K), signs[1] * level, np.int16)
    x[1], weight[1] = 0, 0
    x[1, -1], weight[1, -1] = signs[0] * 32_767, signs[1] * 32_767
    exact = exact_product(x, weight)
    assert K == 2 or abs(exact[0, 0]) > 0.98 * 2**31 or K == 46_340
    found = run_linear(16, x, ones(2), weight, ones(2), np.zeros(2, F32))
    assert_same_bits(found, linear_rule(exact, ones(2), ones(2), np.zeros(2, F32)))


def test_16_whose_partial_sums_leave_int32():
    """Only the whole sum must fit: on the way there the accumulators may wrap around."""
    K = 256
    x = np.full((1, K), 32_767, np.int16)
    weight = np.where(np.arange(K) < K // 2, 32_767, -32_767).astype(np.int16)[None]
    weight[0, -1] += 3
    found = run_linear(16, x, ones(1), weight, ones(1), np.zeros(1, F32))
    assert found.tolist() == [[3 * 32_767]]


@pytest.mark.parametrize(("x_value", "w_value", "zero"), [(255, 127, 0), (255, -127, 0), (0, -127, 255), (0, 127, 255)])
def test_8_at_the_ends(x_value, w_value, zero):
    for K in (1, 384, 1536, 66_000):
        x, weight = np.full((1, K), x_value, np.uint8), np.full((1, K), w_value, np.int8)
        found = run_linear(8, x, ones(1), weight, ones(1), np.zeros(1, F32), x_zero=np.array([zero], np.int32))
        assert found.tolist() == [[float(F32((x_value - zero) * w_value * K))]]


@pytest.mark.parametrize("bits", [16, 8])
def test_same_bits_however_it_is_shared_out(bits):
    rng = np.random.default_rng(5)
    M, K, N = 85, 130, 200
    x, weight = drawn_rows(rng, bits, M, K), drawn_rows(rng, bits, N, K)
    zero = {"x_zero": np.full(M, 128, np.int32)} if bits == 8 else {}
    x = (x.astype(np.int16) + 128).astype(np.uint8) if bits == 8 else x
    arguments = bits, x, abs(floats(rng, M)), weight, abs(floats(rng, N)), floats(rng, N), "linear_gelu"
    whole = run_linear(*arguments, **zero)
    panels = len(packed(bits, weight))
    shares = [
        (row_start, min(row_start + 16, M), p, p + 1)
        for row_start in range(0, M, layout.ROW_BLOCK)
        for p in reversed(range(panels))
    ]
    assert_same_bits(run_linear(*arguments, **zero, ranges=shares), whole)
    assert_same_bits(run_linear(*arguments, **zero, ranges=[(48, M, 0, panels), (0, 48, 0, panels)]), whole)
    last_zero = {name: value[-1:] for name, value in zero.items()}
    alone = run_linear(bits, x[-1:], arguments[2][-1:], *arguments[3:], **last_zero)
    assert_same_bits(alone, whole[-1:])


@pytest.mark.parametrize("bits", [16, 8])
def test_residual_may_be_the_output(bits):
    rng = np.random.default_rng(6)
    M, K, N = 40, 64, 50
    x, weight = drawn_rows(rng, bits, M, K), drawn_rows(rng, bits, N, K)
    x = (x.astype(np.int16) + 128).astype(np.uint8) if bits == 8 else x
    zero = np.zeros(M, np.int32)
    arguments = bits, x, abs(floats(rng, M)), weight, abs(floats(rng, N)), floats(rng, N), "linear_residual", zero
    residual = floats(rng, M, N)
    expected = run_linear(*arguments, residual)
    rows, weight_packed = layout.pack_rows(bits, x), packed(bits, weight)
    inputs = [rows, arguments[2], weight_packed, arguments[4], arguments[5], residual, residual]
    if bits == 8:
        inputs.insert(2, zero)
        inputs.insert(5, weight.sum(1, dtype=np.int32))
    getattr(linear, f"linear_residual_{bits}")(*inputs, 0, M, 0, len(weight_packed))
    assert_same_bits(residual, expected)


# ---- layout ----------------------------------------------------------------------------------------------------------


@few
@given(st.sampled_from([16, 8]), seeds, heights, sizes)
def test_packing_keeps_every_integer(bits, seed, n, K):
    rng = np.random.default_rng(seed)
    weight = drawn_rows(rng, bits, n, K)
    both = layout.aligned_bytes(layout.packed_shape(bits, n + 7, K))
    layout.pack(bits, weight[:3], both, 7)
    layout.pack(bits, weight[3:], both, 10)
    assert np.array_equal(layout.unpack(bits, both, 7, n, K), weight)
    assert not layout.unpack(bits, both, 0, 7, K).any()
    x = weight if bits == 16 else weight.view(np.uint8)
    rows = layout.pack_rows(bits, x)
    assert rows.shape == layout.rows_shape(bits, n, K) and rows.ctypes.data % 64 == 0
    assert np.array_equal(layout.unpack_rows(bits, rows, n, K), x)
    assert not layout.unpack_rows(bits, rows, n, layout.padded(K))[:, K:].any()
