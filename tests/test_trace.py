"""Traces: names and values are those of the reference and of torch; the engine's last array is the vector."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np import InputTypeError, InputValueError, SentenceEncoder, reference
from minilm_np.engine.float32.engine import Float32Engine
from minilm_np.trace import dimensions, intermediates, tokens_of, trace
from tests.support.compare import assert_close, assert_same_bits
from tests.support.models import living_weights, ragged_ids, small_configs, torch_intermediates, torch_model

TEXT = "Naïve café, 東京 👍 [SEP] x"
NOT_IN_TORCH = (".scores", "pooling", "normalize")
FUSED = (".scores", ".probs", ".dense", "_embeddings")  # what the engine never has by itself


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder.random(seed=1, backend="numpy")


@pytest.fixture(scope="module")
def engine() -> SentenceEncoder:
    return SentenceEncoder.random(seed=1)


# ------------------------------------------------------------------------------------------------- names and values


@given(st.data())
@settings(max_examples=40)
def test_intermediates_are_torchs_by_its_names(data: st.DataObject) -> None:
    config = data.draw(small_configs())
    [ids] = data.draw(ragged_ids(config, max_texts=1))
    weights = living_weights(config, data.draw(st.integers(0, 2**32)))
    found = intermediates(np.array(ids), reference.nest(weights, np.float64), config)
    expected = torch_intermediates(torch_model(config, weights), np.array([ids]))
    assert [name for name in found if not name.endswith(NOT_IN_TORCH)] == sorted(expected, key=list(found).index)
    for name, array in expected.items():
        assert_close(found[name], array[0], rel=1e-12, what=name)
    sizes = {"T": len(ids), "D": config.hidden_size, "F": config.intermediate_size, "H": config.num_attention_heads}
    for name, array in found.items():
        assert array.shape == tuple(sizes[letter] for letter in dimensions(name).split())
    assert ("normalize" in found) == config.normalize


def test_intermediates_of_a_padded_batch_are_those_of_its_texts(encoder: SentenceEncoder) -> None:
    weights = reference.nest(encoder.weights, np.float64)
    texts = [[2, 9, 8, 7, 3], [2, 30, 3]]
    ids = np.array([texts[0], texts[1] + [0, 0]])
    batch = intermediates(ids, weights, encoder.config, mask=np.array([[True] * 5, [True] * 3 + [False] * 2]))
    for row, text in enumerate(texts):
        T = len(text)
        for name, array in intermediates(np.array(text), weights, encoder.config).items():
            letters = dimensions(name)
            found = batch[name] if name == "embeddings.position_embeddings" else batch[name][row]
            found = found[:, :T, :T] if letters == "H T T" else found[:T] if letters[0] == "T" else found
            assert_close(found, array, rel=1e-12, what=name)


def test_intermediates_own_their_memory_and_keep_what_overflows(encoder: SentenceEncoder) -> None:
    weights = dict(encoder.weights)
    weights["embeddings.LayerNorm.weight"] = weights["embeddings.LayerNorm.weight"] * np.float32(1e30)
    found = intermediates(np.array([2, 3]), reference.nest(weights), encoder.config)
    assert all(array.base is None and array.flags.c_contiguous for array in found.values())
    assert np.isfinite(found["embeddings.LayerNorm"]).all()
    assert not np.isfinite(found["encoder.layer.0.attention.self.scores"]).all()


@given(st.data())
@settings(max_examples=25)
def test_the_engine_leaves_what_the_reference_computes(data: st.DataObject) -> None:
    config = data.draw(small_configs())
    [ids] = data.draw(ragged_ids(config, max_texts=1))
    weights = {
        name: array.astype(np.float32)
        for name, array in living_weights(config, data.draw(st.integers(0, 2**32))).items()
    }
    engine = Float32Engine(config, weights.items(), 2)
    found = engine.intermediates(ids)
    truth = intermediates(np.array(ids), reference.nest(weights, np.float64), config)
    rounded = intermediates(np.array(ids), reference.nest(weights, np.float32), config)
    assert list(found) == [name for name in truth if not name.endswith(FUSED)]
    for name, array in found.items():
        assert array.dtype == np.float32
        # a LayerNorm over two values may lose any number of digits: as many as the reference loses in float32
        lost = float(np.abs(rounded[name] - truth[name]).max() / np.abs(truth[name]).max())
        assert_close(array, truth[name], rel=2e-6 + 10 * lost, what=name)
    assert_same_bits(found["normalize" if config.normalize else "pooling"], engine.encode([ids])[0])


@pytest.mark.filterwarnings("ignore::minilm_np.errors.TruncationWarning")
@pytest.mark.parametrize("text", [TEXT, "", "long " * 100])
def test_the_engines_last_array_is_the_vector(encoder: SentenceEncoder, engine: SentenceEncoder, text: str) -> None:
    for owner in (encoder, engine):  # whatever the backend of the encoder that is asked
        found = trace(owner, text, backend="numba")
        assert_same_bits(found["normalize"], engine.encode(text))
        assert "numba" in found.versions and found.backend == "numba"


def test_traces_in_many_threads_are_the_same(engine: SentenceEncoder) -> None:
    expected, found = trace(engine, TEXT, backend="numba"), []
    threads = [threading.Thread(target=lambda: found.append(trace(engine, TEXT, backend="numba"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_trace_ends_in_the_vector(encoder: SentenceEncoder, dtype: str) -> None:
    found = trace(encoder, TEXT, dtype=dtype)
    assert {str(array.dtype) for array in found.values()} == {dtype} == {found.dtype}
    assert_close(list(found.values())[-1], encoder.encode(TEXT), rel=1e-6)
    assert found.dimensions["encoder.layer.2.attention.self.probs"] == "H T T"
    assert next(iter(found)) == "embeddings.word_embeddings" and len(found) == 42
    assert found.model == "random weights" and set(found.versions) == {"minilm-np", "numpy", "tokenizers"}


def test_several_texts_give_a_trace_each_as_if_alone(encoder: SentenceEncoder) -> None:
    texts = [TEXT, "", "another one"]
    assert trace(encoder, texts) == [trace(encoder, text) for text in texts]
    assert trace(encoder, []) == []
    assert trace(encoder, TEXT) != trace(encoder, TEXT, dtype="float64")


@pytest.mark.weights
def test_the_published_models_trace_is_torchs(published: SentenceEncoder, model_folder: Path) -> None:
    found = trace(published, TEXT)
    assert found.tokens == ["[CLS]", "naive", "cafe", ",", "東", "京", "[UNK]", "[SEP]", "x", "[SEP]"]
    assert [TEXT[start:stop] for start, stop in found.offsets] == ["", *"Naïve café , 東 京 👍 [SEP] x".split(), ""]
    truth = torch_intermediates(torch_model(published.config, published.weights), np.array([found.ids]))
    for name, array in truth.items():
        assert_close(found[name], array[0], rel=5e-6, what=name)
    engine = trace(published, TEXT, backend="numba")
    for name, array in engine.items():
        assert_close(array, found[name], rel=5e-6, what=name)
    assert_same_bits(engine["normalize"], SentenceEncoder(model_folder).encode(TEXT))
    assert found.model == str(model_folder)


@pytest.mark.weights
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tracing_256_tokens_takes_less_than_a_gigabyte(model_folder: Path, tmp_path: Path, dtype: str) -> None:
    code = (
        "import sys; from minilm_np import SentenceEncoder; from minilm_np.trace import Trace, trace\n"
        "from tests.support.memory import peak_memory\n"
        "encoder = SentenceEncoder(sys.argv[1], backend='numpy')\n"
        "found = trace(encoder, 'the quick brown fox ' * 100, dtype=sys.argv[3])\n"
        "assert len(found.ids) == 256\n"
        "found.save(sys.argv[2]); assert Trace.load(sys.argv[2]) == found\n"
        "print(peak_memory())"
    )
    child = [sys.executable, "-c", code, str(model_folder), str(tmp_path / "file.safetensors"), dtype]
    assert int(subprocess.run(child, capture_output=True, text=True, check=True).stdout) < 1e9


# ---------------------------------------------------------------------------------------------- tokens and characters


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "",
        "UPPER e\u0301 x\u0323",
        "a " * 500,
        "word " * 5000,
        "?!" * 5000 + "end",
        "\u4e2d" * 9000,
        " " * 9000 + "end",
    ],
)
def test_offsets_are_of_the_text_even_where_it_is_read_in_pieces(encoder: SentenceEncoder, text: str) -> None:
    tokens, ids, offsets, truncated = tokens_of(encoder.tokenizer, text)
    tokenized = encoder.tokenizer([text])
    assert (ids, truncated) == (tokenized.ids[0], tokenized.truncated[0])
    assert len(tokens) == len(offsets) == len(ids)
    assert (tokens[0], tokens[-1], offsets[0], offsets[-1]) == ("[CLS]", "[SEP]", (0, 0), (0, 0))
    # the same as those of the whole text, which the library tokenizes at once
    whole = encoder.tokenizer._tokenizer.encode(text, add_special_tokens=False)
    assert offsets[1:-1] == whole.offsets[: len(ids) - 2]
    for token, (start, stop) in zip(tokens[1:-1], offsets[1:-1], strict=True):
        assert start < stop <= len(text)
        if token != "[UNK]" and text.isascii():
            assert text[start:stop].lower() == token.removeprefix("##").lower()


def test_arguments_are_checked(encoder: SentenceEncoder) -> None:
    with pytest.raises(InputValueError, match="dtype: expected one of 'float32', 'float64', found 'float16'"):
        trace(encoder, "x", dtype="float16")
    with pytest.raises(InputValueError, match="backend 'numba' computes in float32 only, found 'float64'"):
        trace(encoder, "x", dtype="float64", backend="numba")
    with pytest.raises(InputValueError, match="backend: expected one of 'numba', 'numpy', found 'torch'"):
        trace(encoder, "x", backend="torch")
    with pytest.raises(InputTypeError, match="text 1: expected a str, found int"):
        trace(encoder, ["x", 3])  # type: ignore[list-item]
    with pytest.raises(InputValueError, match="text 0: the lone surrogate"):
        trace(encoder, "\ud800")
