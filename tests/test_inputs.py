"""Everything that users pass where texts are expected, at every entrance of the package: accepted, or refused alike."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minilm_np import InputTypeError, ModelConfig, SentenceEncoder, util
from minilm_np.trace import Trace
from tests.support.compare import assert_same_bits
from tests.support.inputs import ACCEPTED, ACCEPTED_ONCE, REFUSED, TEXTS

Entrance = Callable[[SentenceEncoder, Any], Any]


def _vectorize(encoder: SentenceEncoder, texts: Any) -> Any:
    from minilm_np.integrations.scikit_learn import SentenceVectorizer

    return SentenceVectorizer(str(encoder.model_path), backend="numpy").fit_transform(texts)


def _langchain(encoder: SentenceEncoder, texts: Any) -> Any:
    from minilm_np.integrations.langchain import MiniLMEmbeddings

    found = MiniLMEmbeddings(str(encoder.model_path), backend="numpy").embed_documents(texts)
    return np.array(found, np.float32)


def _chroma(encoder: SentenceEncoder, texts: Any) -> Any:
    from minilm_np.integrations.chroma import MiniLMEmbeddingFunction

    return np.array(MiniLMEmbeddingFunction(str(encoder.model_path), backend="numpy")(texts))


def _traced(encoder: SentenceEncoder, texts: Any) -> Any:
    traces: list[Trace] = encoder.trace(texts)
    return np.array([list(trace.arrays.values())[-1] for trace in traces])


VECTORS: dict[str, Entrance] = {  # each returns the vectors of `encode`, on this model without prompts
    "encode": lambda encoder, texts: encoder.encode(texts),
    "encode_query": lambda encoder, texts: encoder.encode_query(texts),
    "encode_document": lambda encoder, texts: encoder.encode_document(texts),
    "encode_iter": lambda encoder, texts: np.array(list(encoder.encode_iter(texts))),
    "SentenceVectorizer": _vectorize,
    "MiniLMEmbeddings": _langchain,
    "MiniLMEmbeddingFunction": _chroma,
}
OTHERS: dict[str, Entrance] = {
    "encode_long": lambda encoder, texts: encoder.encode_long(texts),
    "tokenize": lambda encoder, texts: encoder.tokenize(texts)["input_ids"],
    "tokenizer": lambda encoder, texts: encoder.tokenizer(texts if type(texts) is not list else tuple(texts)).n_tokens,
    "tokenize_report": lambda encoder, texts: encoder.tokenize_report(texts),
    "trace": _traced,
    "paraphrase_mining": lambda encoder, texts: util.paraphrase_mining(encoder, texts),
}
ENTRANCES = VECTORS | OTHERS
ONE_OR_MANY = {"encode", "encode_query", "encode_document", "encode_long", "trace", "paraphrase_mining"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SentenceEncoder:
    folder = tmp_path_factory.mktemp("model") / "model"
    sizes = ModelConfig(
        vocab_size=200, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    SentenceEncoder.random(sizes, backend="numpy").save_pretrained(folder)
    return SentenceEncoder(folder, backend="numpy")


@pytest.mark.parametrize("entrance", VECTORS)
@pytest.mark.parametrize("kind", ACCEPTED | ACCEPTED_ONCE)
def test_every_kind_of_texts_has_the_vectors_of_a_list(encoder: SentenceEncoder, entrance: str, kind: str) -> None:
    if entrance == "SentenceVectorizer" and kind in ACCEPTED_ONCE:
        with pytest.raises(
            InputTypeError, match=r"^X: expected texts that can be read twice, found .*: pass list\(X\)$"
        ):
            ENTRANCES[entrance](encoder, ACCEPTED_ONCE[kind]())
        return
    texts = (ACCEPTED | ACCEPTED_ONCE)[kind]()
    assert_same_bits(ENTRANCES[entrance](encoder, texts), encoder.encode(TEXTS))


@pytest.mark.parametrize("entrance", OTHERS)
@pytest.mark.parametrize("kind", ACCEPTED | ACCEPTED_ONCE)
def test_every_kind_of_texts_has_the_result_of_a_list(encoder: SentenceEncoder, entrance: str, kind: str) -> None:
    found = ENTRANCES[entrance](encoder, (ACCEPTED | ACCEPTED_ONCE)[kind]())
    np.testing.assert_array_equal(found, ENTRANCES[entrance](encoder, TEXTS))


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("kind", REFUSED)
def test_everything_else_is_refused_with_the_same_words(encoder: SentenceEncoder, entrance: str, kind: str) -> None:
    make, message = REFUSED[kind]
    with pytest.raises(InputTypeError, match=message):
        ENTRANCES[entrance](encoder, make())


@pytest.mark.parametrize("entrance", sorted(ENTRANCES.keys() - ONE_OR_MANY))
def test_a_str_is_not_several_texts(encoder: SentenceEncoder, entrance: str) -> None:
    with pytest.raises(InputTypeError, match=r"expected a list, .*, found str: pass \[text\] for a single text$"):
        ENTRANCES[entrance](encoder, "hi there")


def test_a_query_is_one_text(encoder: SentenceEncoder) -> None:
    from minilm_np.integrations.langchain import MiniLMEmbeddings

    embeddings = MiniLMEmbeddings(str(encoder.model_path), backend="numpy")
    with pytest.raises(InputTypeError, match=r"^text: expected a str, found list: use embed_documents for several$"):
        embeddings.embed_query(["one"])  # type: ignore[arg-type]


def test_a_stream_of_a_column_is_read_a_batch_at_a_time(encoder: SentenceEncoder) -> None:
    import pyarrow

    column = pyarrow.chunked_array([["one", "two"], [None]])
    stream = encoder.encode_iter(column, batch_size=2)
    assert len([next(stream), next(stream)]) == 2
    with pytest.raises(InputTypeError, match=r"^text 2: expected a str, found NoneType 'None'"):
        next(stream)
