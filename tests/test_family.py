"""Other models of the family: sentence-transformers writes folders with every kind of configuration and random weights.

Both libraries must give the same vectors and read the same settings.
"""

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np import ConfigError, InputTypeError, InputValueError, ModelConfig, SentenceEncoder
from minilm_np.engine.registry import BACKENDS
from minilm_np.model_files.config import POOLING_MODES
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from minilm_np.model_files.settings import FILE, load_settings
from tests.support.compare import assert_close, assert_same_bits

BOUND = 5e-7  # absolute, of a float32 vector of unit length

TEXTS = ["a text", "", "one that is longer than the limit is", "ünïcödé", "[SEP] [PAD]", "query: typed, 12%"]


@dataclass(frozen=True)
class Shape:
    """The configuration of a model of the family, at a small size."""

    layers: int = 2
    heads: int = 2
    hidden: int = 48
    limit: int = 24
    pooling: str = "mean"
    normalize: bool = True
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: Literal["dot", "cosine", "euclidean"] | None = None


BGE = {"query": "Represent this sentence for searching relevant passages: "}
E5 = {"query": "query: ", "passage": "passage: "}

SHAPES = {
    "all-MiniLM-L6-v1": Shape(limit=16),
    "all-MiniLM-L12-v2": Shape(layers=4, limit=16),
    "paraphrase-MiniLM-L3": Shape(layers=1, normalize=False),
    "multi-qa-MiniLM": Shape(limit=40, similarity="dot"),
    "bge-small": Shape(layers=3, pooling="cls", prompts=BGE, limit=90),
    "bge-base": Shape(heads=3, hidden=96, pooling="cls", prompts=BGE, default_prompt_name="query", limit=90),
    "e5-small": Shape(layers=3, prompts=E5),
    "e5-base": Shape(heads=3, hidden=96, prompts=E5 | {"document": "passage: "}, default_prompt_name="passage"),
    "gte-small": Shape(layers=3, normalize=False, limit=90),
    "snowflake-arctic-embed-xs": Shape(pooling="cls", prompts=BGE, similarity="cosine", limit=90),
    "snowflake-arctic-embed-s": Shape(heads=1, hidden=32, pooling="cls", prompts=BGE, normalize=False, limit=90),
    "max, euclidean": Shape(pooling="max", normalize=False, similarity="euclidean"),
}


def write_folder(folder: Path, shape: Shape, seed: int = 1) -> Any:
    """Let sentence-transformers write a small random model over single characters; return its model."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Normalize, Transformer
        from sentence_transformers.sentence_transformer.modules import Pooling

    torch.manual_seed(seed)
    bert = BertConfig(
        vocab_size=200,
        max_position_embeddings=100,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=2 * shape.hidden,
        initializer_range=0.2,
    )
    BertModel(bert).save_pretrained(folder / "bert")
    (folder / "bert" / "vocab.txt").write_text("\n".join(CHARACTER_VOCABULARY))
    BertTokenizer.from_pretrained(str(folder / "bert")).save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert"), max_seq_length=shape.limit), Pooling(shape.hidden, shape.pooling)]
    model = SentenceTransformer(
        modules=modules + [Normalize()] * shape.normalize,
        device="cpu",
        prompts=shape.prompts or None,
        default_prompt_name=shape.default_prompt_name,
        similarity_fn_name=shape.similarity,
    )
    model.save_pretrained(str(folder / "model"))
    return model


@pytest.fixture(scope="module", params=list(SHAPES.values()), ids=list(SHAPES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Shape, Path, Any]:
    folder = tmp_path_factory.mktemp("family")
    model = write_folder(folder, request.param)
    return request.param, folder / "model", model


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_shape_gives_the_vectors_of_sentence_transformers(pair: tuple[Shape, Path, Any], backend: str) -> None:
    shape, folder, model = pair
    encoder = SentenceEncoder(folder, backend=backend)
    assert encoder.config == ModelConfig(
        vocab_size=200, max_position_embeddings=100, hidden_size=shape.hidden, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, intermediate_size=2 * shape.hidden, max_seq_length=shape.limit,
        pooling_mode=shape.pooling, normalize=shape.normalize,
    )  # fmt: skip
    for name in ("encode", "encode_query", "encode_document"):
        found, expected = getattr(encoder, name)(TEXTS, on_truncation="ignore"), getattr(model, name)(TEXTS)
        assert_close(found, expected, rel=2e-6, what=name)
        both = [getattr(each, name)(TEXTS[0], normalize_embeddings=True) for each in (encoder, model)]
        assert_close(*both, abs_=BOUND, what=name)


def test_every_shape_says_the_same_of_its_use(pair: tuple[Shape, Path, Any]) -> None:
    shape, folder, model = pair
    encoder = SentenceEncoder(folder, backend="numpy")
    for name in ("prompts", "default_prompt_name", "similarity_fn_name", "max_seq_length", "truncate_dim"):
        assert getattr(encoder, name) == getattr(model, name), name
    assert encoder.get_embedding_dimension() == model.get_embedding_dimension() == shape.hidden
    vectors = encoder.encode(TEXTS[:2]), encoder.encode(TEXTS[3:5])
    for name in ("similarity", "similarity_pairwise"):
        found, expected = getattr(encoder, name)(*vectors), getattr(model, name)(*vectors)
        assert_close(found, expected.numpy(), abs_=2e-4 if shape.similarity == "euclidean" else 1e-4 * shape.hidden)


@pytest.mark.parametrize("pooling", POOLING_MODES)
def test_every_pooling_gives_the_vectors_of_sentence_transformers(pooling: str, tmp_path: Path) -> None:
    model = write_folder(tmp_path, Shape(pooling=pooling, normalize=False))
    for backend in BACKENDS:
        encoder = SentenceEncoder(tmp_path / "model", backend=backend)
        assert_close(encoder.encode(TEXTS, on_truncation="ignore"), model.encode(TEXTS), rel=2e-6, what=backend)


# ---- prompts ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def e5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("e5")
    write_folder(folder, Shape(prompts=E5))
    return folder / "model"


def test_a_prompt_is_put_before_each_text(e5: Path) -> None:
    encoder = SentenceEncoder(e5)
    texts, prompted = ["a", "b c"], ["query: a", "query: b c"]
    expected = encoder.encode(prompted)
    assert_same_bits(encoder.encode(texts, prompt_name="query"), expected)
    assert_same_bits(encoder.encode(texts, prompt="query: "), expected)
    assert_same_bits(encoder.encode(texts, "passage", "query: "), expected)  # `prompt` has precedence
    assert_same_bits(encoder.encode_query(texts), expected)
    assert_same_bits(encoder.encode_query(texts, prompt=""), encoder.encode(texts))


def test_the_callers_prompts_overrule_the_models(e5: Path) -> None:
    prompts: Any = {"query": "Q ", "topic": None}
    encoder = SentenceEncoder(e5, prompts=prompts, default_prompt_name="query")
    assert encoder.prompts == {"query": "Q ", "document": "", "passage": "passage: ", "topic": ""}
    assert_same_bits(encoder.encode("a"), encoder.encode("Q a", prompt=""))
    assert_same_bits(encoder.encode_document("a"), encoder.encode("a", prompt=""))
    assert encoder.tokenize(["a"], prompt="Q ")["n_tokens"] == [4]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param({"prompts": "query"}, InputTypeError, "prompts: expected a mapping .* found 'query'", id="a str"),
        pytest.param({"prompts": {"query": 1}}, InputTypeError, "found 'query': 1", id="a number"),
        pytest.param({"default_prompt_name": "q"}, InputValueError, "expected one of 'query', .* found 'q'", id="name"),
        pytest.param({"similarity_fn_name": "maxsim"}, InputValueError, "similarity_fn_name: .*'maxsim'", id="maxsim"),
        pytest.param({"truncate_dim": 0}, InputValueError, "truncate_dim: expected an int of at least 1", id="zero"),
        pytest.param({"device": "cuda"}, InputValueError, "device: expected 'cpu' or None, found 'cuda'", id="device"),
        pytest.param({"backend": "torch"}, InputValueError, "backend: expected one of 'numba'", id="backend"),
        pytest.param({"revision": "main"}, InputValueError, "revision: .* `hf download`", id="revision"),
        pytest.param({"token": "hf_x"}, InputValueError, "token: .* set HF_TOKEN", id="token"),
        pytest.param({"trust": True}, InputTypeError, "SentenceEncoder has no argument 'trust'", id="unknown"),
    ],
)
def test_the_constructors_arguments_are_checked(e5: Path, arguments: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        SentenceEncoder(e5, **arguments)


def test_arguments_that_ask_for_nothing_are_accepted(e5: Path) -> None:
    encoder = SentenceEncoder(
        str(e5), device="cpu", trust_remote_code=True, cache_folder=None, revision=None, model_kwargs={}, token=False
    )
    assert encoder.device == "cpu"


# ---- config_sentence_transformers.json -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param(b"{", "expected JSON in UTF-8", id="broken"),
        pytest.param({"default_prompt_name": "topic"}, "default_prompt_name: expected one of 'query', ", id="unknown"),
        pytest.param({"default_prompt_name": ["query"]}, "default_prompt_name: .* found ..query", id="a list"),
        pytest.param({"prompts": ["query: "]}, "prompts: expected a mapping of names to strings", id="no object"),
        pytest.param({"prompts": {"query": 1}}, "prompts: expected Unicode names .*, found .query.: 1", id="a number"),
        pytest.param(
            {"prompts": {"query": "\ud800"}}, "prompts: expected Unicode names and strings", id="a lone surrogate"
        ),
        pytest.param({"similarity_fn_name": "maxsim"}, "similarity_fn_name 'maxsim' is not implemented", id="maxsim"),
        pytest.param({"model_type": "SparseEncoder"}, "model_type 'SparseEncoder' is not implemented", id="sparse"),
        pytest.param({"truncate_dim": -1}, "truncate_dim: expected an integer of at least 1, or null", id="dim"),
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path: Path, values: Any, message: str) -> None:
    (tmp_path / FILE).write_bytes(values if isinstance(values, bytes) else json.dumps(values).encode())
    with pytest.raises(ConfigError, match=f"{FILE}.*{message}"):
        load_settings(tmp_path)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["query", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
KEYS = ["prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim", "model_type", "__version__"]


@settings(max_examples=200)
@given(values=st.dictionaries(st.sampled_from(KEYS), JSON))
def test_any_json_is_understood_or_refused(tmp_path_factory: pytest.TempPathFactory, values: Any) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / FILE).write_text(json.dumps(values))
    try:
        found = load_settings(folder)
    except ConfigError:
        return
    assert all(isinstance(text, str) for text in found.prompts.values())
    assert found.default_prompt_name is None or found.default_prompt_name in found.prompts
