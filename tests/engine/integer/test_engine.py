"""The integer engine: bit-equal to its contract, and the same bits however it is run."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np import InputValueError, ModelConfig
from minilm_np.engine import registry
from minilm_np.engine.float32 import engine as float32_engine
from minilm_np.engine.integer import reference
from minilm_np.engine.integer.engine import IntegerEngine
from minilm_np.engine.integer.packing import IntegerWeights
from minilm_np.errors import CheckpointError
from minilm_np.model_files.checkpoint import parameter_shapes
from tests.support import integer_contract
from tests.support.code_cache import answer, start
from tests.support.compare import assert_same_bits
from tests.support.engine import float32
from tests.support.kernels import seeds
from tests.support.models import encoder_configs, living_weights, ragged_ids

COMPUTE_TYPES = reference.COMPUTE_TYPES
THREADS = (1, 2, 4)

types = st.sampled_from(COMPUTE_TYPES)

# heads and layers beyond a block, a tile and a panel, and multiples of none
CONFIG = ModelConfig(
    vocab_size=30, max_position_embeddings=140, hidden_size=136, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=270, max_seq_length=140,
)  # fmt: skip
WEIGHTS = float32(living_weights(CONFIG, 11, scale=0.1))


def random_texts(*lengths: int) -> list[list[int]]:
    generator = np.random.default_rng(12)
    return [generator.integers(0, CONFIG.vocab_size, length).tolist() for length in lengths]


@pytest.fixture(scope="module", params=COMPUTE_TYPES)
def engines(request):
    """One model on different numbers of threads."""
    return {threads: IntegerEngine(CONFIG, WEIGHTS.items(), threads, compute_type=request.param) for threads in THREADS}


# ---- the right numbers -----------------------------------------------------------------------------------------------


@given(st.data(), encoder_configs(), seeds, st.integers(1, 3), types)
@settings(max_examples=40, deadline=None)
def test_small_models_have_the_vectors_of_the_contract(data, config, seed, threads, compute_type):
    weights = float32(living_weights(config, seed))
    texts = data.draw(ragged_ids(config))
    found = IntegerEngine(config, weights.items(), threads, compute_type=compute_type).encode(texts)
    assert_same_bits(found, integer_contract.encode(texts, weights, config, compute_type))


@pytest.mark.parametrize("compute_type", COMPUTE_TYPES)
def test_sizes_beyond_a_tile_and_a_panel_have_the_vectors_of_the_contract(compute_type):
    texts = random_texts(1, 35, 17)
    expected = integer_contract.encode(texts, WEIGHTS, CONFIG, compute_type)
    for threads in (1, 2):
        engine = IntegerEngine(CONFIG, WEIGHTS.items(), threads, compute_type=compute_type)
        assert_same_bits(engine.encode(texts), expected)


def test_the_two_types_and_their_contracts_differ():
    texts = random_texts(20)
    first, second = (IntegerEngine(CONFIG, WEIGHTS.items(), compute_type=name) for name in COMPUTE_TYPES)
    assert [registry.find("numba", name).contract for name in COMPUTE_TYPES] == ["int16-1", "int8-1"]
    assert not np.array_equal(first.encode(texts), second.encode(texts))


# ---- the same bits ---------------------------------------------------------------------------------------------------


def test_batches_orders_and_threads_do_not_change_a_bit(engines):
    texts = random_texts(*range(1, 64), 140, 139, 70, *range(3, 60, 4))
    alone = np.concatenate([engines[1].encode([text]) for text in texts])
    order = np.random.default_rng(3).permutation(len(texts))
    for engine in engines.values():
        assert_same_bits(engine.encode(texts), alone)
        assert_same_bits(engine.encode([texts[row] for row in order]), alone[order])
        assert_same_bits(engine.encode(texts[:7]), alone[:7])


@pytest.mark.parametrize(("least", "rows"), [(1, 20), (1, 500), (10**6, 1)], ids=["small ranges", "large", "outputs"])
def test_the_tasks_of_a_shared_pass_do_not_change_a_bit(engines, monkeypatch, least, rows):
    """Ranges of tokens through several stages, or ranges of outputs. Tasks that overlap in memory differ by chance."""
    monkeypatch.setattr(float32_engine, "LEAST_ROWS", least)
    texts = random_texts(*range(1, 40))
    alone = np.concatenate([engines[1].encode([text]) for text in texts])
    for engine in engines.values():
        monkeypatch.setattr(engine, "task_rows", rows)
        for _ in range(10):
            assert_same_bits(engine.encode(texts), alone)


def test_many_callers_at_once_have_the_same_bits(engines):
    texts = random_texts(*range(5, 45))
    expected = engines[1].encode(texts)
    wrong = []

    def call() -> None:
        for _ in range(5):
            if not np.array_equal(engines[2].encode(texts), expected):
                wrong.append(1)

    callers = [threading.Thread(target=call) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_intermediates_end_with_the_vector_and_have_the_names_of_the_reference(engines):
    text = random_texts(30)[0]
    found = engines[2].intermediates(text)
    assert_same_bits(found["normalize"][None], engines[2].encode([text]))
    assert found["encoder.layer.1.intermediate.intermediate_act_fn"].shape == (30, CONFIG.intermediate_size)
    assert found["encoder.layer.1.output.LayerNorm"].shape == (30, CONFIG.hidden_size)
    assert list(found)[:2] == ["embeddings.LayerNorm", "encoder.layer.0.attention.self.query"]


def test_a_vector_that_overflows_is_not_finite(engines):
    weights = WEIGHTS | {"encoder.layer.0.intermediate.dense.bias": np.full(CONFIG.intermediate_size, 3e38, np.float32)}
    engine = IntegerEngine(CONFIG, weights.items(), 1, compute_type=engines[1].compute_type)
    assert not np.isfinite(engine.encode(random_texts(5))).any()


# ---- the weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compute_type", COMPUTE_TYPES)
def test_weights_are_packed_in_any_order_to_the_integers_of_the_twin(compute_type):
    names = list(WEIGHTS)
    np.random.default_rng(4).shuffle(names)
    packed = IntegerWeights(CONFIG, ((name, WEIGHTS[name]) for name in names), compute_type)
    in_order = IntegerWeights(CONFIG, WEIGHTS.items(), compute_type)
    for field, array in packed.arrays.items():
        assert np.array_equal(array, in_order.arrays[field]), field
    name = "encoder.layer.1.attention.output.dense.weight"
    expected = reference.quantise_weight(WEIGHTS[name], None, compute_type).rows.integers
    assert np.array_equal(packed.integers(name), expected)
    key = packed.integers("encoder.layer.0.attention.self.key.weight")
    assert np.array_equal(packed.arrays["query_key_value_sum"][0, 136:272], key.sum(axis=1, dtype=np.int64))


IN_REVERSE = """
import numpy as np
from minilm_np.engine.integer.packing import IntegerWeights
from minilm_np.model_files.random_weights import SMALL, random_weights

weights = list(random_weights(SMALL, 3).items())
in_order, reversed_ = (IntegerWeights(SMALL, order, "int8").arrays for order in (weights, weights[::-1]))
print(__debug__, all(np.array_equal(array, reversed_[field]) for field, array in in_order.items()))
"""


def test_the_last_weights_are_packed_also_without_assertions(tmp_path):
    """In reverse order, all of them wait for the channels until the end."""
    words, _ = answer(start(IN_REVERSE, tmp_path, PYTHONOPTIMIZE="1", MINILM_NP_KERNELS=""))
    assert words == ["False", "True"]


def test_the_float_weights_come_back_bit_for_bit(engines):
    weights = engines[1].weights()
    assert list(weights) == list(parameter_shapes(CONFIG))
    for name, array in weights.items():
        assert_same_bits(array, WEIGHTS[name])
        assert not array.flags.writeable


def test_float_weights_that_have_changed_since_are_refused():
    stored = {name: array.copy() for name, array in WEIGHTS.items()}
    engine = IntegerEngine(CONFIG, stored.items(), 1, compute_type="int8", reread=stored.items)
    engine.weights()
    stored["encoder.layer.1.output.dense.weight"][0, 0] = 100
    with pytest.raises(CheckpointError, match="output_packed: the weights have changed since this model was loaded"):
        engine.weights()


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_an_unknown_compute_type_is_refused():
    with pytest.raises(InputValueError, match="compute_type: expected 'int16' or 'int8', found 'int4'"):
        IntegerEngine(CONFIG, WEIGHTS.items(), compute_type="int4")


def test_ids_out_of_range_are_refused(engines):
    with pytest.raises(InputValueError, match="text 1: expected token ids from 0 to 29, found 30"):
        engines[1].encode([[1, 2], [30]])
