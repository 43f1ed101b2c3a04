"""The Numba engine: near float64, bit-equal to the contract, and the same bits however, and wherever, it is run."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minilm_np import InputTypeError, InputValueError, ModelConfig, SentenceEncoder, reference
from minilm_np.engine.float32 import engine as float32_engine
from minilm_np.engine.float32.engine import Encoder
from minilm_np.engine.runtime import workers
from minilm_np.engine.runtime.code_cache import STANDARD_FLOAT_MODE
from minilm_np.model_files.checkpoint import load_checkpoint, parameter_shapes
from minilm_np.model_files.config import load_config
from minilm_np.model_files.random_weights import random_weights
from tests.support import contract
from tests.support.compare import assert_same_bits
from tests.support.engine_children import PUBLISHED_SIZES, SMALL, TEXTS
from tests.support.models import living_weights, ragged_ids, small_configs
from tests.support.places import CHECKOUT
from tests.support.targets import TARGETS

# some texts here are longer than the limit, to be cut
pytestmark = pytest.mark.filterwarnings("ignore::minilm_np.TruncationWarning")

PATIENCE = 120  # seconds after which something is taken for a deadlock
EPSILON = 2.0**-24  # the unit round-off of float32

x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="these targets are x86-64's")
seeds = st.integers(0, 2**32 - 1)


# ---- children --------------------------------------------------------------------------------------------------------


def start(program, folder, cache, **environment):
    """Start a program of `engine_children.py`, with a kernel cache of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "OMP_"))}
    paths = os.pathsep.join(path for path in (str(CHECKOUT), kept.get("PYTHONPATH", "")) if path)
    arguments = [program] if folder is None else [program, str(folder)]
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.support.engine_children", *arguments],
        env=kept | {"PYTHONPATH": paths, "MINILM_NP_CACHE": str(cache)} | environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def answer(process):
    try:
        out, errors = process.communicate(timeout=2 * PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return json.loads(out)


@pytest.fixture(scope="session")
def folder(request):
    """The published model's folder, or None where it cannot be had: children then run a random one only."""
    try:
        return request.getfixturevalue("model_folder")
    except pytest.skip.Exception:
        return None


@pytest.fixture(scope="session")
def caches(tmp_path_factory):
    """A folder for each target's compiled kernels."""
    return {name: tmp_path_factory.mktemp(name) for name in TARGETS}


@pytest.fixture(scope="session")
def targets(folder, caches):
    """What `engine_children.code` says on each target, all compiled at the same time and afresh."""
    names = TARGETS if os.uname().machine == "x86_64" else ["native"]
    processes = {name: start("code", folder, caches[name], **TARGETS[name]) for name in names}
    return {name: answer(process) for name, process in processes.items()}


@pytest.fixture(scope="session")
def child(targets, caches):
    """Run a program with kernels from the cache, which the native target filled."""

    def run(program, folder=None, **environment):
        return answer(start(program, folder, caches["native"], **environment))

    return run


@pytest.fixture(scope="session", autouse=True)
def own_cache(targets, caches):
    """This process too takes its kernels from there, unless another file's tests have loaded them before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINILM_NP_CACHE", str(caches["native"]))
        yield


# ---- the right numbers -----------------------------------------------------------------------------------------------


def encode_by_contract(texts, weights, config):
    """The whole pass made of the contract's scalar functions."""
    lengths = [len(text) for text in texts]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    eps = config.layer_norm_eps

    def at(name):
        return weights[f"{name}.weight"], weights[f"{name}.bias"]

    tables = [weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")]
    positions = np.concatenate([np.arange(length) for length in lengths])
    x = contract.embeddings(np.concatenate(texts), positions, *tables, *at("embeddings.LayerNorm"), eps)
    for number in range(config.num_hidden_layers):
        layer = f"encoder.layer.{number}."
        parts = [contract.linear(x, *at(f"{layer}attention.self.{name}")) for name in ("query", "key", "value")]
        context = contract.attention(np.concatenate(parts, axis=1), offsets, config.num_attention_heads)
        attended = contract.linear_residual(context, *at(f"{layer}attention.output.dense"), x)
        attended = contract.layer_norm(attended, *at(f"{layer}attention.output.LayerNorm"), eps)
        intermediate = contract.linear_gelu(attended, *at(f"{layer}intermediate.dense"))
        x = contract.linear_residual(intermediate, *at(f"{layer}output.dense"), attended)
        x = contract.layer_norm(x, *at(f"{layer}output.LayerNorm"), eps)
    vectors = contract.pooling(x, offsets, config.pooling_mode)
    return contract.normalize(vectors) if config.normalize else vectors


def float32(weights):
    return {name: array.astype(np.float32) for name, array in weights.items()}


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


@given(st.data(), small_configs(), seeds, st.integers(1, 3))
@settings(max_examples=60)
def test_small_models_have_the_vectors_of_the_contract_and_nearly_those_of_float64(data, config, seed, threads):
    weights = float32(living_weights(config, seed))
    texts = data.draw(ragged_ids(config))
    vectors = Encoder(config, weights.items(), threads).encode(texts)
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
        assert_same_bits(Encoder(config, weights.items(), threads).encode(texts), expected)


# ---- the same bits: batches, orders, threads, routes -----------------------------------------------------------------

THREADS = (1, 2, 4)


class Family:
    """One model on different numbers of threads, texts of random ids, and each text's vector when it is alone."""

    def __init__(self, config, weights, lengths):
        generator = np.random.default_rng(5)
        self.engines = {threads: Encoder(config, weights.items(), threads) for threads in THREADS}
        self.texts = [generator.integers(0, config.vocab_size, length).tolist() for length in lengths]
        self.alone = np.concatenate([self.engines[1].encode([text]) for text in self.texts])


@pytest.fixture(scope="module")
def random_family():
    config = ModelConfig(**{**vars(SMALL), "max_position_embeddings": 256, "max_seq_length": 256})
    weights = float32(living_weights(config, 3, scale=0.2))
    lengths = [*range(1, 50), 63, 64, 65, 127, 128, 129, 130, 200, 254, 255, 256, 256, 100, 64, 64, 1]
    return Family(config, weights, lengths)


@pytest.fixture(scope="module")
def published_family(model_folder):
    config = load_config(model_folder)
    lengths = [*range(1, 20), 31, 32, 33, 63, 64, 65, 128, 129, 200, 256, 100]
    return Family(config, load_checkpoint(model_folder, config), lengths)


# the module's constants, and so the routes that the same texts take
ROUTES = {
    "as they are": {},
    "apart": {"CHUNK_TOKENS": 300, "SHARED_TOKENS": 0},
    "apart, one by one": {"CHUNK_TOKENS": 1, "SHARED_TOKENS": 0, "LEAST_TOKENS": 1},
    "shared": {"SHARED_TOKENS": 10**6},
    "shared, by outputs alone": {"SHARED_TOKENS": 10**6, "TASKS_A_THREAD": 1},
    "shared, by tokens too": {"SHARED_TOKENS": 10**6, "TASKS_A_THREAD": 50},
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
        other = Encoder(plain, engine.weights().items(), threads)
        assert_same_bits(other.encode([text], normalize=True), random_family.alone[40:41])
        assert_same_bits(contract.normalize(other.encode([text])), random_family.alone[40:41])


# ---- the same bits: processors ---------------------------------------------------------------------------------------


@x86
@pytest.mark.parametrize("name", TARGETS)
def test_each_target_has_the_same_vectors_on_one_thread_and_on_two(targets, name):
    digests = targets[name]["sha256"]
    assert digests == targets["native"]["sha256"]
    assert targets[name]["fingerprint"] == targets["native"]["fingerprint"]
    assert len(digests) == 2 * len(set(digests.values()))


@x86
def test_each_target_is_what_it_says(targets):
    for facts in targets.values():
        assert facts["functions"] > 2
        assert facts["libm"] == facts["fast"] == []
    native, avx2, none = (targets[name] for name in TARGETS)
    assert native["target"] != "avx512" or (native["zmm"] > 100 and native["ymm"] == 0)
    assert native["target"] == "none" or native["double"] == 0
    assert avx2["target"] == "avx2" and avx2["zmm"] == avx2["double"] == 0 and avx2["ymm"] > 100
    assert none["target"] == "none" and none["fma"] == none["zmm"] == none["ymm"] == 0 and none["double"] > 0


def test_a_process_with_kernels_on_disk_has_the_same_vectors_and_does_not_import_numba(child, folder, targets):
    facts = child("bits", folder)
    assert facts["sha256"] == targets["native"]["sha256"]
    assert not facts["numba"]


def digest(model):
    return hashlib.sha256(model.encode(TEXTS).tobytes()).hexdigest()


def random_model(threads=2):
    return SentenceEncoder.random(SMALL, 7, threads=threads)


def test_this_process_has_the_same_vectors_too(targets):
    assert digest(random_model()) == targets["native"]["sha256"]["random, 1"]


# ---- the float mode is the host's ------------------------------------------------------------------------------------


def float_mode():
    exchange = random_model(1).model.engine.kernels.exchange_float_mode
    mode = exchange(STANDARD_FLOAT_MODE)
    exchange(mode)
    return mode & ~0x3F if STANDARD_FLOAT_MODE else mode  # MXCSR's lowest bits say which exceptions there were


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
    """Weights whose values of attention are subnormal, and an output layer that brings them back."""
    weights = {name: array.copy() for name, array in random_weights(SMALL, 4).items()}
    for name, array in weights.items():
        if ".self.value." in name:
            array *= np.float32(2.0**-124)
        elif ".attention.output.dense.weight" in name:
            array *= np.float32(2.0**122)
    return weights


@pytest.fixture(scope="module")
def subnormal_vectors(subnormal_weights):
    return Encoder(SMALL, subnormal_weights.items(), 1).encode(IDS)


IDS = [np.random.default_rng(6).integers(0, SMALL.vocab_size, length).tolist() for length in (3, 40, 90, 128)]


def test_a_host_that_flushes_subnormals_changes_no_bit_and_has_its_mode_back(
    subnormal_vectors, subnormal_weights, flushing, monkeypatch
):
    assert flushing != (STANDARD_FLOAT_MODE & ~0x3F)
    for threads in THREADS:
        monkeypatch.setattr(workers, "_pool", workers._Pool())  # whose threads inherit the mode
        engine = Encoder(SMALL, subnormal_weights.items(), threads)
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


def test_flushing_would_change_these_vectors(subnormal_vectors, subnormal_weights, flushing):
    """So the test above can fail: the engine is kept from setting the mode."""
    engine = Encoder(SMALL, subnormal_weights.items(), 1)

    class Careless:
        run_pass = staticmethod(engine.kernels.run_pass)
        exchange_float_mode = staticmethod(lambda mode: mode)

    engine.kernels = Careless
    assert (engine.encode(IDS) != subnormal_vectors).any()


def test_the_hosts_mode_is_back_after_a_failure(flushing):
    engine = random_model(1).model.engine

    class Failing:
        exchange_float_mode = staticmethod(engine.kernels.exchange_float_mode)

        @staticmethod
        def run_pass(address):
            raise KeyboardInterrupt

    engine.kernels = Failing
    with pytest.raises(KeyboardInterrupt):
        engine.encode(IDS)
    assert float_mode() == flushing


# ---- threads ---------------------------------------------------------------------------------------------------------


def in_threads(functions):
    """Run functions at once, each in a thread; fail if one does not end; return what they returned."""
    results = [None] * len(functions)
    gate = threading.Barrier(len(functions), timeout=PATIENCE)

    def run(number):
        gate.wait()
        results[number] = functions[number]()

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(functions))]
    for thread in threads:
        thread.start()
    until = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), "deadlock"
    return results


@pytest.mark.parametrize("threads", THREADS)
def test_64_threads_may_call_one_engine_at_once(random_family, threads):
    engine, n = random_family.engines[threads], len(random_family.texts)
    generator = np.random.default_rng(threads)
    batches = [[generator.integers(0, n, size) for size in (1, 2, 1, 40, 9)] for _ in range(64)]

    def encode(number):
        return lambda: [engine.encode([random_family.texts[row] for row in rows]) for rows in batches[number]]

    for rows, vectors in zip(batches, in_threads([encode(number) for number in range(64)]), strict=True):
        for row, vector in zip(rows, vectors, strict=True):
            assert_same_bits(vector, random_family.alone[row])
    assert len(engine._idle) <= 2 * threads, "workspaces pile up"


def test_engines_may_be_made_in_many_threads_at_once(random_family):
    weights = random_family.engines[1].weights()

    def make():
        return Encoder(random_family.engines[1].config, weights.items(), 2).encode(random_family.texts)

    for vectors in in_threads([make] * 6):
        assert_same_bits(vectors, random_family.alone)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("failure", [IndexError, RuntimeError, KeyboardInterrupt])
def test_a_failing_report_reaches_the_caller_and_the_engine_goes_on(random_family, threads, failure):
    engine, texts = random_family.engines[threads], random_family.texts * 5
    calls = []

    def report(done):
        calls.append(done)
        if len(calls) == 3:
            raise failure("no room for a bar")

    with pytest.raises(failure, match="no room"):
        engine.encode(texts, report=report)
    assert sum(calls) < len(texts), "the work went on to its end"
    assert_same_bits(engine.encode(random_family.texts), random_family.alone)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("n", [0, 1, 5, 300])
def test_every_text_is_reported_once(random_family, threads, n):
    done = []
    random_family.engines[threads].encode((random_family.texts * 5)[:n], report=done.append)
    assert sum(done) == n


def test_a_helper_that_fails_in_a_shared_pass_is_told_and_the_engine_goes_on(random_family, monkeypatch):
    engine, run = random_family.engines[2], float32_engine._RaggedPass.run
    failed = threading.Event()

    def failing(shared, member):
        if threading.current_thread().name == "minilm_np":
            failed.set()
            raise MemoryError
        assert failed.wait(PATIENCE)
        run(shared, member)

    with monkeypatch.context() as patch:
        patch.setattr(float32_engine._RaggedPass, "run", failing)
        with pytest.raises(MemoryError):
            engine.encode(random_family.texts[:3])
    assert_same_bits(engine.encode(random_family.texts[:3]), random_family.alone[:3])


def test_texts_are_encoded_with_no_thread_to_help(random_family, monkeypatch):
    """The caller depends on no helper: here they never come."""
    monkeypatch.setattr(workers._Offer, "help", lambda offer: None)
    monkeypatch.setattr(workers, "_pool", workers._Pool())
    for threads in (2, 4):
        assert_same_bits(random_family.engines[threads].encode(random_family.texts), random_family.alone)
        assert_same_bits(random_family.engines[threads].encode(random_family.texts[60:61]), random_family.alone[60:61])


# ---- processes -------------------------------------------------------------------------------------------------------


def same(digests, expected):
    assert digests == [expected] * len(digests)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_processes_have_the_same_vectors_even_while_other_threads_encode(child, targets):
    digests = child("forks")
    assert len(digests) == 13
    same(digests, targets["native"]["sha256"]["random, 1"])


def test_spawned_processes_and_those_of_a_forkserver_have_the_same_vectors(child, targets):
    digests = child("pools")
    assert len(digests) == 5
    same(digests, targets["native"]["sha256"]["random, 1"])


def test_ctrl_c_ends_a_long_list_soon_and_leaves_the_model_usable(child):
    for seconds, done, done_later, same_bits in child("interrupt"):
        assert seconds < 10
        assert done == done_later < 5000, "the work went on"
        assert same_bits


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity")
def test_a_crowded_machine_is_slow_but_neither_stalls_nor_errs(child, targets):
    same(child("crowded"), targets["native"]["sha256"]["random, 1"])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity")
def test_the_default_is_no_more_threads_than_processors(child):
    assert child("default_threads") == 1


@pytest.mark.weights
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_the_published_model_needs_little_memory_and_no_more_as_it_goes_on(child, model_folder):
    peaks = child("memory", model_folder)
    weights = model_folder.joinpath("model.safetensors").stat().st_size / 1e6
    assert peaks["load"] - peaks["imports"] < 1.9 * weights, "there was a second copy of the weights"
    assert peaks["text"] < 300
    assert peaks["last"] - peaks["first"] < 10


# ---- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "expected"),
    [("1", 1), ("2", 2), ("3,2", 3), (" 4 ", 4), ("99", 6), ("0", 1), ("-2", 1), ("many", 6), ("", 6)],
)
def test_the_default_honours_omp_num_threads_up_to_the_processors_allowed(monkeypatch, variable, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr(Path, "read_text", lambda path: "max 100000")
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert workers.default_threads() == expected
    assert workers.check_threads(None) == expected


@pytest.mark.parametrize(("quota", "expected"), [("250000 100000", 3), ("20000 100000", 1), ("max 100000", 6)])
def test_the_default_honours_a_containers_quota(monkeypatch, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr(Path, "read_text", lambda path: quota)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert workers.default_threads() == expected


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
def test_a_number_of_threads_that_is_none_is_refused(threads, error, message):
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
    engine = random_model(threads).model.engine
    with pytest.raises(InputValueError, match=f"^{message}$"):
        engine.encode([[1, 2], text])


@pytest.mark.parametrize("threads", [1, 2])
def test_no_texts_make_no_rows(threads):
    vectors = random_model(threads).model.engine.encode([])
    assert vectors.shape == (0, SMALL.hidden_size) and vectors.dtype == np.float32


# ---- weights, pickles, fingerprints ----------------------------------------------------------------------------------


@given(small_configs(), seeds)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_weights_come_out_as_they_went_in(config, seed):
    weights = float32(living_weights(config, seed))
    found = Encoder(config, reversed(weights.items()), 1).weights()
    assert list(found) == list(parameter_shapes(config))
    for name, array in found.items():
        assert_same_bits(array, weights[name], name)
        assert not array.flags.writeable


def test_weights_in_another_memory_order_are_the_same_weights():
    weights = random_weights(SMALL, 7)
    ordered = {name: np.asfortranarray(array) for name, array in weights.items()}
    vectors = Encoder(SMALL, ordered.items(), 1).encode(IDS)
    assert_same_bits(vectors, Encoder(SMALL, weights.items(), 1).encode(IDS))


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
    model, other = random_model(), random_model()
    state = other.__getstate__()
    unused = state["weights"]["embeddings.word_embeddings.weight"] = state["weights"][
        "embeddings.word_embeddings.weight"
    ].copy()
    unused.view(np.int32)[4, 0] ^= 1  # [MASK], which is in no text
    other.__setstate__(state)
    assert digest(other) == digest(model)
    assert other.fingerprint() != model.fingerprint()


def test_a_fingerprint_is_refused_for_numpy():
    with pytest.raises(InputValueError, match="backend 'numpy' promises no bits"):
        SentenceEncoder.random(SMALL, backend="numpy").fingerprint()


def test_a_model_of_the_published_sizes_has_the_same_bits_on_one_thread_and_on_two():
    texts = ["x" * 40, "y", "some words " * 30, "z " * 300]
    first, second = (SentenceEncoder.random(PUBLISHED_SIZES, 1, threads=threads).encode(texts) for threads in (1, 2))
    assert_same_bits(second, first)
