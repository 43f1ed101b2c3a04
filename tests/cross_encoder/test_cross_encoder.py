"""The public class on a random model: arguments, truncation, pickling, errors. No torch is needed."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import (
    ConfigError,
    CrossEncoder,
    InputTypeError,
    InputValueError,
    NonFiniteError,
    TruncationWarning,
)
from minilm_np.encoding.pair_model import PairModel
from minilm_np.engine.classifier import Classifier
from tests.support.compare import assert_same_bits
from tests.support.pair_models import PAIRS


@pytest.fixture(scope="module")
def model() -> CrossEncoder:
    return CrossEncoder.random(backend="numpy")


def test_one_pair_has_one_score_and_n_pairs_have_n(model: CrossEncoder) -> None:
    scores = model.predict(PAIRS)
    assert scores.shape == (len(PAIRS),)
    assert scores.dtype == np.float32
    assert isinstance(model.predict(PAIRS[0]), np.float32)
    assert model.predict([]).shape == (0,)
    several = CrossEncoder.random(num_labels=3, backend="numpy")
    assert several.predict(PAIRS).shape == (len(PAIRS), 3)
    assert several.predict(PAIRS[0]).shape == (3,)
    assert several.predict([]).shape == (0, 3)


@pytest.mark.parametrize("make", [list, tuple, iter, np.array, lambda pairs: [list(pair) for pair in pairs]])
def test_pairs_come_in_any_container(model: CrossEncoder, make: Any) -> None:
    assert_same_bits(model.predict(make(PAIRS[:3])), model.predict(PAIRS[:3]))


def test_older_names_of_arguments(model: CrossEncoder) -> None:
    expected = model.predict(PAIRS, activation_fn="Tanh")
    assert_same_bits(model.predict(sentences=PAIRS, activation_fct="Tanh", num_workers=2), expected)
    assert model.max_length == model.max_seq_length == 128


def test_older_names_of_the_arguments_of_rank_and_of_the_class(model: CrossEncoder, tmp_path: Path) -> None:
    documents = ["first", "second"]
    unused: dict[str, Any] = dict.fromkeys(("num_workers", "apply_softmax", "convert_to_numpy", "convert_to_tensor"), 1)
    expected = model.rank("query", documents, activation_fn="Tanh")
    assert model.rank("query", documents, activation_fct="Tanh", **unused) == expected
    with pytest.raises(InputValueError, match="rank has no argument 'other'"):
        model.rank("query", documents, other=1)
    model.save_pretrained(tmp_path / "model")
    again = CrossEncoder(tmp_path / "model", backend="numpy", default_activation_function="Tanh")
    assert again.activation_fn == "Tanh"


def test_an_argument_by_both_of_its_names_is_refused(model: CrossEncoder) -> None:
    with pytest.raises(InputTypeError, match="inputs, sentences: expected one of them, found both: sentences is the"):
        model.predict(PAIRS, sentences=PAIRS)
    with pytest.raises(InputTypeError, match="activation_fn, activation_fct: expected one of them"):
        model.rank("query", ["a"], activation_fn="Tanh", activation_fct="Tanh")


def test_the_progress_counts_pairs(model: CrossEncoder, capsys: pytest.CaptureFixture[str]) -> None:
    model.predict(PAIRS, show_progress_bar=True)
    shown = capsys.readouterr().err
    assert "score: 100%" in shown
    assert f"{len(PAIRS)}/{len(PAIRS)}" in shown
    assert "pair/s" in shown


def test_prompts_can_be_changed() -> None:
    model = CrossEncoder.random(backend="numpy")
    expected = model.predict([("q: a", "b")])
    model.prompts = {"query": "q: "}
    model.default_prompt_name = "query"
    assert_same_bits(model.predict([("a", "b")]), expected)
    with pytest.raises(InputValueError, match="default_prompt_name: expected one of 'query' or None, found 'other'"):
        model.default_prompt_name = "other"


def test_a_query_with_a_prompt_is_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = CrossEncoder.random(backend="numpy")
    logits, scored = PairModel.logits, []

    def recorded(self: PairModel, pairs: Any, *rest: Any) -> Any:
        scored.extend(pairs)
        return logits(self, pairs, *rest)

    monkeypatch.setattr(PairModel, "logits", recorded)
    model.rank("query", ["a", "b", "c"], prompt="q: ")
    assert [first for first, _ in scored] == ["q: query"] * 3
    assert len({id(first) for first, _ in scored}) == 1


def test_settings_of_the_object_can_be_changed() -> None:
    model = CrossEncoder.random(backend="numpy")
    expected = model.predict(PAIRS, activation_fn="Identity")
    model.activation_fn = "Identity"
    assert_same_bits(model.predict(PAIRS), expected)
    model.max_length = 10
    assert model.max_seq_length == 10
    assert max(map(len, model.model.tokenizer(PAIRS).ids)) == 10
    with pytest.raises(InputValueError, match="max_length: expected an int from 3 to 128, found 2"):
        model.max_seq_length = 2


def test_a_truncated_pair_is_reported() -> None:
    model = CrossEncoder.random(backend="numpy")
    model.max_length = 20
    pairs = [("a", "b"), ("a", "long " * 30), ("long " * 50, "b")]
    message = r"2 of 3 pairs were truncated to 20 tokens; the longest, pair 2, has 251 characters\. Split the longer"
    with pytest.warns(TruncationWarning, match=message) as caught:
        model.predict(pairs)
    assert caught[0].filename == __file__
    with pytest.raises(InputValueError, match=r"pair 1 \(151 characters\) is longer than the limit of 20 tokens\."):
        model.predict(pairs, on_truncation="error")
    model.predict(pairs, on_truncation="ignore")


def test_a_ranking_keeps_the_order_of_equal_scores(model: CrossEncoder) -> None:
    ranked = model.rank("query", ["same", "other", "same"], return_documents=True)
    scores = model.predict([("query", "same"), ("query", "other"), ("query", "same")])
    assert [hit["score"] for hit in ranked] == sorted(scores.tolist(), reverse=True)
    assert [hit["corpus_id"] for hit in ranked if hit["text"] == "same"] == [0, 2]
    assert model.rank("query", ["same", "other", "same"], top_k=1) == [
        {"corpus_id": ranked[0]["corpus_id"], "score": ranked[0]["score"]}
    ]
    assert model.rank("query", []) == []


def test_a_pickled_model_gives_the_same_scores(model: CrossEncoder) -> None:
    again = pickle.loads(pickle.dumps(model))
    assert_same_bits(again.predict(PAIRS), model.predict(PAIRS))


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (None, InputTypeError, "inputs: expected pairs of texts, found None"),
        ("a text", InputTypeError, r"inputs: expected a pair .*, found str: pass \(query, document\)"),
        (5, InputTypeError, "inputs: expected a pair of texts or several, found int"),
        ({"a": "b"}, InputTypeError, "inputs: expected a pair of texts or several, found dict"),
        (["a", "b", "c"], InputValueError, "pair 0: expected two texts, found 3"),
        ([("a", "b"), ("a",)], InputValueError, "pair 1: expected two texts, found 1"),
        ([("a", "b"), "ab"], InputTypeError, "pair 1: expected two texts, found str"),
        ([("a", 5)], InputTypeError, "pair 0: text 1: expected a str, found int '5'"),
        ([("a", "b"), ("\ud800", "b")], InputValueError, r"pair 1: text 0: the lone surrogate U\+D800"),
    ],
)
def test_inputs_that_are_no_pairs(model: CrossEncoder, inputs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        model.predict(inputs)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_table_is_not_read_as_the_names_of_its_columns(model: CrossEncoder, library: str) -> None:
    table = pytest.importorskip(library).DataFrame({"query": ["a", "b"], "document": ["c", "d"]})
    message = r'inputs: expected pairs of texts, found DataFrame: pass .* zip\(df\["query"\], df\["document"\]\)$'
    for call in (model.predict, model.fingerprint, model.trace):
        with pytest.raises(InputTypeError, match=message):
            call(table)
    scores = model.predict(zip(table["query"], table["document"], strict=True))
    assert_same_bits(scores, model.predict([("a", "c"), ("b", "d")]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation_fn": "Softplus"}, "activation_fn: expected one of 'Identity', 'ReLU', .*, found 'Softplus'"),
        ({"activation_fn": len}, "activation_fn: expected one of .* found <built-in function len>"),
        ({"batch_size": 0}, "batch_size: expected an int of at least 1, found 0"),
        ({"device": "cuda"}, "device: expected 'cpu' or None, found 'cuda'"),
        ({"pool": {}}, "pool: expected None"),
        ({"prompt_name": "query"}, "prompt_name: expected one of , found 'query'"),
        ({"on_truncation": "cut"}, "on_truncation: expected one of 'ignore', 'warn', 'error', found 'cut'"),
        ({"other": 1}, "predict has no argument 'other'"),
    ],
)
def test_arguments_that_are_refused(model: CrossEncoder, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputValueError, match=message):
        model.predict(PAIRS, **options)


def test_arguments_of_rank_that_are_refused(model: CrossEncoder) -> None:
    with pytest.raises(InputTypeError, match="query: expected a str, found int"):
        model.rank(5, ["a"])  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="documents: expected a list, an array or a column of str, found str"):
        model.rank("a", "b")
    with pytest.raises(InputValueError, match="top_k: expected an int of at least 1 or None, found 0"):
        model.rank("a", ["b"], top_k=0)


def test_scores_that_are_not_finite_are_an_error() -> None:
    model = CrossEncoder.random(backend="numpy")
    weights = model.model.classifier.weights
    huge = weights | {"classifier.weight": np.full_like(weights["classifier.weight"], 3e38)}
    model._model = type(model.model)(model.model.encoder, model.model.tokenizer, Classifier(huge), model.model.head)
    with pytest.raises(NonFiniteError, match="pair 0: its score is not finite"):
        model.predict(PAIRS)


def test_a_folder_of_sentence_vectors_is_refused(tmp_path: Path) -> None:
    from minilm_np import SentenceEncoder

    SentenceEncoder.random(backend="numpy").save_pretrained(tmp_path / "vectors")
    with pytest.raises(ConfigError, match=r"'CrossEncoder', found 'SentenceTransformer': use .*SentenceEncoder"):
        CrossEncoder(tmp_path / "vectors")


def test_what_the_object_says_of_itself(model: CrossEncoder) -> None:
    assert (model.backend, model.compute_type, model.contract, model.device) == ("numpy", "float32", None, "cpu")
    assert (model.num_labels, model.id2label, model.activation_fn) == (1, {0: "LABEL_0"}, "Sigmoid")
    assert (model.prompts, model.default_prompt_name) == ({}, None)
    assert (model.folder, model.model_path) == (None, None)
    assert repr(model) == "CrossEncoder(random weights, backend='numpy')"
