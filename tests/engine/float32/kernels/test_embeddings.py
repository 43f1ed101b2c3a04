"""Embeddings: bit-equal to the contract's scalar loops."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minilm_np.engine.float32.kernels import embeddings
from tests.support import contract
from tests.support.kernels import EPS, assert_same_bits, few, guarded, normal, seeds, sizes


@few
@given(seeds, st.integers(1, 9), sizes)
def test_embeddings(seed, N, D):
    rng = np.random.default_rng(seed)
    ids, positions, types = rng.integers(0, 11, N), rng.integers(0, 7, N), rng.integers(0, 2, N)
    word, position, token_type = (guarded(normal(rng, rows, D))[0] for rows in (11, 7, 2))
    weight, bias = normal(rng, D), normal(rng, D)
    out, intact = guarded(np.empty((N, D), np.float32))
    embeddings.embeddings(ids, positions, types, word, position, token_type, weight, bias, EPS, out, 0, N)
    assert_same_bits(out, contract.embeddings(ids, positions, word, position, token_type, weight, bias, EPS, types))
    assert intact()
