"""The numerical contract: the same bits over batches, orders, threads, routes, CPUs and float modes."""

import hashlib
import os
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np import InputValueError, ModelConfig, SentenceEncoder
from minilm_np.engine.float32 import engine as float32_engine
from minilm_np.engine.float32.engine import Float32Engine
from minilm_np.engine.runtime import workers
from minilm_np.engine.runtime.processor import STANDARD_FLOAT_MODE
from minilm_np.model_files.random_weights import random_weights
from tests.support import contract
from tests.support.compare import assert_same_bits
from tests.support.encoders import with_weights
from tests.support.engine import COMPILED, FORCED, IDS, PATIENCE, THREADS, engine_of, random_model
from tests.support.engine_children import PUBLISHED_SIZES, SMALL, TEXTS

# some texts here are longer than the limit, and are truncated
pytestmark = [pytest.mark.filterwarnings("ignore::minilm_np.TruncationWarning"), pytest.mark.usefixtures("own_cache")]

x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="these targets are x86-64's")


def digest(model):
    return hashlib.sha256(model.encode(TEXTS).tobytes()).hexdigest()


# ---- batches, orders, threads, routes --------------------------------------------------------------------------------

# the module's constants, and so the routes that the same texts take
ROUTES = {
    "as they are": {},
    "apart": {"CHUNK_TOKENS": 300, "SHARED_TOKENS": 0},
    "apart, one by one": {"CHUNK_TOKENS": 1, "SHARED_TOKENS": 0, "LEAST_TOKENS": 1},
    "shared": {"SHARED_TOKENS": 10**6},
    "shared, by outputs alone": {"SHARED_TOKENS": 10**6, "TASKS_PER_THREAD": 1, "LEAST_ROWS": 10**6},
    "shared, by tokens too": {"SHARED_TOKENS": 10**6, "TASKS_PER_THREAD": 50, "LEAST_ROWS": 10**6},
    "shared, by tokens through all stages": {"SHARED_TOKENS": 10**6, "LEAST_ROWS": 1},
}


def check_routes(family, data, threads, route):
    rows = data.draw(st.lists(st.integers(0, len(family.texts) - 1), min_size=1, max_size=64))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ROUTES[route].items():
            patch.setattr(float32_engine, name, value)
        vectors = family.engines[threads].encode([family.texts[row] for row in rows])
    assert_same_bits(vectors, family.alone[rows], route)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("threads", THREADS)
@given(data=st.data())
@settings(max_examples=15)
def test_any_batch_on_any_route_has_the_bits_of_its_texts_alone(random_family, data, threads, route):
    check_routes(random_family, data, threads, route)


@pytest.mark.weights
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("threads", THREADS)
@given(data=st.data())
@settings(max_examples=3)
def test_any_batch_of_the_published_model_has_the_bits_of_its_texts_alone(published_family, data, threads, route):
    check_routes(published_family, data, threads, route)


def check_splits(family):
    texts = family.texts[:64]
    order = np.random.default_rng(9).permutation(len(texts))
    for threads, engine in family.engines.items():
        assert_same_bits(engine.encode([texts[row] for row in order]), family.alone[order])
        for size in (1, 2, 3, 7, 8, 31, 64):
            parts = [engine.encode(texts[first : first + size]) for first in range(0, len(texts), size)]
            assert_same_bits(np.concatenate(parts), family.alone[: len(texts)], f"{threads} threads, {size} a batch")


def test_any_split_and_order_has_the_same_bits(random_family):
    check_splits(random_family)


@pytest.mark.weights
def test_any_split_and_order_of_the_published_model_has_the_same_bits(published_family):
    check_splits(published_family)


def test_every_number_of_tokens_up_to_the_limit_has_the_same_bits_on_all_routes(random_family):
    text = np.random.default_rng(10).integers(0, 50, 256).tolist()
    for length in range(1, 257, 3):
        first, *others = (engine.encode([text[:length]]) for engine in random_family.engines.values())
        for other in others:
            assert_same_bits(other, first, f"{length} tokens")


def test_normalize_scales_to_unit_length_and_changes_nothing_after_a_normalize_module(random_family):
    engine, text = random_family.engines[2], random_family.texts[40]
    assert engine.config.normalize
    assert_same_bits(engine.encode([text], normalize=True), random_family.alone[40:41])
    plain = ModelConfig(**{**vars(engine.config), "normalize": False})
    for threads in THREADS:
        other = Float32Engine(plain, engine.weights().items(), threads)
        assert_same_bits(other.encode([text], normalize=True), random_family.alone[40:41])
        assert_same_bits(contract.normalize(other.encode([text])), random_family.alone[40:41])


def test_a_model_of_the_published_sizes_has_the_same_bits_on_one_thread_and_on_two():
    texts = ["x" * 40, "y", "some words " * 30, "z " * 300]
    first, second = (SentenceEncoder.random(PUBLISHED_SIZES, 1, threads=threads).encode(texts) for threads in (1, 2))
    assert_same_bits(second, first)


# ---- CPUs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORCED)
def test_each_target_has_the_same_vectors_on_one_thread_and_on_two(targets, name):
    assert targets[name]["numba"] == (name in COMPILED)
    digests = targets[name]["sha256"]
    assert digests == targets["native"]["sha256"]
    assert targets[name]["fingerprint"] == targets["native"]["fingerprint"]
    assert len(digests) == 2 * len(set(digests.values()))


@x86
def test_each_target_is_what_it_says(targets):
    native, none = targets["native"], targets["none"]
    for facts in (native, none):
        assert facts["functions"] > 2
        assert facts["libm"] == facts["fast"] == []
    assert native["target"] != "avx512" or (native["zmm"] > 100 and native["ymm"] == 0)
    assert native["target"] == "none" or native["double"] == 0
    assert none["target"] == "none" and none["fma"] == none["zmm"] == none["ymm"] == 0 and none["double"] > 0


def test_a_process_with_kernels_on_disk_has_the_same_vectors_and_does_not_import_numba(child, folder, targets):
    facts = child("bits", folder)
    assert facts["sha256"] == targets["native"]["sha256"]
    assert not facts["numba"]


def test_this_process_has_the_same_vectors_too(targets):
    assert digest(random_model()) == targets["native"]["sha256"]["random, 1"]


# ---- the host's float mode -------------------------------------------------------------------------------------------


def float_mode():
    exchange = engine_of(random_model(1)).kernels.exchange_float_mode
    mode = exchange(STANDARD_FLOAT_MODE)
    exchange(mode)
    return mode & ~0x3F if STANDARD_FLOAT_MODE else mode  # MXCSR's lowest bits say which exceptions have occurred


@pytest.fixture
def flushing():
    """A host that flushes subnormals to zero."""
    import torch

    if not torch.set_flush_denormal(True):
        pytest.skip("torch cannot set flush-to-zero on this processor")
    try:
        yield float_mode()
    finally:
        torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def subnormal_weights():
    """Weights that make the values of attention subnormal; the output layer scales them back."""
    weights = {name: array.copy() for name, array in random_weights(SMALL, 4).items()}
    for name, array in weights.items():
        if ".self.value." in name:
            array *= np.float32(2.0**-124)
        elif ".attention.output.dense.weight" in name:
            array *= np.float32(2.0**122)
    return weights


@pytest.fixture(scope="module")
def subnormal_vectors(subnormal_weights):
    return Float32Engine(SMALL, subnormal_weights.items(), 1).encode(IDS)


def test_a_host_that_flushes_subnormals_changes_no_bit_and_keeps_its_mode(
    subnormal_vectors, subnormal_weights, flushing, monkeypatch
):
    assert flushing != (STANDARD_FLOAT_MODE & ~0x3F)
    for threads in THREADS:
        monkeypatch.setattr(workers, "_pool", workers._Pool())  # its threads inherit the mode
        engine = Float32Engine(SMALL, subnormal_weights.items(), threads)
        for repeats in (1, 20):
            vectors = engine.encode(IDS * repeats)
            assert_same_bits(vectors, np.tile(subnormal_vectors, (repeats, 1)), f"{threads} threads")
        assert_same_bits(engine.encode(IDS[:1]), subnormal_vectors[:1])
        assert float_mode() == flushing
    results = []
    thread = threading.Thread(target=lambda: results.extend([engine.encode(IDS), float_mode()]))
    thread.start()
    thread.join(PATIENCE)
    assert_same_bits(results[0], subnormal_vectors)
    assert results[1] == flushing


def test_flushing_would_change_these_vectors(subnormal_vectors, subnormal_weights, flushing, monkeypatch):
    """Proof that the test above can fail: here the engine cannot set the mode."""
    engine = Float32Engine(SMALL, subnormal_weights.items(), 1)

    class Careless:
        run_pass = staticmethod(engine.kernels.run_pass)
        exchange_float_mode = staticmethod(lambda mode: mode)

    monkeypatch.setattr(engine, "kernels", Careless)
    assert (engine.encode(IDS) != subnormal_vectors).any()


def test_the_hosts_mode_is_restored_after_a_failure(flushing, monkeypatch):
    engine = engine_of(random_model(1))

    class Failing:
        exchange_float_mode = staticmethod(engine.kernels.exchange_float_mode)

        @staticmethod
        def run_pass(address):
            raise KeyboardInterrupt

    monkeypatch.setattr(engine, "kernels", Failing)
    with pytest.raises(KeyboardInterrupt):
        engine.encode(IDS)
    assert float_mode() == flushing


# ---- pickles and fingerprints ----------------------------------------------------------------------------------------


def test_a_pickled_model_agrees():
    model = random_model()
    copy = pickle.loads(pickle.dumps(model))
    assert digest(copy) == digest(model)
    assert copy.fingerprint() == model.fingerprint()
    assert copy.model.engine.threads == model.model.engine.threads == 2


def test_a_fingerprint_is_of_the_weights_and_the_vectors_whatever_the_threads(targets):
    model = random_model()
    assert model.fingerprint() == model.fingerprint() == random_model(1).fingerprint()
    assert model.fingerprint() == targets["native"]["fingerprint"]
    assert len({model.fingerprint(), model.fingerprint(["a"]), model.fingerprint(["b"]), model.fingerprint([])}) == 4
    assert model.fingerprint(["a", "b"]) != model.fingerprint(["b", "a"])


def test_a_fingerprint_changes_with_one_bit_of_a_weight_that_no_vector_shows():
    model, name = random_model(), "embeddings.word_embeddings.weight"
    unused = model.weights[name].copy()
    unused.view(np.int32)[4, 0] ^= 1  # [MASK], which is in no text
    other = with_weights(model, {name: unused})
    assert digest(other) == digest(model)
    assert other.fingerprint() != model.fingerprint()


def test_a_fingerprint_is_refused_for_numpy():
    with pytest.raises(InputValueError, match="backend 'numpy' has no numerical contract"):
        SentenceEncoder.random(SMALL, backend="numpy").fingerprint()
