"""The activations that no dense layer fuses: the contract's bits, in the given rows and columns only."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minilm_np.engine.float32.kernels import activations
from minilm_np.engine.float32.kernels.layout import ACTIVATIONS, GELU
from minilm_np.model_files import config
from tests.support import contract
from tests.support.kernels import assert_same_bits, few, guarded, normal, scales, seeds


def test_every_activation_of_a_config_has_a_number():
    assert tuple(ACTIVATIONS) == config.ACTIVATIONS == tuple(contract.ACTIVATIONS)


@few
@given(st.data(), seeds, st.integers(1, 9), st.integers(1, 70), scales)
def test_activations_change_the_given_part_only(data, seed, M, N, scale):
    name = data.draw(st.sampled_from([name for name, number in ACTIVATIONS.items() if number != GELU]))
    rows = sorted(data.draw(st.tuples(st.integers(0, M), st.integers(0, M))))
    columns = sorted(data.draw(st.tuples(st.integers(0, N), st.integers(0, N))))
    expected = normal(np.random.default_rng(seed), M, N, scale=scale)
    found, intact = guarded(expected)
    part = slice(*rows), slice(*columns)
    expected[part] = contract.ACTIVATIONS[name](expected[part])
    activations.activate(found, ACTIVATIONS[name], *rows, *columns)
    assert_same_bits(found, expected)
    assert intact()
