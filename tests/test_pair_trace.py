"""Traces of pairs: names and values are those of the reference and of torch; the engine's last array is the score."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import CrossEncoder, InputTypeError, InputValueError, reference
from minilm_np.trace import PairTrace, Trace, trace
from tests.support.compare import assert_close, assert_same_bits
from tests.support.pair_models import TORCH, PairShape, upstream, write_pair_folder

PAIR = ("Naïve café?", "A 東京 👍 [SEP] b")
LONG = ("query " * 9, "a document " * 40)


@pytest.fixture(scope="module")
def model() -> CrossEncoder:
    return CrossEncoder.random(seed=1, num_labels=3, backend="numpy")


def test_the_tokens_of_both_texts_are_named(model: CrossEncoder) -> None:
    for pair in (PAIR, LONG, ("", ""), ("", "b")):
        found = trace(model, pair)
        tokenized = model.model.tokenizer([pair])
        assert (found.text, found.text_pair) == pair
        assert found.ids == tokenized.ids[0]
        assert found.token_type_ids == tokenized.token_type_ids[0]
        assert [found.truncated] == tokenized.truncated
    found = trace(model, ("ab c", "日 d"))
    assert found.segments == [
        "special", "first", "first", "first", "special", "second", "second", "special",
    ]  # fmt: skip
    assert found.token_type_ids == [0, 0, 0, 0, 0, 1, 1, 1]
    of_text = {"first": found.text, "second": found.text_pair, "special": ""}
    shown = [of_text[name][slice(*place)] for name, place in zip(found.segments, found.offsets, strict=True)]
    assert shown == ["", "a", "b", "c", "", "日", "d", ""]
    assert [found.tokens[n] for n in (0, 4, 7)] == ["[CLS]", "[SEP]", "[SEP]"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays_are_those_of_the_reference(model: CrossEncoder, dtype: str) -> None:
    found = trace(model, PAIR, dtype=dtype)
    weights = reference.nest(model.weights, dtype)
    logits = reference.classify(np.array(found.ids), np.array(found.token_type_ids), weights, model.config)
    assert list(found)[-4:] == ["pooler.dense", "pooler.activation", "classifier", "score"]
    assert [found.dimensions[name] for name in list(found)[-4:]] == ["D", "D", "C", "C"]
    assert {str(array.dtype) for array in found.values()} == {dtype}
    assert_same_bits(found["classifier"], logits)
    assert_close(found["score"], model.predict(PAIR), rel=1e-5)
    types = model.weights["embeddings.token_type_embeddings.weight"].astype(dtype)
    assert_same_bits(found["embeddings.token_type_embeddings"], types[found.token_type_ids])


@pytest.mark.parametrize("compute_type", ["float32", "int8"])
def test_the_last_array_of_the_engine_is_the_score(compute_type: str) -> None:
    model = CrossEncoder.random(seed=2, compute_type=compute_type, threads=2)
    for pair in (PAIR, LONG):
        found = model.trace(pair, backend="numba")
        assert_same_bits(found["score"][0], model.predict(pair, on_truncation="ignore"))
        assert_same_bits(found["classifier"][0], model.predict(pair, activation_fn="Identity", on_truncation="ignore"))
        exact = model.trace(pair, dtype="float64")
        assert set(found) < set(exact)
    assert trace(model, [PAIR], backend="numba") == [trace(model, PAIR, backend="numba")]


def test_torch_has_the_same_logits_and_pooled_vector(tmp_path: Path) -> None:
    import torch

    folder = write_pair_folder(tmp_path / "model", PairShape(labels=2, activation=TORCH["Tanh"]))
    model, theirs = CrossEncoder(folder, backend="numpy"), upstream(folder)
    found = trace(model, PAIR, dtype="float64")
    kept: dict[str, Any] = {}
    theirs.model.bert.pooler.register_forward_hook(lambda module, inputs, output: kept.update(pooled=output))
    with torch.no_grad():
        logits = theirs.model.double()(
            torch.tensor([found.ids]), token_type_ids=torch.tensor([found.token_type_ids])
        ).logits
    assert_close(found["pooler.activation"], kept["pooled"][0].numpy(), rel=1e-12)
    assert_close(found["classifier"], logits[0].numpy(), rel=1e-12)
    assert_close(found["score"], np.tanh(logits[0].numpy()), rel=1e-12)


def test_a_trace_reads_back_equal(model: CrossEncoder, tmp_path: Path) -> None:
    path = tmp_path / "pair.safetensors"
    for pair in (PAIR, ("", ""), LONG):
        found = trace(model, pair, dtype="float64")
        found.save(path)
        assert PairTrace.load(path) == found
    with pytest.raises(InputValueError, match="pair trace 1"):
        Trace.load(path)
    assert repr(found).startswith("PairTrace('query query")
    broken = PairTrace(**vars(found) | {"segments": found.segments[1:]})
    broken.save(path)
    with pytest.raises(InputValueError, match="expected as many segments as ids, 128, found 127"):
        PairTrace.load(path)


def test_inputs_that_are_refused(model: CrossEncoder) -> None:
    with pytest.raises(InputTypeError, match="inputs: expected a pair of texts or several, found str"):
        trace(model, "a text")
    with pytest.raises(InputValueError, match="pair 0: expected two texts, found 1"):
        trace(model, [("a",)])
    with pytest.raises(InputValueError, match="dtype: backend 'numba' computes in float32 only"):
        trace(model, PAIR, dtype="float64", backend="numba")
