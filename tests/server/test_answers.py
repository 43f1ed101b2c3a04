"""What the paths answer to valid requests: the vectors have the bits of `SentenceEncoder.encode`."""

import base64
from typing import Any

import numpy as np
import pytest

import minilm_np
from minilm_np import SentenceEncoder
from tests.support.compare import assert_same_bits
from tests.support.server import ask, running

TEXTS = ["a text", "", "naïve 日本 👍", 'quotes " and \\ \t']
OPENAI, EMBED = "/v1/embeddings", "/embed"


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[0], [""], ["a b c"] * 200], ids=["some", "one", "empty", "many"])
def test_vectors_have_the_bits_of_the_encoder(url: str, encoder: SentenceEncoder, texts: Any) -> None:
    expected = np.atleast_2d(encoder.encode(texts))
    answer = ask(url, OPENAI, {"input": texts, "model": "small"})
    assert_same_bits(answer.vectors, expected)
    assert_same_bits(ask(url, EMBED, {"inputs": texts}).vectors, expected)
    items = ask(url, OPENAI, {"input": texts, "encoding_format": "base64"}).json["data"]
    decoded = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in items]
    assert_same_bits(np.array(decoded), expected)


def test_the_response_has_openais_fields(url: str, encoder: SentenceEncoder) -> None:
    found = ask(url, OPENAI, {"input": TEXTS, "model": "small", "user": "someone"}).json
    n_tokens = sum(encoder.tokenize(TEXTS)["n_tokens"])
    assert list(found) == ["object", "data", "model", "usage"]
    assert found["object"] == "list"
    assert found["model"].endswith("small")
    assert found["usage"] == {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    assert [(item["object"], item["index"]) for item in found["data"]] == [("embedding", n) for n in range(len(TEXTS))]


@pytest.mark.parametrize("path", [OPENAI, EMBED])
def test_dimensions_truncate_and_scale_as_the_encoder_does(url: str, encoder: SentenceEncoder, path: str) -> None:
    name = "input" if path == OPENAI else "inputs"
    for d in (1, 5, 8):
        expected = encoder.encode(TEXTS, truncate_dim=d, normalize_embeddings=True)
        assert_same_bits(ask(url, path, {name: TEXTS, "dimensions": d}).vectors, expected)


def test_normalize_false_gives_the_output_of_the_model(url: str, encoder: SentenceEncoder) -> None:
    answer = ask(url, EMBED, {"inputs": TEXTS, "normalize": False, "dimensions": 5})
    assert_same_bits(answer.vectors, encoder.encode(TEXTS, truncate_dim=5))


def test_a_prompt_is_put_before_each_text(url: str, encoder: SentenceEncoder) -> None:
    expected = encoder.encode(TEXTS, prompt_name="query")
    assert_same_bits(ask(url, EMBED, {"inputs": TEXTS, "prompt_name": "query"}).vectors, expected)
    assert_same_bits(ask(url, OPENAI, {"input": TEXTS, "prompt_name": "query"}).vectors, expected)


def test_token_ids_are_used_as_they_are(url: str, encoder: SentenceEncoder) -> None:
    ids = [[int(one) for one in encoder.tokenizer([text]).ids[0]] for text in TEXTS]
    expected = encoder.encode(TEXTS)
    assert_same_bits(ask(url, OPENAI, {"input": ids}).vectors, expected)
    without = [of_text[1:-1] for of_text in ids if len(of_text) > 2]
    assert_same_bits(ask(url, OPENAI, {"input": without}).vectors, expected[[0, 2, 3]])
    assert_same_bits(ask(url, OPENAI, {"input": ids[0]}).vectors, expected[:1])


def test_a_truncated_text_is_its_beginning(url: str, encoder: SentenceEncoder) -> None:
    long = "a " * 100
    expected = encoder.encode([long], on_truncation="ignore")
    assert_same_bits(ask(url, EMBED, {"inputs": [long], "truncate": True}).vectors, expected)
    assert_same_bits(ask(url, OPENAI, {"input": [[5] * 14], "truncate": True}).vectors,
                     ask(url, OPENAI, {"input": [[5] * 99], "truncate": True}).vectors)  # fmt: skip


def test_truncation_as_the_default_of_the_server(encoder: SentenceEncoder) -> None:
    with running(encoder, truncate=True) as url:
        assert ask(url, EMBED, {"inputs": "a " * 100}).status == 200
        assert ask(url, EMBED, {"inputs": "a " * 100, "truncate": False}).status == 413


def test_similarities_are_cosines(url: str, encoder: SentenceEncoder) -> None:
    body = {"inputs": {"source_sentence": TEXTS[0], "sentences": TEXTS}, "parameters": {"truncate": True}}
    found = ask(url, "/similarity", body).json
    vectors = encoder.encode(TEXTS)
    assert found == pytest.approx(vectors @ vectors[0], abs=1e-6)


def test_tokens_and_where_they_stand(url: str, encoder: SentenceEncoder) -> None:
    text = "ab\n日 cd"
    tokens = ask(url, "/tokenize", {"inputs": text}).json[0]
    assert [token["id"] for token in tokens] == encoder.tokenizer([text]).ids[0]
    assert [token["text"] for token in tokens] == ["[CLS]", *"ab日cd", "[SEP]"]
    assert [token["special"] for token in tokens] == [True, *[False] * 5, True]
    assert [(token["start"], token["stop"]) for token in tokens] == [
        (None, None), (0, 1), (1, 2), (3, 4), (5, 6), (6, 7), (None, None),
    ]  # fmt: skip
    bare = ask(url, "/tokenize", {"inputs": [text, ""], "add_special_tokens": False}).json
    assert bare == [tokens[1:-1], []]


def test_the_tokens_of_a_long_text_stand_where_they_are(url: str) -> None:
    text = "ab cd. " * 3000
    tokens = ask(url, "/tokenize", {"inputs": [text]}).json[0]
    assert len(tokens) == 5 * 3000 + 2
    assert all(text[token["start"] : token["stop"]] == token["text"] for token in tokens[1:-1])


def test_the_paths_that_describe_the_server(url: str) -> None:
    assert ask(url, "/health").json == {"status": "ok"}
    info = ask(url, "/info").json
    assert info["version"] == minilm_np.__version__
    assert (info["max_input_length"], info["auto_truncate"]) == (16, False)
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    models = ask(url, "/v1/models").json
    assert models["object"] == "list"
    (model,) = models["data"]
    assert model["object"] == "model"
    assert ask(url, f"/v1/models/{model['id']}").json == model
    assert ask(url, "/v1/models/small").json == model
    assert ask(url, "/v1/models/other").status == 404


def test_metrics_count_requests_texts_and_tokens(encoder: SentenceEncoder) -> None:
    with running(encoder) as url:
        ask(url, EMBED, {"inputs": ["a", "b c"]})
        ask(url, EMBED, {"inputs": 5})
        lines = ask(url, "/metrics").body.decode().splitlines()
    assert 'minilm_np_requests_total{path="/embed",status="200"} 1.0' in lines
    assert 'minilm_np_requests_total{path="/embed",status="422"} 1.0' in lines
    assert "minilm_np_texts_total 2.0" in lines
    assert "minilm_np_tokens_total 7.0" in lines
    assert "minilm_np_queue_tokens 0.0" in lines
