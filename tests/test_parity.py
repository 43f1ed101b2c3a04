"""The same calls on sentence-transformers and on this package: types, shapes, dtypes, order, values, exceptions.

Intended differences are coded in the tests, and listed in from_sentence_transformers.md.
"""

import inspect
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np import SentenceEncoder
from tests.support.compare import assert_close
from tests.test_family import BGE, E5, Shape, write_folder

BOUND = 5e-7  # absolute, of a float32 number of a vector of unit length

SHAPES = {
    "unit length": Shape(limit=20, prompts=E5, default_prompt_name="passage"),
    "any length": Shape(pooling="cls", prompts=BGE, normalize=False, limit=80),
    "max": Shape(pooling="max", normalize=False, hidden=40),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread for torch: two libraries run in turn, and idle threads of one spin and slow the other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["published", *SHAPES])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[SentenceEncoder, Any]:
    """One model in both libraries."""
    if request.param == "published":
        return SentenceEncoder(request.getfixturevalue("model_folder"), threads=1), request.getfixturevalue(
            "sentence_transformer"
        )
    folder: Path = tmp_path_factory.mktemp("parity")
    model = write_folder(folder, SHAPES[request.param])
    return SentenceEncoder(folder / "model", threads=1), model


def arrays(found: Any) -> Any:
    """Return a result of sentence-transformers as this package returns it: arrays instead of tensors."""
    if isinstance(found, torch.Tensor):
        return found.numpy()
    return [arrays(one) for one in found] if isinstance(found, list) else found


def assert_alike(found: Any, expected: Any, unit: bool) -> None:
    """Assert equal types, shapes and dtypes, and close values of float32 vectors (of unit length or not)."""
    assert type(found) is type(expected)
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            assert_alike(*pair, unit)
        return
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    if expected.dtype == np.float32:
        if unit:
            assert_close(found, expected, abs_=BOUND)
        else:
            assert_close(found, expected, rel=2e-5)


def assert_quantized_alike(found: Any, expected: Any, exact: Any, precision: str) -> None:
    """Assert that integers differ by at most one step, and bits are equal unless the number is nearly zero."""
    found, expected, exact = (np.vstack(list(each)) for each in (found, expected, exact))
    if precision in ("int8", "uint8"):
        # if a number differs between the texts only in its last bits, they fill the whole range
        spread = np.ptp(exact, axis=0) > 1e-4
        assert (np.abs(found.astype(int) - expected.astype(int)) <= 1)[:, spread].all()
        return
    offset = 128 if precision == "binary" else 0
    bits = [np.unpackbits((each.astype(int) + offset).astype(np.uint8), axis=1) for each in (found, expected)]
    clear = np.abs(exact) > 1e-5
    assert (bits[0] == bits[1])[:, : exact.shape[1]][clear].all()


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(["", "[SEP]", "word " * 20])
inputs = texts | st.lists(texts, min_size=1, max_size=5)
options = st.fixed_dictionaries(
    {},
    optional={
        "prompt_name": st.sampled_from([None, "query", "document"]),
        "prompt": st.sampled_from([None, "", "query: ", "É"]),
        "batch_size": st.integers(1, 40),
        "show_progress_bar": st.sampled_from([None, False]),
        "output_value": st.sampled_from(["sentence_embedding", "token_embeddings"]),
        "precision": st.sampled_from(["float32", "int8", "uint8", "binary", "ubinary", None]),
        "convert_to_numpy": st.booleans(),
        "convert_to_tensor": st.booleans(),
        "device": st.sampled_from([None, "cpu"]),
        "normalize_embeddings": st.booleans(),
        "truncate_dim": st.sampled_from([None, 1, 7, 16, 40, 10_000]),
        "pool": st.none(),
        "chunk_size": st.none(),
    },
)
containers = st.sampled_from([list, tuple, np.array])
methods = st.sampled_from(["encode", "encode_query", "encode_document"])


def called(model: Any, method: str, given_inputs: Any, chosen: dict[str, Any]) -> Any:
    """Return the result, or the exception."""
    try:
        return getattr(model, method)(given_inputs, **chosen)
    except Exception as error:
        return error


@pytest.mark.weights
@pytest.mark.filterwarnings("ignore::minilm_np.TruncationWarning")
@settings(max_examples=80)
@given(method=methods, given_inputs=inputs, container=containers, chosen=options)
def test_the_same_call_has_the_same_result(
    both: tuple[SentenceEncoder, Any], method: str, given_inputs: Any, container: Any, chosen: dict[str, Any]
) -> None:
    if isinstance(given_inputs, list):
        given_inputs = container(given_inputs) if container is not np.array else np.array(given_inputs, object)
    found, expected = (called(model, method, given_inputs, chosen) for model in both)
    if isinstance(expected, Exception):
        assert isinstance(found, ValueError) and isinstance(expected, ValueError), (found, expected)
        return
    assert not isinstance(found, Exception), found
    tokens = chosen.get("output_value") == "token_embeddings"
    precision = chosen.get("precision") or "float32"
    if chosen.get("convert_to_tensor") and not tokens:
        assert isinstance(found, torch.Tensor) and isinstance(expected, torch.Tensor)
    found, expected = arrays(found), arrays(expected)
    scaled_afterwards = chosen.get("normalize_embeddings") and chosen.get("truncate_dim")
    assert_alike(found, expected, both[0].config.normalize and not tokens and not scaled_afterwards)
    if precision != "float32":
        exact = chosen | {"precision": "float32", "convert_to_tensor": False, "convert_to_numpy": True}
        numbers = getattr(both[0], method)(given_inputs, **exact)
        if isinstance(given_inputs, str):
            found, expected, numbers = [found], [expected], [numbers]
        assert_quantized_alike(found, expected, numbers, precision)


@pytest.mark.weights
@pytest.mark.parametrize("prompt", [None, "query: "])
def test_the_features_are_the_same(both: tuple[SentenceEncoder, Any], prompt: str | None) -> None:
    some = ["a", "longer", ""]
    found, expected = (model.encode(some, prompt=prompt, output_value=None, truncate_dim=9) for model in both)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.keys() == theirs.keys()
        T = int(theirs["attention_mask"].sum())  # sentence-transformers pads to the longest text of the batch
        for name, value in theirs.items():
            if not isinstance(value, torch.Tensor):
                assert mine[name] == value, name
            else:
                value = value.numpy() if name == "sentence_embedding" else value.numpy()[:T]
                assert (mine[name].shape, mine[name].dtype) == (value.shape, value.dtype), name
                assert_close(mine[name], value, rel=2e-5, what=name)
    one, two = (model.encode("a", output_value=None) for model in both)
    assert one.keys() == two.keys()


@pytest.mark.weights
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"batch_size": 0}, id="batch size 0"),
        pytest.param({"batch_size": -3}, id="batch size -3"),
        pytest.param({"precision": "float16"}, id="precision"),
        pytest.param({"precision": "int8"}, id="int8 of one text"),
        pytest.param({"prompt_name": "nowhere"}, id="prompt name"),
        pytest.param({"temperature": 1.0}, id="keyword"),
    ],
)
def test_the_same_arguments_are_value_errors(both: tuple[SentenceEncoder, Any], arguments: dict[str, Any]) -> None:
    for model in both:
        with pytest.raises(ValueError, match=r".+"):
            model.encode("a text", **arguments)


@pytest.mark.weights
def test_old_names_do_the_same(both: tuple[SentenceEncoder, Any]) -> None:
    for model in both:
        for method in ("encode", "encode_query", "encode_document"):
            found, expected = getattr(model, method)(sentences=["a"]), getattr(model, method)(["a"])
            assert np.array_equal(found, expected)
        assert model.get_max_seq_length() == model.max_seq_length
    with pytest.warns(FutureWarning, match="renamed"):
        dimension = both[1].get_sentence_embedding_dimension()
    assert both[0].get_sentence_embedding_dimension() == both[0].get_embedding_dimension() == dimension


def test_encode_has_the_parameters_of_sentence_transformers() -> None:
    from sentence_transformers import SentenceTransformer

    for method in ("encode", "save_pretrained"):
        mine, theirs = (inspect.signature(getattr(c, method)) for c in (SentenceEncoder, SentenceTransformer))
        named = [p for p in theirs.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert list(mine.parameters)[: len(named)] == [parameter.name for parameter in named]
        for parameter in named[2:]:  # `inputs` has a default here, because of `sentences`
            assert mine.parameters[parameter.name].default == parameter.default, parameter.name


def test_the_limit_may_be_set(both: tuple[SentenceEncoder, Any]) -> None:
    before = [model.max_seq_length for model in both]
    try:
        for model in both:
            model.max_seq_length = 5
        found, expected = both[0].encode("one two three", on_truncation="ignore"), both[1].encode("one two three")
        assert_close(found, expected, rel=2e-6)
        assert both[0].tokenize(["one two three"])["n_tokens"] == [5]
    finally:
        for model, limit in zip(both, before, strict=True):
            model.max_seq_length = limit


def test_truncation_may_be_set(both: tuple[SentenceEncoder, Any]) -> None:
    for model in both:
        with model.truncate_embeddings(7):
            assert model.get_embedding_dimension() == 7
            assert model.encode("a").shape == (7,)
            assert model.encode("a", truncate_dim=9).shape == (9,)
        assert model.truncate_dim is None


@pytest.mark.parametrize(("level", "shown"), [(logging.WARNING, False), (logging.INFO, True), (logging.DEBUG, True)])
def test_the_bar_is_shown_where_the_logger_shows_info(
    level: int, shown: bool, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = SentenceEncoder.random(backend="numpy")
    with caplog.at_level(level, "minilm_np"):
        encoder.encode(["a", "b"])
    assert ("encode: 100%" in capsys.readouterr().err) is shown
    encoder.encode(["a", "b"], show_progress_bar=not shown)
    assert ("encode: 100%" in capsys.readouterr().err) is not shown
