"""The same folders and the same calls on sentence-transformers' CrossEncoder and on this package's."""

import inspect
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np import CrossEncoder
from minilm_np.engine.registry import BACKENDS
from tests.support.compare import assert_near
from tests.support.pair_models import PAIRS, TORCH, PairShape, assert_scores, pair_shapes, upstream, write_pair_folder

pytestmark = pytest.mark.filterwarnings("ignore::minilm_np.TruncationWarning")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(["", "[SEP]", "word " * 30])


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread for torch: two libraries run in turn, and idle threads of one spin and slow the other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=[1, 3], ids=["one label", "three labels"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pair_folder(tmp_path_factory.mktemp("pairs"), PairShape(labels=request.param))


@pytest.fixture(scope="module")
def both(folder: Path) -> tuple[CrossEncoder, Any]:
    """One model in both libraries."""
    return CrossEncoder(folder, threads=1), upstream(folder)


@settings(max_examples=12)
@given(shape=pair_shapes(), seed=st.integers(0, 2**31 - 1), more=st.lists(st.tuples(texts, texts), max_size=3))
def test_any_folder_gives_the_scores_of_sentence_transformers(
    shape: PairShape, seed: int, more: list[tuple[str, str]]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        found = write_pair_folder(Path(place), shape, seed)
        expected = upstream(found)
        for backend in BACKENDS:
            model = CrossEncoder(found, backend=backend, threads=None if backend == "numpy" else 1)
            assert model.max_seq_length == expected.max_seq_length
            assert TORCH[model.activation_fn].rpartition(".")[2] == type(expected.activation_fn).__name__
            assert model.num_labels == expected.num_labels
            assert_scores(model.predict(PAIRS + more), expected.predict(PAIRS + more), backend)


@settings(max_examples=40)
@given(
    pairs=st.lists(st.tuples(texts, texts), min_size=1, max_size=4),
    kind=st.sampled_from(["one", "list", "tuple", "lists", "array"]),
    chosen=st.fixed_dictionaries(
        {},
        optional={
            "prompt": st.sampled_from([None, "", "query: ", "É"]),
            "batch_size": st.integers(1, 40),
            "show_progress_bar": st.sampled_from([None, False]),
            "activation_fn": st.sampled_from(sorted(TORCH)),
            "apply_softmax": st.sampled_from([None, False, True]),
            "convert_to_numpy": st.booleans(),
            "convert_to_tensor": st.booleans(),
        },
    ),
)
def test_the_same_call_has_the_same_result(
    both: tuple[CrossEncoder, Any], pairs: list[tuple[str, str]], kind: str, chosen: dict[str, Any]
) -> None:
    inputs: Any = {
        "one": pairs[0], "list": pairs, "tuple": tuple(pairs), "lists": [list(pair) for pair in pairs],
        "array": np.array(pairs, object),
    }[kind]  # fmt: skip
    model, expected_model = both
    of_torch = dict(chosen)
    if "activation_fn" in chosen:
        of_torch["activation_fn"] = getattr(torch.nn, chosen["activation_fn"])()
    found, expected = model.predict(inputs, **chosen), expected_model.predict(inputs, **of_torch)
    as_lists = not chosen.get("convert_to_numpy", True) and not chosen.get("convert_to_tensor", False)
    if chosen.get("convert_to_tensor"):
        assert isinstance(found, torch.Tensor) and isinstance(expected, torch.Tensor)
    elif as_lists and kind != "one":
        assert isinstance(found, list) and isinstance(expected, list)
    if as_lists:  # of tensors there, of arrays here
        expected = expected.numpy() if kind == "one" else [one.numpy() for one in expected]
    assert_scores(found, expected)


def test_a_prompt_of_the_folder_is_used_alike(folder: Path, tmp_path: Path) -> None:
    prompts = {"query": "find: ", "other": "x"}
    expected = upstream(folder, prompts=prompts, default_prompt_name="query")
    expected.save_pretrained(str(tmp_path))
    model = CrossEncoder(tmp_path, threads=1)
    assert (model.prompts, model.default_prompt_name) == (expected.prompts, expected.default_prompt_name)
    assert_scores(model.predict(PAIRS), expected.predict(PAIRS))
    assert_scores(model.predict(PAIRS, prompt_name="other"), expected.predict(PAIRS, prompt_name="other"))


@pytest.mark.parametrize("limit", [3, 4, 5, 6, 7, 17, 18, 100])
def test_every_limit_truncates_alike(folder: Path, limit: int) -> None:
    expected = upstream(folder, max_length=limit)
    model = CrossEncoder(folder, threads=1, max_length=limit)
    tokens = model.model.tokenizer(PAIRS)
    wanted = expected.preprocess([list(pair) for pair in PAIRS])
    for row, (ids, types) in enumerate(zip(tokens.ids, tokens.token_type_ids, strict=True)):
        kept = wanted["attention_mask"][row].bool()
        assert ids == wanted["input_ids"][row][kept].tolist()
        assert types == wanted["token_type_ids"][row][kept].tolist()
    assert_scores(model.predict(PAIRS), expected.predict(PAIRS))


def test_a_ranking_is_the_same(folder: Path) -> None:
    if "one" not in folder.name and CrossEncoder(folder, backend="numpy").num_labels != 1:
        with pytest.raises(ValueError, match="num_labels=1"):
            upstream(folder).rank("a", ["b"])
        with pytest.raises(ValueError, match="expected a model with 1 label, found 3"):
            CrossEncoder(folder, backend="numpy").rank("a", ["b"])
        return
    model, expected = CrossEncoder(folder, threads=1), upstream(folder)
    documents = ["first", "second", "", "third one", "first"]
    for options in ({}, {"top_k": 2}, {"return_documents": True}, {"top_k": 9, "return_documents": True}):
        found, wanted = model.rank("a query", documents, **options), expected.rank("a query", documents, **options)
        assert [hit["corpus_id"] for hit in found] == [hit["corpus_id"] for hit in wanted]
        assert [hit.get("text") for hit in found] == [hit.get("text") for hit in wanted]
        assert_scores([hit["score"] for hit in found], [hit["score"] for hit in wanted])


def test_evaluators_give_the_same_scores(both: tuple[CrossEncoder, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers.cross_encoder import evaluation

    labels = both[0].num_labels
    pairs = [[f"query {number % 4}", f"document {number**2}"] for number in range(24)]
    evaluators: list[Any] = [
        evaluation.CrossEncoderClassificationEvaluator(pairs, [n % max(2, labels) for n in range(len(pairs))])
    ]
    if labels == 1:
        samples: list[dict[str, Any]] = [
            {"query": q, "positive": [d], "negative": [d * 2, "other", "third"]} for q, d in pairs[:6]
        ]
        evaluators += [
            evaluation.CrossEncoderCorrelationEvaluator(pairs, [float(n * 7 % 5) for n in range(len(pairs))]),
            evaluation.CrossEncoderRerankingEvaluator(samples),
        ]
    for evaluator in evaluators:
        found, expected = ({**evaluator(model)} for model in both)
        assert found
        assert_near(found, expected, 2e-6)


@pytest.mark.parametrize("method", ["predict", "rank"])
def test_the_arguments_are_those_of_sentence_transformers(method: str) -> None:
    from sentence_transformers import CrossEncoder as Upstream

    found, expected = (list(inspect.signature(getattr(each, method)).parameters) for each in (CrossEncoder, Upstream))
    expected = [name for name in expected if name != "kwargs"]
    assert found[: len(expected)] == expected


# ---- saving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", sorted(TORCH))
def test_a_saved_folder_gives_both_libraries_the_same_scores(folder: Path, tmp_path: Path, activation: str) -> None:
    model = CrossEncoder(
        folder, threads=1, activation_fn=activation, max_length=23, prompts={"q": "query: "}, default_prompt_name="q"
    )
    model.save_pretrained(tmp_path / "saved")
    expected = model.predict(PAIRS)
    again, of_torch = CrossEncoder(tmp_path / "saved", threads=1), upstream(tmp_path / "saved")
    assert np.array_equal(again.predict(PAIRS), expected)
    assert (again.activation_fn, again.max_seq_length, again.prompts) == (activation, 23, {"q": "query: "})
    assert (of_torch.max_seq_length, of_torch.prompts, of_torch.default_prompt_name) == (23, {"q": "query: "}, "q")
    assert_scores(of_torch.predict(PAIRS), expected)


def test_a_folder_written_by_the_installed_sentence_transformers_loads_alike(folder: Path, tmp_path: Path) -> None:
    upstream(folder, activation_fn=torch.nn.Tanh()).save_pretrained(str(tmp_path))
    model = CrossEncoder(tmp_path, threads=1)
    assert model.activation_fn == "Tanh"
    assert np.array_equal(model.predict(PAIRS), CrossEncoder(folder, threads=1).predict(PAIRS, activation_fn="Tanh"))
