"""Bodies that are refused, by both APIs: each error says where, what was expected and what was found."""

from typing import Any

import pytest

from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from tests.support.server import Answer, ask

OPENAI, EMBED, SIMILARITY, TOKENIZE = "/v1/embeddings", "/embed", "/similarity", "/tokenize"
FORMAT = "encoding_format"


def message_of(answer: Answer, path: str) -> str:
    """The message of an error, after a check of its shape."""
    assert answer.headers["content-type"] == "application/json"
    found = answer.json
    if path.startswith("/v1"):
        assert list(found) == ["error"]
        assert list(found["error"]) == ["message", "type", "param", "code"]
        return str(found["error"]["message"])
    assert list(found) == ["error", "error_type"]
    return str(found["error"])


@pytest.mark.parametrize("path", [OPENAI, EMBED, SIMILARITY, TOKENIZE])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"input": NaN}',
        b'{"inputs": Infinity}',
        b'{"input": "\xff"}',
        b'{"input": "\\ud800"}',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 5000,
        b'{"input": "a"} x',
    ],
    ids=["empty", "cut", "NaN", "Infinity", "UTF-8", "surrogate", "BOM", "deep", "deep objects", "rest"],
)
def test_a_body_that_is_not_json(url: str, path: str, body: bytes) -> None:
    answer = ask(url, path, body)
    assert answer.status == 400
    assert message_of(answer, path).startswith("the body is not valid JSON in UTF-8: ")


@pytest.mark.parametrize(
    ("path", "body", "message", "param"),
    [
        (OPENAI, [], "the body: expected an object, found an array", None),
        (OPENAI, 1, "the body: expected an object, found an integer", None),
        (OPENAI, {}, "input: this field is required", "input"),
        (OPENAI, {"input": None}, "input: this field is required", "input"),
        (OPENAI, {"input": []}, "input: expected at least one text, found an empty array", "input"),
        (OPENAI, {"input": [[]]}, "input[0]: expected at least one token id, found an empty array", "input"),
        (OPENAI, {"input": 1}, "input: expected a string, an array of strings, or token ids, found 1", "input"),
        (OPENAI, {"input": {}}, "input: expected a string, an array of strings, or token ids, found", "input"),
        (OPENAI, {"input": ["a", 1]}, "input[1]: expected a string, found 1", "input"),
        (OPENAI, {"input": ["a", None]}, "input[1]: expected a string, found null", "input"),
        (OPENAI, {"input": [1, "a"]}, "input[1]: expected a token id, found 'a'", "input"),
        (OPENAI, {"input": [True]}, "input[0]: expected a token id, found True", "input"),
        (OPENAI, {"input": [1.5]}, "input[0]: expected a token id, found 1.5", "input"),
        (OPENAI, {"input": [10**30]}, "input[0]: expected a token id, found 1e+30", "input"),
        (OPENAI, {"input": [[1], 1]}, "input[1]: expected an array of token ids, as the items before it, ", "input"),
        (OPENAI, {"input": "a", "dimensions": 0}, "dimensions: expected an integer of at least 1, ", "dimensions"),
        (OPENAI, {"input": "a", "dimensions": 9}, "dimensions: expected an integer from 1 to 8, found 9", "dimensions"),
        (OPENAI, {"input": "a", "dimensions": True}, "dimensions: expected an integer, found True", "dimensions"),
        (OPENAI, {"input": "a", "dimensions": "8"}, "dimensions: expected an integer, found '8'", "dimensions"),
        (OPENAI, {"input": "a", "encoding_format": "x"}, f"{FORMAT}: expected 'float' or 'base64', found 'x'", FORMAT),
        (OPENAI, {"input": "a", "encoding_format": []}, f"{FORMAT}: expected 'float' or 'base64', found an", FORMAT),
        (OPENAI, {"input": "a", "model": 1}, "model: expected a string, found 1", "model"),
        (OPENAI, {"input": "a", "user": 1}, "user: expected a string, found 1", "user"),
        (OPENAI, {"input": "a", "truncate": 1}, "truncate: expected true or false, found 1", "truncate"),
        (OPENAI, {"input": "a", "prompt_name": "x"}, "prompt_name: expected one of 'query', 'doc", "prompt_name"),
        (OPENAI, {"input": "a", "normalise": 1}, "normalise: unknown field: expected one of input, ", "normalise"),
        (OPENAI, {"inputs": "a"}, "inputs: unknown field (did you mean input?): expected one of input, ", "inputs"),
        (EMBED, {"input": "a"}, "input: unknown field (did you mean inputs?): expected one of inputs, ", None),
        (EMBED, {}, "inputs: this field is required", None),
        (EMBED, {"inputs": "a", "normalize": "yes"}, "normalize: expected true or false, found 'yes'", None),
        (EMBED, {"inputs": "a", "truncation_direction": "left"}, "truncation_direction: expected 'right', ", None),
        (EMBED, {"inputs": "a", "encoding_format": "base64"}, "encoding_format: expected 'float', found ", None),
        (SIMILARITY, {"inputs": "a"}, "inputs: expected an object, found 'a'", None),
        (SIMILARITY, {"inputs": {"source_sentence": "a"}}, "sentences: this field is required", None),
        (SIMILARITY, {"inputs": {"source_sentence": "a", "sentences": []}}, "inputs.sentences: expected ", None),
        (SIMILARITY, {"inputs": {"source_sentence": 1, "sentences": ["a"]}}, "source_sentence: expected a ", None),
        (SIMILARITY, {"inputs": {"a": 1}}, "inputs.a: unknown field", None),
        (TOKENIZE, {"inputs": 5}, "inputs: expected a string or an array of strings, found 5", None),
        (TOKENIZE, {"inputs": []}, "inputs: expected at least one text, found an empty array", None),
        (TOKENIZE, {"inputs": "a", "add_special_tokens": 0}, "add_special_tokens: expected true or ", None),
    ],
)  # fmt: skip
def test_a_field_that_is_wrong(url: str, path: str, body: Any, message: str, param: str | None) -> None:
    answer = ask(url, path, body)
    assert answer.status == (400 if path == OPENAI else 422)
    assert message_of(answer, path).startswith(message)
    if path == OPENAI:
        assert answer.json["error"]["param"] == param
        assert answer.json["error"]["type"] == "invalid_request_error"


def test_token_ids_that_the_vocabulary_lacks(url: str) -> None:
    for wrong in (-1, 100_000, 2**63):
        answer = ask(url, OPENAI, {"input": [5, wrong]})
        assert answer.status == 400
        assert message_of(answer, OPENAI) == (
            f"input: expected token ids from 0 to {len(CHARACTER_VOCABULARY) - 1}, found {wrong}: send the text, or "
            "the ids of this model's own tokenizer"
        )
    assert message_of(ask(url, OPENAI, {"input": [[5], [5, -1]]}), OPENAI).startswith("input[1]: expected token ids")


def test_a_model_of_another_name(url: str) -> None:
    answer = ask(url, OPENAI, {"input": "a", "model": "text-embedding-3-small"})
    assert answer.status == 404
    assert answer.json["error"]["code"] == "model_not_found"
    assert "small', found 'text-embedding-3-small': see GET /v1/models" in message_of(answer, OPENAI)


@pytest.mark.parametrize("path", [OPENAI, EMBED])
def test_a_text_that_is_too_long_is_an_error_unless_truncation_is_asked_for(url: str, path: str) -> None:
    name = "input" if path == OPENAI else "inputs"
    answer = ask(url, path, {name: ["a", "b" + " b" * 30]})
    assert answer.status == 413
    assert message_of(answer, path) == (
        f"{name}[1]: the text has 33 tokens (61 characters); the limit of the model is 16 tokens: split it, or send "
        '"truncate": true to use its beginning'
    )
    assert message_of(ask(url, path, {name: "b" + " b" * 30}), path).startswith(f"{name}: the text has 33 tokens")
    assert ask(url, path, {name: ["a", "b" + " b" * 30], "truncate": True}).status == 200
    assert ask(url, path, {name: [[5] * 30]}).status == 413
    assert ask(url, path, {name: [[5] * 30], "truncate": True}).status == 200


def test_a_sentence_that_is_too_long_is_named(url: str) -> None:
    long = "b" + " b" * 30
    for place, inputs in (
        ("inputs.source_sentence", {"source_sentence": long, "sentences": ["a"]}),
        ("inputs.sentences[1]", {"source_sentence": "a", "sentences": ["a", long]}),
    ):
        answer = ask(url, SIMILARITY, {"inputs": inputs})
        assert answer.status == 413
        assert message_of(answer, SIMILARITY).startswith(f"{place}: the text has 33 tokens")


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Content-Type": "text/plain"}, "the header Content-Type: expected application/json, found 'text/plain'"),
        ({"Content-Encoding": "gzip"}, "the header Content-Encoding: expected none, found 'gzip'"),
    ],
)
def test_headers_that_are_not_supported(url: str, headers: dict[str, str], message: str) -> None:
    answer = ask(url, EMBED, b"{}", headers=headers)
    assert answer.status == 415
    assert message_of(answer, EMBED).startswith(message)


def test_paths_and_methods_that_do_not_exist(url: str) -> None:
    for path, expected in (("/v1/nothing", "the path does not exist"), ("/nothing", "the path does not exist")):
        answer = ask(url, path)
        assert answer.status == 404
        assert message_of(answer, path).startswith(expected)
    answer = ask(url, OPENAI)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert message_of(answer, OPENAI) == "the method GET is not allowed here: use POST"
