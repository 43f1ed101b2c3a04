"""Attention: bit-equal to the contract's scalar loops, near float64, the same however it is split."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm_np.engine.float32.kernels import attention, layout
from tests.support import contract
from tests.support.kernels import EPSILON, assert_same_bits, few, guarded, normal, scales, seeds


def no_bias(H):
    return np.empty((H, 0), np.float32)


def attend(qkv, offsets, H, bias=None):
    D = qkv.shape[1] // 3
    out, intact = guarded(np.empty((len(qkv), D), np.float32))
    lengths = np.diff(offsets)
    scratch, scratch_intact = guarded(np.full(layout.scratch_size(lengths.max(), D // H), np.nan, np.float32))
    scale = np.float32(1 / math.sqrt(D // H))
    for first, last in itertools.pairwise(offsets):
        bias_or_none = no_bias(H) if bias is None else bias
        attention.attention(qkv, first, last, first, last, 0, H, H, scale, bias_or_none, out, scratch)
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

    # a text does not depend on its neighbours, and rows and heads may be computed in any parts
    b = int(rng.integers(len(lengths)))
    first, last = offsets[b], offsets[b + 1]
    assert_same_bits(attend(qkv[first:last].copy(), np.array([0, last - first]), H), out[first:last].copy())
    parts = np.full_like(out, np.nan)
    scratch = np.empty(layout.scratch_size(max(lengths), E), np.float32)
    row, head = int(rng.integers(first, last + 1)), int(rng.integers(H + 1))
    for rows in ((first, row), (row, last)):
        for heads in ((0, head), (head, H)):
            softmax_scale = np.float32(1 / math.sqrt(E))
            attention.attention(qkv, first, last, *rows, *heads, H, softmax_scale, no_bias(H), parts, scratch)
    assert_same_bits(parts[first:last], out[first:last].copy())
    assert np.isnan(parts[:first]).all() and np.isnan(parts[last:]).all()


@few
@given(seeds, text_lengths, st.integers(1, 3), st.sampled_from([8, 20, 32]), st.integers(0, 40))
def test_attention_with_a_bias_by_relative_position(seed, lengths, H, E, further):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    qkv, table = normal(rng, offsets[-1], 3 * H * E), normal(rng, 32, H)
    P = max(lengths) + further
    by_distance = table[[contract.bucket(distance) for distance in range(1 - P, P)]].T  # (H, 2 P - 1)
    bias, intact = guarded(np.ascontiguousarray(by_distance))
    out = attend(qkv, offsets, H, bias)
    assert_same_bits(out, contract.attention(qkv, offsets, H, table))
    assert intact()
    parts, scratch = np.empty_like(out), np.empty(layout.scratch_size(max(lengths), E), np.float32)
    first, last = offsets[-2], offsets[-1]
    row, scale = int(rng.integers(first, last + 1)), np.float32(1 / math.sqrt(E))
    for rows in ((first, row), (row, last)):
        attention.attention(qkv, first, last, *rows, 0, H, H, scale, bias, parts, scratch)
    assert_same_bits(parts[first:last], out[first:last].copy())


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
