"""Servers on loopback as `verify` asks them."""

import gzip
import itertools
import json
from typing import Any

import pytest

from minilm_np import SentenceEncoder
from minilm_np.errors import ImplementationError, InputValueError
from minilm_np.verify import open_implementation
from minilm_np.verify.endpoint import BATCH, Endpoint
from tests.support.compare import assert_close
from tests.support.vector_servers import serving

TEXTS = ["hello world", "", "a much longer text than the others, with [SEP] in it"]


@pytest.fixture(scope="module")
def small() -> SentenceEncoder:
    return SentenceEncoder.random(backend="numpy")


def test_servers_of_both_kinds_give_the_vectors_of_a_model(small: SentenceEncoder) -> None:
    texts = [f"text {number}" for number in range(BATCH + 5)] + TEXTS
    sizes: list[int] = []

    def answer(path: str, body: dict[str, Any]) -> Any:
        if path == "/embed":
            assert set(body) == {"inputs", "truncate"} and body["truncate"] is True
            sizes.append(len(body["inputs"]))
            return 200, {}, [json.dumps(small.encode(body["inputs"]).tolist()).encode()]
        assert path == "/v1/embeddings?model=mine" and body["model"] == "mine" and body["encoding_format"] == "float"
        rows = enumerate(small.encode(body["input"]).tolist())
        data = [{"object": "embedding", "index": index, "embedding": row} for index, row in rows]
        return 200, {}, [json.dumps({"object": "list", "data": data[::-1]}).encode()]

    with serving(answer) as url:
        for path in ("/embed", "/v1/embeddings?model=mine"):
            other = open_implementation(url + path, small)
            assert_close(other.vectors(texts), small.encode(texts), rel=2e-6, what=path)
            assert other.vectors([]).shape == (0, small.config.hidden_size)
            assert other.texts is None and other.intermediates(texts) is None and other.token_ids(texts) is None
    assert sizes == [BATCH, 8]


@pytest.mark.parametrize(
    ("status", "headers", "answer", "message"),
    [
        (
            500,
            {},
            b'{"error": "out of memory"}',
            'answered 500 Internal Server Error: {"error": "out of memory"}',
        ),
        (302, {"Location": "/elsewhere"}, b"", "the server answered 302 Found"),
        (200, {}, b"<html>", "the response is not JSON"),
        (200, {}, b"[" * 4096, "the response is not JSON"),
        (200, {}, b"\xff", "the response is not JSON"),
        (200, {"Content-Encoding": "gzip"}, gzip.compress(b"[[1]]", mtime=0), "the response is not JSON"),
        (200, {}, b"[" * 900 + b"]" * 900, r"vector 0: expected a list of numbers"),
        (200, {}, b"[" * 900 + b"\x1b" + b"]" * 900, "the response is not JSON"),
        (200, {}, b'{"\xc2\x9b": 1}', r'expected 1 vectors, found {" ": 1}'),
        (200, {}, b"[[1, 2], [3, 4]]", r"expected 1 vectors, found \[\[1, 2\], \[3, 4\]\]"),
        (200, {}, b'{"data": []}', "expected 1 vectors, found"),
        (200, {}, b'[["1"]]', "vector 0: expected a list of numbers"),
        (200, {}, b"[" + b" " * 5000 + b"[1]]", "the response is longer than 4096 bytes"),
        (200, {"Content-Length": "100"}, b"[[1]]", "the response ends 95 bytes too early"),
    ],
)
def test_a_server_that_answers_something_else_is_refused(
    small: SentenceEncoder, status: int, headers: Any, answer: bytes, message: str
) -> None:
    with (
        serving(lambda path, body: (status, headers, [answer])) as url,
        pytest.raises(ImplementationError, match=message),
    ):
        Endpoint(f"{url}/embed", small, largest=4096).vectors(["a"])


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        {"data": [1]},
        {"data": [{"index": 1, "embedding": [1]}]},
        {"data": [{"index": [], "embedding": [1]}]},
        {"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [2]}]},
    ],
)
def test_an_openai_server_that_answers_something_else_is_refused(small: SentenceEncoder, answer: Any) -> None:
    with (
        serving(lambda path, body: (200, {}, [json.dumps(answer).encode()])) as url,
        pytest.raises(ImplementationError, match="expected 1 vectors, found"),
    ):
        open_implementation(f"{url}/v1/embeddings", small).vectors(["a"])


@pytest.mark.parametrize(
    "url",
    [
        "http://[/embed",
        "http://user:secret@[/embed",
        "http://user:secret@\u2100/embed",
        "http://host:99999/embed",
        "http://host:secret/embed",
        "http://host:0/embed",
        "http:///embed",
        "http://host/embed?key= secret",
        "http://host/embed\n?key=secret",
        "http://user:secret@host/embed",
        "http://user:secret@host/other",
        "http://host/other?key=secret",
    ],
)
def test_a_url_that_is_not_valid_is_refused_without_its_secrets(small: SentenceEncoder, url: str) -> None:
    with pytest.raises(InputValueError, match="expected") as raised:
        open_implementation(url, small)
    assert "secret" not in str(raised.value)


def test_other_schemes_are_refused(small: SentenceEncoder) -> None:
    for scheme in ("ftp", "file"):
        with pytest.raises(InputValueError, match="expected http://HOST:PORT/PATH"):
            Endpoint(f"{scheme}://host/embed", small)


def test_the_size_of_a_response_is_bounded_before_it_is_parsed(small: SentenceEncoder) -> None:
    with (
        serving(lambda path, body: (200, {}, itertools.chain([b"["], itertools.repeat(b"[]," * 10_000)))) as url,
        pytest.raises(ImplementationError, match="the response is longer than 327680 bytes"),
    ):
        open_implementation(f"{url}/embed", small).vectors(["a", "b"])


def test_a_wide_vector_with_indentation_is_within_the_bound(small: SentenceEncoder) -> None:
    vector = [-1.2345678901234567e-300] * 3072
    with serving(lambda path, body: (200, {}, [json.dumps([vector], indent=2).encode()])) as url:
        assert open_implementation(f"{url}/embed", small).vectors(["a"]).tolist() == [vector]


def test_a_server_that_is_not_there_is_named(small: SentenceEncoder) -> None:
    with serving(lambda path, body: (200, {}, [])) as url:
        pass
    with pytest.raises(ImplementationError, match=f"{url}/embed: the request failed: .*refused: is the server running"):
        open_implementation(f"{url}/embed", small).vectors(["a"])


def test_vectors_of_different_lengths_over_requests_are_refused(small: SentenceEncoder) -> None:
    def answer(path: str, body: dict[str, Any]) -> Any:
        size = 2 if len(body["inputs"]) == BATCH else 3
        return 200, {}, [json.dumps([[1.0] * size] * len(body["inputs"])).encode()]

    with (
        serving(answer) as url,
        pytest.raises(ImplementationError, match="vectors of different lengths"),
    ):
        open_implementation(f"{url}/embed", small).vectors(["a"] * (BATCH + 1))
