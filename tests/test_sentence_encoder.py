"""The public class, from text to vector: against sentence-transformers live, and against golden vectors."""

import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np import (
    ConfigError,
    InputTypeError,
    InputValueError,
    MiniLMError,
    MissingExtraError,
    ModelConfig,
    NonFiniteError,
    SentenceEncoder,
    TruncationWarning,
)
from minilm_np.model_files.checkpoint import write_checkpoint
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from minilm_np.sentence_encoder import BACKENDS
from tests.conftest import load_sentence_transformer
from tests.golden import make
from tests.support.compare import assert_close, assert_same_bits

BOUND = 5e-7  # absolute, of a float32 vector of unit length

SMALL_SENTENCES = st.lists(st.text(max_size=40), min_size=1, max_size=5)


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def published(model_folder: Path, backend: str) -> SentenceEncoder:
    return SentenceEncoder(model_folder, backend=backend)


# ---- the published model ---------------------------------------------------------------------------------------------


@pytest.mark.weights
def test_the_golden_vectors_are_reproduced(published: SentenceEncoder) -> None:
    records = json.loads(make.PATH.read_text(encoding="utf-8"))
    texts = [record["text"] for record in records]
    assert texts == make.TEXTS
    assert published.tokenize(texts)["n_tokens"] == [record["n_tokens"] for record in records]
    vectors = published.encode(texts, on_truncation="ignore")
    assert_close(vectors, np.array([record["embedding"] for record in records]), abs_=BOUND)


@pytest.mark.weights
def test_the_published_figures_are_reproduced(published: SentenceEncoder) -> None:
    first = published.encode("This is an example sentence")[:5]
    assert_close(first, np.array([0.0676569, 0.0634959, 0.0487131, 0.0793050, 0.0374481]), abs_=BOUND)
    weather = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    cosines = published.encode(weather) @ published.encode(weather).T
    assert_close(cosines[np.triu_indices(3, 1)], np.array([0.6660, 0.1046, 0.1411]), abs_=1e-4)


@pytest.mark.weights
@given(SMALL_SENTENCES)
@settings(max_examples=25)
def test_any_text_has_the_vector_of_sentence_transformers(
    published: SentenceEncoder, sentence_transformer: Any, texts: list[str]
) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    assert_close(published.encode(texts), sentence_transformer.encode(texts), abs_=BOUND)


@pytest.mark.weights
def test_a_long_text_has_the_vector_of_sentence_transformers(
    published: SentenceEncoder, sentence_transformer: Any
) -> None:
    texts = ["word " * 253 + "one two three", "short", "long! " * 9000, "x" * 5000]
    vectors = published.encode(texts, on_truncation="ignore")
    assert_close(vectors, sentence_transformer.encode(texts), abs_=BOUND)
    assert published.tokenize(texts)["truncated"] == [True, False, True, False]


@pytest.mark.weights
def test_a_folder_written_by_the_installed_sentence_transformers_loads_alike(
    published: SentenceEncoder, sentence_transformer: Any, tmp_path: Path
) -> None:
    sentence_transformer.save_pretrained(str(tmp_path))
    encoder = SentenceEncoder(tmp_path, backend=published.backend)
    assert encoder.config == published.config
    texts = [text[:300] for text in make.TEXTS]
    assert_same_bits(encoder.encode(texts), published.encode(texts))


@pytest.mark.weights
def test_a_limit_of_128_cuts_at_128_and_the_published_256_at_256(
    published: SentenceEncoder, model_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "v1"))
    folder.joinpath("sentence_bert_config.json").write_text('{"max_seq_length": 128, "do_lower_case": false}')
    v1 = SentenceEncoder(folder, backend=published.backend)
    texts = ["a " * 126, "a " * 127, "a " * 254, "a " * 255]
    assert (v1.max_seq_length, published.max_seq_length) == (128, 256)
    cut_128, cut_256 = v1.tokenize(texts), published.tokenize(texts)
    assert (cut_128["n_tokens"], cut_128["truncated"]) == ([128] * 4, [False, True, True, True])
    assert (cut_256["n_tokens"], cut_256["truncated"]) == ([128, 129, 256, 256], [False, False, False, True])
    oracle = load_sentence_transformer(folder)
    assert_close(v1.encode(texts, on_truncation="ignore"), oracle.encode(texts), abs_=BOUND)


@pytest.mark.weights
def test_what_the_model_sees_is_what_torch_would_see(published: SentenceEncoder, sentence_transformer: Any) -> None:
    texts = ["a text", "", "another, longer text"]
    found = published.tokenize(texts)
    expected = sentence_transformer.tokenizer(texts, padding=True, return_tensors="np")
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        assert_same_bits(found[name], expected[name], name)


# ---- the class, on a random model ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder(backend: str) -> SentenceEncoder:
    return SentenceEncoder.random(backend=backend)


def test_one_text_has_one_vector_and_n_texts_have_n(encoder: SentenceEncoder) -> None:
    one, two = encoder.encode("a text"), encoder.encode(["a text", "another"])
    dimension = encoder.get_sentence_embedding_dimension()
    assert (one.shape, two.shape) == ((dimension,), (2, dimension))
    assert one.dtype == two.dtype == np.float32
    assert_close(one, two[0], abs_=BOUND)
    assert_close(np.linalg.norm(two, axis=1), np.ones(2), abs_=BOUND)


def test_no_texts_have_no_vectors(encoder: SentenceEncoder) -> None:
    assert_same_bits(encoder.encode([]), np.empty((0, encoder.get_sentence_embedding_dimension()), np.float32))
    assert encoder.tokenize([])["input_ids"].shape == (0, 0)


def test_the_empty_text_has_an_ordinary_vector(encoder: SentenceEncoder) -> None:
    assert encoder.tokenize([""])["n_tokens"] == [2]
    assert_close(np.linalg.norm(encoder.encode("")), np.float32(1), abs_=BOUND)


@given(SMALL_SENTENCES, st.integers(1, 7), st.randoms(use_true_random=False))
def test_order_and_batches_do_not_matter(
    encoder: SentenceEncoder, texts: list[str], batch_size: int, random: Any
) -> None:
    expected = np.array([encoder.encode(text) for text in texts])
    order = list(range(len(texts)))
    random.shuffle(order)
    found = encoder.encode([texts[row] for row in order], batch_size=batch_size)
    assert_close(found, expected[order], abs_=BOUND)


@pytest.mark.parametrize("container", [list, tuple, np.array])
def test_any_sequence_of_texts_will_do(encoder: SentenceEncoder, container: Any) -> None:
    assert_close(encoder.encode(container(["one", "two"])), encoder.encode(["one", "two"]), abs_=0.0)


def test_a_list_of_two_texts_is_not_a_pair(encoder: SentenceEncoder) -> None:
    assert encoder.tokenize(["one", "two"])["n_tokens"] == [5, 5]


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        pytest.param(b"bytes", InputTypeError, "texts: expected a str or a sequence of str, found bytes", id="bytes"),
        pytest.param(7, InputTypeError, "found int", id="a number"),
        pytest.param(None, InputTypeError, "found NoneType", id="None"),
        pytest.param({"a": 1}, InputTypeError, "found dict", id="a dict"),
        pytest.param(["one", b"two"], InputTypeError, "text 1: .* found bytes .*decode", id="bytes inside"),
        pytest.param(["one", ["two", "three"]], InputTypeError, "text 1: .* found list", id="a pair inside"),
        pytest.param(
            ["a", "b\ud800"], InputValueError, r"text 1: the lone surrogate U\+D800 at character 1", id="lone"
        ),
    ],
)
def test_what_is_no_text_is_named(encoder: SentenceEncoder, texts: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        encoder.encode(texts)


@pytest.mark.parametrize(
    ("batch_size", "error"),
    [
        (0, InputValueError),
        (-1, InputValueError),
        (True, InputTypeError),
        (1.5, InputTypeError),
        ("8", InputTypeError),
    ],
)
def test_a_batch_size_is_a_number_of_texts(encoder: SentenceEncoder, batch_size: Any, error: type) -> None:
    with pytest.raises(error, match="batch_size"):
        encoder.encode("a text", batch_size=batch_size)


def test_normalize_embeddings_scales_what_the_model_leaves(backend: str) -> None:
    config = ModelConfig(vocab_size=200, hidden_size=32, num_hidden_layers=1, intermediate_size=64,
                         num_attention_heads=2, normalize=False)  # fmt: skip
    encoder = SentenceEncoder.random(config, backend=backend)
    left, scaled = encoder.encode("a text"), encoder.encode("a text", normalize_embeddings=True)
    assert not np.isclose(np.linalg.norm(left), 1.0)
    assert_close(scaled, left / np.linalg.norm(left), abs_=BOUND)


def test_a_seed_is_a_model() -> None:
    text = "the same text"
    assert_same_bits(SentenceEncoder.random(seed=3).encode(text), SentenceEncoder.random(seed=3).encode(text))
    assert not np.allclose(SentenceEncoder.random(seed=3).encode(text), SentenceEncoder.random(seed=4).encode(text))


def test_a_vocabulary_that_is_too_small_is_refused() -> None:
    with pytest.raises(ConfigError, match="vocab_size 50: expected at least"):
        SentenceEncoder.random(ModelConfig(vocab_size=50))


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(InputValueError, match=r"backend: expected one of .*'numpy'.*, found 'cuda'"):
        SentenceEncoder.random(backend="cuda")


def test_a_model_pickles(encoder: SentenceEncoder) -> None:
    again = pickle.loads(pickle.dumps(encoder))
    assert_same_bits(again.encode(["a text", ""]), encoder.encode(["a text", ""]))
    assert (again.config, again.model_path, again.backend) == (encoder.config, None, encoder.backend)


@pytest.mark.weights
def test_a_loaded_model_pickles(published: SentenceEncoder) -> None:
    again = pickle.loads(pickle.dumps(published))
    assert_same_bits(again.encode("a text"), published.encode("a text"))
    assert again.model_path == published.model_path


def test_threads_may_share_a_model(encoder: SentenceEncoder) -> None:
    texts = [f"text number {number} " * (number % 7) for number in range(40)]
    expected = [encoder.encode(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        for found, one in zip(pool.map(encoder.encode, texts), expected, strict=True):
            assert_same_bits(found, one)


def test_a_vector_that_is_not_finite_is_an_error(backend: str) -> None:
    state = SentenceEncoder.random(backend=backend).__getstate__()
    name = "encoder.layer.0.intermediate.dense.weight"
    state["weights"] = state["weights"] | {name: np.full_like(state["weights"][name], 3e38)}
    broken = SentenceEncoder.__new__(SentenceEncoder)
    broken.__setstate__(state)
    with pytest.raises(NonFiniteError, match="text 0: its vector is not finite"):
        broken.encode(["a text", "another"])


def test_a_folder_round_trips_through_files(encoder: SentenceEncoder, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model.safetensors", encoder.weights)
    sizes = ("vocab_size", "max_position_embeddings", "type_vocab_size", "hidden_size", "num_hidden_layers")
    config = {name: getattr(encoder.config, name) for name in (*sizes, "num_attention_heads", "intermediate_size")}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
    (tmp_path / "vocab.txt").write_text("\n".join(CHARACTER_VOCABULARY))
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    (tmp_path / "modules.json").write_text(
        json.dumps([{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in modules])
    )
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    loaded = SentenceEncoder(tmp_path, backend=encoder.backend)
    assert loaded.model_path == str(tmp_path)
    assert_same_bits(loaded.encode("a text"), encoder.encode("a text"))


def test_every_error_of_the_package_has_one_base() -> None:
    with pytest.raises(MiniLMError, match="/no/such/folder: no such folder"):
        SentenceEncoder("/no/such/folder")


# ---- texts beyond the limit ------------------------------------------------------------------------------------------

LONG = "abc " * 60  # 180 tokens of the random model, whose limit is 128


def test_one_warning_says_what_is_cut_and_what_to_do(encoder: SentenceEncoder) -> None:
    texts = ["short", LONG, "x", LONG + "x" * 100, LONG]
    with pytest.warns(TruncationWarning) as caught:
        warned = encoder.encode(texts)
    assert [warning.filename for warning in caught] == [__file__]
    assert str(caught[0].message) == (
        "3 of 5 texts were truncated to 128 tokens; the longest, text 3, has 340 "
        "characters. Use encode_long for texts of any length, tokenize_report to see what is truncated, or "
        "on_truncation='ignore'"
    )
    assert_same_bits(warned, encoder.encode(texts, on_truncation="ignore"))


def test_a_limit_that_can_be_raised_is_named(encoder: SentenceEncoder) -> None:
    lower = pickle.loads(pickle.dumps(encoder))
    lower.max_seq_length = 5
    with pytest.warns(TruncationWarning, match=r"1 of 1 text was truncated to 5 tokens.*of up to 128"):
        lower.encode_query("abcdef")
    assert encoder.max_seq_length == 128


def test_more_texts_than_a_slice_are_one_warning(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilm_np._pipeline.SLICE", 2)
    texts = [LONG, "a", LONG, "b", LONG + "x"]
    with pytest.warns(TruncationWarning, match="3 of 5 texts .* text 4, has 241") as caught:
        vectors = encoder.encode(texts)
    assert len(caught) == 1
    assert_close(vectors, np.array([encoder.encode(text, on_truncation="ignore") for text in texts]), abs_=BOUND)
    with pytest.raises(
        InputValueError, match=r"text 2: with 240 characters it is longer than the limit of 128 tokens\. Use"
    ):
        encoder.encode(["a", "b", LONG], on_truncation="error")


def test_an_unknown_action_is_refused(encoder: SentenceEncoder) -> None:
    with pytest.raises(InputValueError, match="on_truncation: expected one of 'ignore', 'warn', 'error', found 'cut'"):
        encoder.encode("a", on_truncation="cut")


def test_the_report_says_what_is_read(encoder: SentenceEncoder) -> None:
    report = encoder.tokenize_report(["abc", "", LONG, "a" + LONG * 100])
    assert report[0] == (3, 3, 5, 5, False)
    assert report[1] == (0, 0, 2, 2, False)
    assert report[2] == (240, 167, 182, 128, True)  # 126 tokens are 42 words of 3 characters and the 41 spaces between
    assert report[2]._fields == ("n_characters", "n_characters_used", "n_tokens", "n_tokens_used", "truncated")
    assert report[3] == (24001, 167, 18003, 128, True)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=200), st.integers(2, 128), st.sampled_from(["", "q "])
)
@settings(max_examples=50)
def test_what_is_read_has_the_vector_of_the_whole(text: str, limit: int, prompt: str) -> None:
    encoder = SentenceEncoder.random(backend="numpy")
    encoder.max_seq_length = limit
    (report,) = encoder.tokenize_report([text], prompt=prompt)
    ids = encoder.tokenizer([prompt + text])
    assert (report.n_tokens_used, report.truncated) == (ids.n_tokens[0], ids.truncated[0])
    assert encoder.tokenizer([prompt + text[: report.n_characters_used]]).ids[0][: limit - 1] == ids.ids[0][: limit - 1]


@pytest.mark.parametrize(
    ("limit", "error", "message"),
    [
        (1, InputValueError, "max_seq_length: expected an int from 2 to 128, found 1; the model has 128 positions"),
        (129, InputValueError, "from 2 to 128"),
        (None, InputTypeError, "max_seq_length: expected an int, found NoneType"),
    ],
)
def test_a_limit_has_positions(encoder: SentenceEncoder, limit: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        encoder.max_seq_length = limit
    assert encoder.max_seq_length == 128


# ---- streams ---------------------------------------------------------------------------------------------------------


def test_a_stream_has_the_vectors_of_a_list(encoder: SentenceEncoder) -> None:
    texts = [f"text {number}" for number in range(23)]
    found = list(
        encoder.encode_iter(iter(texts), batch_size=5, truncate_dim=9, prompt="q: ", normalize_embeddings=True)
    )
    expected = encoder.encode(texts, prompt="q: ", truncate_dim=9, normalize_embeddings=True)
    assert_close(np.array(found), expected, abs_=BOUND)
    assert list(encoder.encode_iter([])) == []


def test_an_endless_stream_is_read_a_batch_at_a_time(encoder: SentenceEncoder) -> None:
    read = []
    stream = encoder.encode_iter(
        (read.append(number) or f"text {number}" for number in itertools.count()), batch_size=4
    )
    assert read == []
    first = next(stream)
    assert read == [0, 1, 2, 3]
    for _ in range(4):
        next(stream)
    assert len(read) == 8
    assert_close(first, encoder.encode("text 0"), abs_=BOUND)


def test_a_stream_names_the_item(encoder: SentenceEncoder) -> None:
    stream = encoder.encode_iter(["a", "b", "c", 7, "d"], batch_size=2)
    assert len([next(stream), next(stream)]) == 2
    with pytest.raises(InputTypeError, match="text 3: expected a str, found int '7'"):
        next(stream)
    cut = encoder.encode_iter(["a", "b", LONG], batch_size=1, on_truncation="error")
    assert len([next(cut), next(cut)]) == 2
    with pytest.raises(InputValueError, match="text 2: with 240 characters"):
        next(cut)


def test_a_stream_warns_once(encoder: SentenceEncoder) -> None:
    with pytest.warns(TruncationWarning, match="1 of the first 4 texts was truncated .* text 2, has 240") as caught:
        assert len(list(encoder.encode_iter(["a", "b", LONG, LONG[:9], LONG, LONG], batch_size=2))) == 6
    assert [warning.filename for warning in caught] == [__file__]


def test_a_streams_arguments_are_checked_at_once(encoder: SentenceEncoder) -> None:
    with pytest.raises(InputTypeError, match="texts: expected an iterable of str, found str"):
        encoder.encode_iter("a text")
    with pytest.raises(InputValueError, match="batch_size"):
        encoder.encode_iter(["a"], batch_size=0)
    with pytest.raises(InputValueError, match="prompt_name: expected one of 'query', 'document', found 'q'"):
        encoder.encode_iter(["a"], prompt_name="q")


# ---- what else a call may ask for ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"device": "cuda:0"}, InputValueError, "device: expected 'cpu' or None, found 'cuda:0'"),
        ({"device": ["cpu", "cpu"]}, InputValueError, r"device: expected 'cpu' or None, found \['cpu', 'cpu'\]"),
        ({"pool": {}}, InputValueError, "pool: expected None, found {}: one process already uses all CPUs"),
        ({"chunk_size": 10}, InputValueError, "chunk_size: expected None, found 10"),
        ({"output_value": "logits"}, InputValueError, "output_value: expected one of 'sentence_embedding', "),
        ({"precision": "float16"}, InputValueError, "precision: expected one of 'float32', .* found 'float16'"),
        (
            {"precision": "int8", "output_value": None},
            InputValueError,
            "precision: expected 'float32' with output_value",
        ),
        ({"truncate_dim": 0}, InputValueError, "truncate_dim: expected an int of at least 1 or None, found 0"),
        ({"truncate_dim": "9"}, InputTypeError, "truncate_dim: expected an int or None, found str"),
        ({"prompt": 1}, InputTypeError, "prompt: expected a str or None, found int"),
        ({"prompt": "\ud800"}, InputValueError, "prompt: .*lone surrogate"),
        ({"prompt_name": ["query"]}, InputValueError, "prompt_name: expected one of 'query', 'document'"),
        ({"processing_kwargs": {"text": {}}}, InputValueError, "processing_kwargs: expected None; set max_seq_length"),
        ({"temperature": 1}, InputValueError, "encode has no argument 'temperature'"),
    ],
)
def test_what_is_not_done_is_refused(
    encoder: SentenceEncoder, arguments: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        encoder.encode(["a text", "another"], **arguments)


def test_no_texts_have_no_vectors_in_any_precision(encoder: SentenceEncoder) -> None:
    for precision, width, dtype in (("int8", 96, np.int8), ("uint8", 96, np.uint8), ("ubinary", 12, np.uint8)):
        assert_same_bits(encoder.encode([], precision=precision), np.empty((0, width), dtype))
    assert encoder.encode([], output_value="token_embeddings") == encoder.encode([], output_value=None) == []


def test_vectors_are_a_list_or_tensors_where_asked_for(encoder: SentenceEncoder) -> None:
    import torch

    expected = encoder.encode(["a", "b"])
    listed = encoder.encode(["a", "b"], convert_to_numpy=False)
    assert isinstance(listed, list)
    assert_same_bits(np.array(listed), expected)
    tensors = encoder.encode(["a", "b"], convert_to_tensor=True)
    assert isinstance(tensors, torch.Tensor)
    assert_same_bits(tensors.numpy(), expected)
    features = encoder.encode("a", output_value=None, convert_to_tensor=True)
    assert all(isinstance(value, torch.Tensor) for name, value in features.items() if name != "modality")


def test_tensors_need_torch(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"convert_to_tensor=True needs torch, .*`pip install torch`"):
        encoder.encode("a", convert_to_tensor=True)


def test_truncated_vectors_are_the_first_numbers(encoder: SentenceEncoder) -> None:
    whole = encoder.encode(["a", "b c", ""])
    short = encoder.encode(["a", "b c", ""], truncate_dim=10)
    assert_close(short, whole[:, :10], abs_=0.0)
    scaled = encoder.encode(["a", "b c", ""], truncate_dim=10, normalize_embeddings=True)
    assert_close(scaled, short / np.linalg.norm(short, axis=1, keepdims=True), abs_=BOUND)
    if encoder.backend == "numba":
        assert_same_bits(encoder.encode("b c", truncate_dim=10, normalize_embeddings=True), scaled[1])


def test_token_vectors_pool_to_the_text_vector(encoder: SentenceEncoder) -> None:
    texts = ["a text", "", "another, longer text"]
    for x, vector in zip(encoder.encode(texts, output_value="token_embeddings"), encoder.encode(texts), strict=True):
        mean = x.mean(axis=0)
        assert_close(mean / np.linalg.norm(mean), vector, abs_=BOUND)


def test_token_vectors_that_are_not_finite_are_an_error(backend: str) -> None:
    state = SentenceEncoder.random(backend=backend).__getstate__()
    name = "encoder.layer.0.intermediate.dense.weight"
    state["weights"] = state["weights"] | {name: np.full_like(state["weights"][name], 3e38)}
    broken = SentenceEncoder.__new__(SentenceEncoder)
    broken.__setstate__(state)
    with pytest.raises(NonFiniteError, match="text 0: its vector is not finite"):
        broken.encode(["a text", "another"], output_value="token_embeddings")


def test_what_is_set_is_pickled(encoder: SentenceEncoder) -> None:
    copy = pickle.loads(pickle.dumps(encoder))
    copy.prompts["query"], copy.truncate_dim, copy.similarity_fn_name, copy.max_seq_length = "q: ", 9, "dot", 7
    again = pickle.loads(pickle.dumps(copy))
    assert (again.prompts, again.truncate_dim) == ({"query": "q: ", "document": ""}, 9)
    assert (again.similarity_fn_name, again.max_seq_length) == ("dot", 7)
    assert encoder.prompts == {"query": "", "document": ""}


def test_the_fingerprint_is_the_models_whatever_is_set() -> None:
    encoder = SentenceEncoder.random(threads=1)
    expected = encoder.fingerprint()
    encoder.truncate_dim, encoder.default_prompt_name, encoder.prompts["query"] = 7, "query", "q: "
    assert encoder.fingerprint() == expected


# ---- no network ------------------------------------------------------------------------------------------------------

CONNECTS_NOWHERE = """
import os, sys
FORBIDDEN = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "subprocess.Popen")
def look(event, arguments):
    if event in FORBIDDEN:
        os.write(2, f"{event} {arguments}".encode())
        os._exit(3)
sys.addaudithook(look)
from minilm_np import HubError, SentenceEncoder
"""


def run_without_network(code: str, **environment: str) -> str:
    """Run code in a process that ends as soon as it connects, looks a name up or starts another process."""
    done = subprocess.run(
        [sys.executable, "-c", CONNECTS_NOWHERE + code], capture_output=True, text=True, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_connection_would_be_seen() -> None:
    with pytest.raises(AssertionError, match="socket"):
        run_without_network("import socket; socket.create_connection(('127.0.0.1', 9))")


@pytest.mark.weights
def test_a_model_on_this_machine_is_loaded_without_a_connection(model_folder: Path) -> None:
    code = "print(SentenceEncoder({!r}, backend='numpy').encode('a').shape)"
    for name in (str(model_folder), "all-MiniLM-L6-v2"):
        assert run_without_network(code.format(name)) == "(384,)\n"


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ("local_files_only=True", {}, "nothing fetched: local_files_only is set"),
        ("", {"HF_HUB_OFFLINE": "1"}, "nothing fetched: HF_HUB_OFFLINE is set"),
    ],
)
def test_offline_is_honoured(arguments: str, environment: dict[str, str], message: str, tmp_path: Path) -> None:
    code = f"""
try:
    SentenceEncoder("sentence-transformers/not-here", {arguments})
except HubError as error:
    print(error)
"""
    empty = {"HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path), "MINILM_NP_CACHE": str(tmp_path)}
    assert message in run_without_network(code, **empty, **environment)
