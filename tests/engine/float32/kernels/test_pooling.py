"""Pooling and normalisation: bit-equal to the contract's scalar loops, near float64."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minilm_np.engine.float32.kernels import pooling
from tests.support import contract
from tests.support.kernels import EPSILON, assert_same_bits, few, guarded, normal, scales, seeds, sizes

MODES = {
    "mean": pooling.MEAN, "cls": pooling.CLS, "max": pooling.MAX, "mean_sqrt_len_tokens": pooling.MEAN_SQRT_LEN,
    "weightedmean": pooling.WEIGHTED_MEAN, "lasttoken": pooling.LAST_TOKEN,
}  # fmt: skip


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
            T, total, weights = len(tokens), tokens.sum(0), np.arange(1.0, lengths[b] + 1)
            expected = {
                "mean": total / T, "cls": tokens[0], "max": tokens.max(0), "lasttoken": tokens[-1],
                "mean_sqrt_len_tokens": total / math.sqrt(T), "weightedmean": weights @ tokens / weights.sum(),
            }[name]  # fmt: skip
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
        for mode in (pooling.MEAN, pooling.MAX, pooling.MEAN_SQRT_LEN, pooling.WEIGHTED_MEAN):
            pooling.pooling(tokens, np.array([0, 3]), mode, out, 0, 1)
            assert np.isnan(out[0]).tolist() == [d == 5 for d in range(20)]
