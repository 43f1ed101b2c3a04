"""Clients that harm a server, over a real socket. `python -m tests.faults serving` does the same on a larger scale."""

import json
import socket
import threading
import time

import pytest

from minilm_np import SentenceEncoder
from minilm_np.encoding.loaded_model import LoadedModel
from minilm_np.server import tokens
from minilm_np.server.requests import Inputs
from tests.faults.leaks import resident
from tests.support import hostile
from tests.support.server import ask, metric, running, running_waiting

MEMORY = 48 << 20  # bytes by which the process may grow while it refuses a body of 2 GB


def test_hundreds_of_connections_beyond_the_limit_are_refused(encoder: SentenceEncoder) -> None:
    with running(encoder, max_connections=20) as url:
        assert hostile.connections(url, 300) == {"200": 20, "503": 280}
        assert hostile.wait_for(lambda: set(hostile.connections(url, 1)) == {"200"})  # the places are free again


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"GET /health HTTP/1.1\r\nX: ", "408"),
        (hostile.HEAD + b"Content-Length: 100000\r\n\r\n", "408"),
        (hostile.HEAD + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n", "408"),
    ],
    ids=["headers", "body", "chunk"],
)  # fmt: skip
def test_requests_that_drip_end_in_time_and_block_nobody(encoder: SentenceEncoder, start: bytes, status: str) -> None:
    found: dict[str, int] = {}
    with running(encoder, head_timeout=1.0, body_timeout=1.0) as url:  # time enough for `ask` on a busy machine
        dripping = threading.Thread(target=lambda: found.update(hostile.drips(url, 30, start, 0.02)))
        dripping.start()
        while dripping.is_alive():
            assert ask(url, "/embed", {"inputs": "a"}).status == 200
        dripping.join()
    assert found == {status: 30}


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
def test_a_body_of_two_gigabytes_is_refused_early(encoder: SentenceEncoder, chunked: bool) -> None:
    with running(encoder, max_body_bytes=1 << 20) as url:
        before = resident()
        answer, sent = hostile.lazy_body(url, chunked)
        assert answer[9:12] in (b"413", b"")  # b"": the reset of the connection was faster than the response
        assert sent < 64 << 20  # the server reads a few megabytes more, so that the client can read the response
        assert resident() - before < MEMORY
        assert ask(url, "/embed", {"inputs": "a"}).status == 200


def test_a_client_that_closes_its_side_after_the_request_costs_nothing(encoder: SentenceEncoder) -> None:
    """Its connection ends, and its text is not computed: a server cannot tell it from a client that has gone."""
    with running_waiting(encoder) as (url, engine):
        first = threading.Thread(target=ask, args=(url, "/embed", {"inputs": "a"}))
        first.start()
        engine.wait_for_batch()
        assert hostile.half_closed(url, b'{"inputs": ["b", "c"]}') == b""
        assert hostile.wait_for(lambda: gone(url) == 1)
        engine.go.set()
        first.join()
        assert ask(url, "/embed", {"inputs": "d"}).status == 200
        assert engine.sizes == [1, 1]


def test_texts_of_clients_that_went_away_are_not_computed(encoder: SentenceEncoder) -> None:
    with running_waiting(encoder) as (url, engine):
        first = threading.Thread(target=ask, args=(url, "/embed", {"inputs": "a"}))
        first.start()
        engine.wait_for_batch()
        hostile.leave(url, json.dumps({"inputs": ["b"] * 9}).encode(), 100)
        assert hostile.wait_for(lambda: metric(url, "minilm_np_queue_requests") == 0 and gone(url) == 100)
        engine.go.set()
        first.join()
        assert ask(url, "/embed", {"inputs": "c"}).status == 200
        assert engine.sizes == [1, 1]


def test_the_token_ids_of_a_request_that_waits_are_freed(
    encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body of 8 MB may contain two million, and only the first 14 are used."""
    seen: list[Inputs] = []
    token_ids = tokens.token_ids

    def noting(model: LoadedModel, inputs: Inputs, prefix: str, truncate: bool) -> list[list[int]]:
        seen.append(inputs)
        return token_ids(model, inputs, prefix, truncate)

    monkeypatch.setattr(tokens, "token_ids", noting)
    with running_waiting(encoder) as (url, engine):
        asking = threading.Thread(target=ask, args=(url, "/embed", {"inputs": [[5] * 10_000], "truncate": True}))
        asking.start()
        engine.wait_for_batch()
        assert seen[0].ids == []
        engine.go.set()
        asking.join()


def test_a_client_that_went_away_after_a_second_request_costs_nothing(encoder: SentenceEncoder) -> None:
    """The second request was not begun: the first one had no response."""
    body = b'{"inputs": ["b", "c"]}'
    with running_waiting(encoder) as (url, engine):
        first = threading.Thread(target=ask, args=(url, "/embed", {"inputs": "a"}))
        first.start()
        engine.wait_for_batch()
        with socket.create_connection(hostile.address(url), hostile.SECONDS) as client:
            client.sendall(2 * (hostile.HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body))
            assert hostile.wait_for(lambda: metric(url, "minilm_np_queue_requests") == 1)
        assert hostile.wait_for(lambda: metric(url, "minilm_np_queue_requests") == 0)
        engine.go.set()
        first.join()
        assert engine.sizes == [1]
        assert hostile.wait_for(lambda: gone(url) == 1)


def gone(url: str) -> float:
    """The number of requests whose client went away."""
    for line in ask(url, "/metrics").body.decode().splitlines():
        if 'path="/embed",status="499"}' in line:
            return float(line.rpartition(" ")[2])
    return 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed", b'{"inputs": "\xff\xfe"}'),
        ("/embed", b'{"inputs": "\xed\xa0\x80"}'),
        ("/embed", b'{"inputs": "\\ud800"}'),
        ("/embed", b'{"inputs": NaN}'),
        ("/embed", b'{"inputs": [1, NaN]}'),
        ("/embed", b'{"inputs": "a", "dimensions": Infinity}'),
        ("/embed", b'{"inputs": "a", "dimensions": 1e999}'),
        ("/embed", b"\xef\xbb\xbf{}"),
        ("/embed", b"[" * 100_000),
        ("/v1/embeddings", b'{"input": "\xc0\x80"}'),
        ("/v1/embeddings", b'{"input": ["a", NaN]}'),
        ("/v1/embeddings", b'{"input": "a", "dimensions": -Infinity}'),
        ("/similarity", b'{"inputs": {"source_sentence": NaN, "sentences": ["a"]}}'),
        ("/tokenize", b'{"inputs": "\xff"}'),
    ],
)
def test_bodies_that_are_not_json_are_refused(url: str, path: str, body: bytes) -> None:
    answer = ask(url, path, body)
    assert answer.status in (400, 422)
    error = answer.json["error"]
    assert error["message"] if path.startswith("/v1") else error
    assert ask(url, "/health").status == 200


def test_many_requests_that_are_cut_off(url: str) -> None:
    """Each request ends at another byte; the connection is closed there."""
    request = hostile.HEAD + b'Content-Length: 15\r\n\r\n{"inputs": "a"}'
    begin = time.monotonic()
    for end in range(0, len(request), 3):
        with socket.create_connection(hostile.address(url), hostile.SECONDS) as client:
            client.sendall(request[:end])
    assert ask(url, "/embed", {"inputs": "a"}).status == 200
    assert time.monotonic() - begin < hostile.SECONDS
