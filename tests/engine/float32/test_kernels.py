"""The Numba kernels: bit-equal to the contract's scalar loops, near float64, the same however work is shared out."""

import itertools
import math
import re
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf, erfc

from minilm_np.engine.float32.kernels import attention, embeddings, layer_norm, layout, linear, mathf, pooling
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.code_cache import STANDARD_FLOAT_MODE
from minilm_np.engine.runtime.simd import kernel
from tests.support import contract
from tests.support.kernel_bits import KERNELS

EPSILON = 2.0**-24  # the unit round-off of float32
EPS = np.float32(1e-12)  # LayerNorm's

seeds = st.integers(0, 2**32 - 1)
# Ordinary values, values whose products are subnormal or vanish, and values that make large logits.
scales = st.sampled_from([1.0, 2.0**-70, 2.0**-130, 12.0])
sizes = st.one_of(st.integers(1, 70), st.sampled_from([16, 48, 96, 127, 128, 129, 300]))
few = settings(max_examples=40, deadline=None, derandomize=True)


def normal(rng, *shape, scale=1.0):
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def guarded(array):
    """A copy with NaN directly before and after it, and a function that says whether those are still there."""
    memory = np.full(array.size + 128, np.nan, np.float32)
    memory[64:-64] = array.ravel()
    return memory[64:-64].reshape(array.shape), lambda: np.isnan(memory[:64]).all() and np.isnan(memory[-64:]).all()


def assert_same_bits(found, expected):
    assert found.dtype == expected.dtype == np.float32
    assert found.shape == expected.shape
    differ = found.view(np.int32) != expected.view(np.int32)
    assert not differ.any(), f"{differ.sum()} of {differ.size} differ, first {found[differ][0]}, {expected[differ][0]}"


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


@kernel
def fma_of_arrays(a, b, c, out):
    for i in range(0, len(a), simd.LANES):
        a_part, b_part = simd.load(simd.address(a) + i), simd.load(simd.address(b) + i)
        simd.store(simd.address(out) + i, simd.fma(a_part, b_part, simd.load(simd.address(c) + i)))


# ---- fma and the polynomials -----------------------------------------------------------------------------------------


def awkward_floats(rng, n):
    """Random bit patterns, near cancellations, subnormals: all finite."""
    a, b = (rng.integers(0, 2**32, n, dtype=np.uint32).view(np.float32) for _ in range(2))
    a, b = (np.where(np.isfinite(x), x, np.float32(1.5)) for x in (a, b))
    small = (rng.integers(-8, 9, n) * 2.0**-149).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        c = np.choose(rng.integers(0, 4, n), [-(a * b), normal(rng, n), small, np.nextafter(-(a * b), np.float32(0))])
        fine = np.isfinite(c) & (np.abs(a.astype(float) * b + c) < 2.0**127)
    return a[fine], b[fine], c[fine]


def test_the_contracts_fma_is_exact():
    a, b, c = awkward_floats(np.random.default_rng(1), 6000)
    assert_same_bits(contract.fma(a, b, c), np.array([contract.fma_exact(*abc) for abc in zip(a, b, c, strict=True)]))


def test_fma_is_the_contracts():
    a, b, c = (x[: len(x) // 16 * 16].copy() for x in awkward_floats(np.random.default_rng(2), 400_000))
    out = np.empty_like(a)
    fma_of_arrays(a, b, c, out)
    assert_same_bits(out, contract.fma(a, b, c))


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


# ---- linear ----------------------------------------------------------------------------------------------------------


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


# ---- LayerNorm, embeddings -------------------------------------------------------------------------------------------


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


@few
@given(seeds, st.integers(1, 9), sizes)
def test_embeddings(seed, N, D):
    rng = np.random.default_rng(seed)
    ids, positions = rng.integers(0, 11, N), rng.integers(0, 7, N)
    tables = [guarded(normal(rng, rows, D))[0] for rows in (11, 7, 2)]
    weight, bias = normal(rng, D), normal(rng, D)
    out, intact = guarded(np.empty((N, D), np.float32))
    embeddings.embeddings(ids, positions, *tables, weight, bias, EPS, out, 0, N)
    assert_same_bits(out, contract.embeddings(ids, positions, *tables, weight, bias, EPS))
    assert intact()


# ---- attention -------------------------------------------------------------------------------------------------------


def attend(qkv, offsets, H):
    D = qkv.shape[1] // 3
    out, intact = guarded(np.empty((len(qkv), D), np.float32))
    lengths = np.diff(offsets)
    scratch, scratch_intact = guarded(np.full(layout.scratch_size(lengths.max(), D // H), np.nan, np.float32))
    scale = np.float32(1 / math.sqrt(D // H))
    attention.attention(qkv, offsets, 0, len(lengths), 0, H, H, scale, out, scratch)
    assert intact() and scratch_intact()
    return out


def attention_float64(qkv, offsets, H):
    """The context, and for each text and head a bound on the error of float32."""
    D = qkv.shape[1] // 3
    E, wide = D // H, qkv.astype(np.float64)
    context, bound = np.empty((len(qkv), D)), np.empty((len(qkv), D))
    for first, last in itertools.pairwise(offsets):
        for h in range(H):
            columns = slice(h * E, (h + 1) * E)
            query, key, value = (wide[first:last, i * D : (i + 1) * D][:, columns] for i in range(3))
            scores = query @ key.T / math.sqrt(E)
            weights = np.exp(scores - scores.max(1, keepdims=True))
            context[first:last, columns] = weights / weights.sum(1, keepdims=True) @ value
            score_error = (E + 6) * EPSILON * (np.abs(query) @ np.abs(key).T).max() / math.sqrt(E)
            bound[first:last, columns] = (4 * score_error + (last - first + 20) * EPSILON) * np.abs(value).max()
    return context, bound


text_lengths = st.lists(st.one_of(st.integers(1, 20), st.sampled_from([1, 16, 32, 33, 129])), min_size=1, max_size=4)


@few
@given(seeds, text_lengths, st.integers(1, 3), st.sampled_from([1, 8, 20, 32, 48, 64, 130]), scales)
def test_attention(seed, lengths, H, E, scale):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    qkv, _ = guarded(normal(rng, offsets[-1], 3 * H * E, scale=scale))
    out = attend(qkv, offsets, H)
    assert_same_bits(out, contract.attention(qkv, offsets, H))
    expected, bound = attention_float64(qkv, offsets, H)
    assert (np.abs(out - expected) <= bound + 2.0**-140).all()

    # one text knows nothing of its neighbours, and rows and heads may be computed in any parts
    b = int(rng.integers(len(lengths)))
    first, last = offsets[b], offsets[b + 1]
    assert_same_bits(attend(qkv[first:last].copy(), np.array([0, last - first]), H), out[first:last].copy())
    parts = np.full_like(out, np.nan)
    scratch = np.empty(layout.scratch_size(max(lengths), E), np.float32)
    row, head = int(rng.integers(first, last + 1)), int(rng.integers(H + 1))
    for rows in ((first, row), (row, last)):
        for heads in ((0, head), (head, H)):
            softmax_scale = np.float32(1 / math.sqrt(E))
            attention.attention_rows(qkv, first, last, *rows, *heads, H, softmax_scale, parts, scratch)
    assert_same_bits(parts[first:last], out[first:last].copy())
    assert np.isnan(parts[:first]).all() and np.isnan(parts[last:]).all()


def test_attention_of_the_longest_text():
    qkv = normal(np.random.default_rng(6), 512, 3 * 32)
    offsets = np.array([0, 512])
    assert_same_bits(attend(qkv, offsets, 1), contract.attention(qkv, offsets, 1))


def test_attention_over_huge_logits_is_the_largest_ones_value():
    qkv = normal(np.random.default_rng(7), 40, 3 * 32, scale=1000.0)
    out = attend(qkv, np.array([0, 40]), 1)
    best = (qkv[:, :32].astype(np.float64) @ qkv[:, 32:64].T.astype(np.float64)).argmax(1)
    assert_same_bits(out, qkv[best, 64:].copy())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_attention_does_not_hide_what_is_not_finite(bad):
    for part in range(3):
        qkv = normal(np.random.default_rng(8), 20, 3 * 32)
        qkv[7, part * 32 + 3] = bad
        assert not np.isfinite(attend(qkv, np.array([0, 20]), 1)).all() or (part == 1 and not np.isnan(bad))


# ---- pooling ---------------------------------------------------------------------------------------------------------

MODES = {"mean": pooling.MEAN, "cls": pooling.CLS, "max": pooling.MAX, "mean_sqrt_len_tokens": pooling.MEAN_SQRT_LEN}


@few
@given(seeds, st.lists(st.integers(1, 40), min_size=1, max_size=4), sizes, scales)
def test_pooling_and_normalize(seed, lengths, D, scale):
    rng = np.random.default_rng(seed)
    offsets, B = np.concatenate([[0], np.cumsum(lengths)]), len(lengths)
    hidden_states, _ = guarded(normal(rng, offsets[-1], D, scale=scale))
    for name, mode in MODES.items():
        out, intact = guarded(np.empty((B, D), np.float32))
        pooling.pooling(hidden_states, offsets, mode, out, 0, B)
        assert_same_bits(out, contract.pooling(hidden_states, offsets, name))
        for b in range(B):
            tokens = hidden_states[offsets[b] : offsets[b + 1]].astype(np.float64)
            T, total = len(tokens), tokens.sum(0)
            expected = {"mean": total / T, "cls": tokens[0], "max": tokens.max(0)}.get(name, total / math.sqrt(T))
            assert (np.abs(out[b] - expected) <= (T + 3) * EPSILON * np.abs(tokens).sum(0) + 2.0**-149).all()
        normalized = np.empty_like(out)
        for b in range(B):
            pooling.normalize(out, normalized, b, b + 1)
        assert_same_bits(normalized, contract.normalize(out))
        pooling.normalize(out, out, 0, B)
        assert_same_bits(out, normalized)
        assert intact()


def test_normalize_keeps_zeros_and_pooling_keeps_nan():
    zeros = np.zeros((1, 20), np.float32)
    pooling.normalize(zeros, zeros, 0, 1)
    assert (zeros == 0).all()
    for at in range(3):
        tokens, out = np.zeros((3, 20), np.float32), np.empty((1, 20), np.float32)
        tokens[at, 5] = np.nan
        for mode in (pooling.MEAN, pooling.MAX, pooling.MEAN_SQRT_LEN):
            pooling.pooling(tokens, np.array([0, 3]), mode, out, 0, 1)
            assert np.isnan(out[0]).tolist() == [d == 5 for d in range(20)]


# ---- what the code is made of ----------------------------------------------------------------------------------------


def test_no_float64_and_no_fast_arithmetic_in_the_kernels():
    """Python's wrapper turns a float argument into float32 by way of double, exactly; it is not part of a kernel."""
    for dispatcher in KERNELS:
        for ir in dispatcher.inspect_llvm().values():
            bodies = re.findall(r"^define .*?^}", ir, re.MULTILINE | re.DOTALL)
            kernels = [body for body in bodies if "PyObject" not in body and "@PyArg_UnpackTuple" not in body]
            assert kernels
            for body in kernels:
                if simd.TARGET != "none":
                    assert not re.search(r"\bdouble\b", body), dispatcher.__name__
                assert not re.search(r"\b(fast|reassoc|contract|afn|arcp|nnan|ninf|nsz)\b|fmuladd|vector\.reduce", body)
                assert not re.search(r"@llvm\.(roundeven|rint|nearbyint|maxnum|minnum|exp|pow)", body)
                assert not re.search(r"@(expf?|erff?|fmaf|sqrtf)\b", body)
        assert len(dispatcher.signatures) == 1, "a Python integer among the arguments has made a second version"


# ---- the float mode and the atomics ----------------------------------------------------------------------------------

DENORMALS_ARE_ZERO_AND_FLUSH = 0x8040 if STANDARD_FLOAT_MODE else 1 << 24


@kernel
def get_mode():
    return simd.get_float_mode()


@kernel
def set_mode(mode):
    simd.set_float_mode(mode)


def test_float_mode():
    before = get_mode()
    half, tiny, out = np.full(16, 0.5, np.float32), np.full(16, 2.0**-140, np.float32), np.empty(16, np.float32)
    fma_of_arrays(half, tiny, np.zeros(16, np.float32), out)
    assert (out == 2.0**-141).all()
    try:
        set_mode(before | DENORMALS_ARE_ZERO_AND_FLUSH)
        assert get_mode() == before | DENORMALS_ARE_ZERO_AND_FLUSH
        fma_of_arrays(half, tiny, np.zeros(16, np.float32), out)
        flushed = out.tobytes() == bytes(64)
        set_mode(STANDARD_FLOAT_MODE)
        fma_of_arrays(half, tiny, np.zeros(16, np.float32), out)
    finally:
        set_mode(before)
    assert flushed
    assert (out == 2.0**-141).all()


@kernel
def meet(counters, rounds, n_threads):
    """Add 1 to counters[1] in each round, threads waiting for each other between rounds; count rounds seen wrong."""
    wrong = 0
    for i in range(rounds):
        simd.atomic_add(counters, 1, 1)
        if simd.atomic_add(counters, 0, 1) == n_threads * (i + 1) - 1:
            if simd.atomic_load(counters, 1) != n_threads * (i + 1):
                wrong += 1
            simd.atomic_add(counters, 2, 1)
        while simd.atomic_load(counters, 2) <= i:
            simd.pause()
    return wrong


def test_atomics_make_a_barrier():
    meet(np.zeros(3, np.int64), 1, 1)
    counters, wrong = np.zeros(3, np.int64), []
    threads = [threading.Thread(target=lambda: wrong.append(meet(counters, 200, 2))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == [0, 0]
    assert counters.tolist() == [400, 400, 200]
