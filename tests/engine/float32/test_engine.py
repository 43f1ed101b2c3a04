"""The float32 engine: the vectors of the contract, near those of float64; hidden states; arguments; weights."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minilm_np import InputTypeError, InputValueError, ModelConfig, SentenceEncoder, reference
from minilm_np.engine.float32.engine import Float32Engine
from minilm_np.model_files.checkpoint import parameter_shapes
from minilm_np.model_files.random_weights import random_weights
from tests.support.compare import assert_same_bits
from tests.support.engine import IDS, THREADS, encode_by_contract, engine_of, float32, random_model
from tests.support.engine_children import SMALL
from tests.support.models import encoder_configs, living_weights, ragged_ids

# some texts here are longer than the limit, and are truncated
pytestmark = [pytest.mark.filterwarnings("ignore::minilm_np.TruncationWarning"), pytest.mark.usefixtures("own_cache")]

EPSILON = 2.0**-24  # the unit round-off of float32

seeds = st.integers(0, 2**32 - 1)


# ---- the right numbers -----------------------------------------------------------------------------------------------


def float64_and_bound(texts, weights, config, seed):
    """The vectors in float64, and how far float32 may be from them.

    The bound comes from the model itself: rounding errors are no worse than 64 times those of its weights and of the
    steps' results, of which the change that a relative disturbance of 2^-24 makes is measured.
    """
    generator = np.random.default_rng(seed)
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    truth = reference.encode_ragged(texts, reference.nest(wide), config)
    change = np.zeros(len(texts))
    for _ in range(3):
        disturbed = {
            name: array * (1 + EPSILON * generator.choice([-1.0, 1.0], array.shape)) for name, array in wide.items()
        }
        vectors = reference.encode_ragged(texts, reference.nest(disturbed), config)
        change = np.maximum(change, np.abs(vectors - truth).max(axis=1))
    return truth, 64 * (change + EPSILON * np.abs(truth).max(axis=1))


@given(st.data(), encoder_configs(), seeds, st.integers(1, 3))
@settings(max_examples=60)
def test_small_models_have_the_vectors_of_the_contract_and_nearly_those_of_float64(data, config, seed, threads):
    weights = float32(living_weights(config, seed))
    texts = data.draw(ragged_ids(config))
    vectors = Float32Engine(config, weights.items(), threads).encode(texts)
    assert_same_bits(vectors, encode_by_contract(texts, weights, config))
    truth, bound = float64_and_bound(texts, weights, config, seed)
    assert (np.abs(vectors - truth).max(axis=1) <= bound).all()


def test_heads_and_layers_beyond_a_block_and_a_panel_have_the_vectors_of_the_contract():
    config = ModelConfig(
        vocab_size=30,
        max_position_embeddings=140,
        hidden_size=136,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=270,
        max_seq_length=140,
    )
    weights = float32(living_weights(config, 11, scale=0.1))
    generator = np.random.default_rng(12)
    texts = [generator.integers(0, 30, length).tolist() for length in (1, 133, 17)]
    expected = encode_by_contract(texts, weights, config)
    for threads in (1, 2):
        assert_same_bits(Float32Engine(config, weights.items(), threads).encode(texts), expected)


# ---- hidden states ---------------------------------------------------------------------------------------------------


def check_hidden_states(family, texts, threads):
    engine = family.engines[threads]
    done: list[int] = []
    vectors, hidden_states = engine.encode_with_hidden_states(texts, report=done.append)
    assert_same_bits(vectors, engine.encode(texts), f"{threads} threads")
    last = f"encoder.layer.{engine.config.num_hidden_layers - 1}.output.LayerNorm"
    assert len(hidden_states) == len(texts) == sum(done)
    for text, x in zip(texts, hidden_states, strict=True):
        assert x.shape == (len(text), engine.config.hidden_size) and x.base is None
        assert_same_bits(x, engine.intermediates(text)[last], f"{len(text)} tokens, {threads} threads")


@pytest.mark.parametrize("threads", THREADS)
def test_hidden_states_and_vectors_of_one_pass_have_the_bits_of_separate_ones(random_family, threads):
    check_hidden_states(random_family, random_family.texts, threads)  # passes of whole texts
    for length in range(1, len(random_family.texts), 9):  # one shared pass
        check_hidden_states(random_family, random_family.texts[length - 1 : length + 3], threads)


@pytest.mark.weights
@pytest.mark.parametrize("threads", THREADS)
def test_hidden_states_of_the_published_model_have_the_bits_of_separate_passes(published_family, threads):
    check_hidden_states(published_family, published_family.texts, threads)


def test_hidden_states_are_not_overwritten_by_later_passes(random_family):
    engine, texts = random_family.engines[2], random_family.texts
    _, hidden_states = engine.encode_with_hidden_states(texts[30:40])
    before = [x.copy() for x in hidden_states]
    engine.encode(texts)
    for x, copy in zip(hidden_states, before, strict=True):
        assert_same_bits(x, copy)


def test_normalize_scales_the_vectors_and_not_the_hidden_states(random_family):
    config = ModelConfig(**{**vars(random_family.engines[1].config), "normalize": False})
    engine, texts = Float32Engine(config, random_family.engines[1].weights().items(), 2), random_family.texts[20:25]
    vectors, plain = engine.encode_with_hidden_states(texts, normalize=True)
    assert_same_bits(vectors, random_family.alone[20:25])
    for x, other in zip(plain, engine.encode_with_hidden_states(texts)[1], strict=True):
        assert_same_bits(x, other)


@pytest.mark.parametrize("threads", [1, 2])
def test_no_texts_have_no_hidden_states(random_family, threads):
    vectors, hidden_states = random_family.engines[threads].encode_with_hidden_states([])
    assert vectors.shape == (0, SMALL.hidden_size) and hidden_states == []


# ---- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threads", "error", "message"),
    [
        (0, InputValueError, "threads: expected an int from 1 to 1024 or None, found 0"),
        (-3, InputValueError, "threads: expected an int from 1 to 1024 or None, found -3"),
        (True, InputTypeError, "threads: expected an int or None, found bool"),
        (2.0, InputTypeError, "threads: expected an int or None, found float"),
        ("2", InputTypeError, "threads: expected an int or None, found str"),
    ],
)
def test_an_invalid_number_of_threads_is_refused(threads, error, message):
    with pytest.raises(error, match=message):
        SentenceEncoder.random(SMALL, threads=threads)


WANTED = f"expected token ids from 0 to {SMALL.vocab_size - 1}"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ([], "text 1: expected 1 to 128 tokens, found 0"),
        ([1] * 129, "text 1: expected 1 to 128 tokens, found 129"),
        (
            [1, SMALL.vocab_size],
            f"text 1: expected token ids from 0 to {SMALL.vocab_size - 1}, found {SMALL.vocab_size}",
        ),
        ([1, -1, 2], f"text 1: {WANTED}, found -1"),
        ([2**40], f"text 1: {WANTED}, found {2**40}"),
    ],
)
def test_ids_and_lengths_out_of_range_are_refused(threads, text, message):
    engine = engine_of(random_model(threads))
    with pytest.raises(InputValueError, match=f"^{message}$"):
        engine.encode([[1, 2], text])


@pytest.mark.parametrize("threads", [1, 2])
def test_no_texts_give_no_rows(threads):
    vectors = engine_of(random_model(threads)).encode([])
    assert vectors.shape == (0, SMALL.hidden_size) and vectors.dtype == np.float32


# ---- weights ---------------------------------------------------------------------------------------------------------


@given(encoder_configs(), seeds)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_weights_are_returned_bit_for_bit(config, seed):
    weights = float32(living_weights(config, seed))
    found = Float32Engine(config, reversed(weights.items()), 1).weights()
    assert list(found) == list(parameter_shapes(config))
    for name, array in found.items():
        assert_same_bits(array, weights[name], name)
        assert not array.flags.writeable


def test_weights_in_another_memory_order_are_the_same_weights():
    weights = random_weights(SMALL, 7)
    ordered = {name: np.asfortranarray(array) for name, array in weights.items()}
    vectors = Float32Engine(SMALL, ordered.items(), 1).encode(IDS)
    assert_same_bits(vectors, Float32Engine(SMALL, weights.items(), 1).encode(IDS))
