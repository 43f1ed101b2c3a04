"""Many requests at once: the same bits, shares of the engine, a bounded queue, clients that go away."""

import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from minilm_np import SentenceEncoder
from tests.support import hostile
from tests.support.compare import assert_same_bits
from tests.support.server import SECONDS, ask, connect, metric, running, running_waiting, until_closed

EMBED = "/embed"


@pytest.fixture(scope="module")
def compiled(small: object) -> SentenceEncoder:
    """A random model on the compiled kernels, with two threads."""
    return SentenceEncoder.random(threads=2)


def waits_until_queued(url: str, n_requests: int) -> None:
    """Return when this number of requests wait: the server says so."""
    stop = time.monotonic() + SECONDS
    while metric(url, "minilm_np_queue_requests") != n_requests:
        assert time.monotonic() < stop


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def test_a_text_has_the_same_bits_alone_and_under_load(compiled: SentenceEncoder, threads: ThreadPoolExecutor) -> None:
    random = np.random.default_rng(17)
    texts = ["".join(random.choice(list("abc de.")) for _ in range(length)) for length in random.integers(0, 90, 200)]
    with running(compiled, batch_tokens=128, truncate=True) as url:
        alone = [ask(url, EMBED, {"inputs": text}).body for text in texts]
        together = list(threads.map(lambda text: ask(url, EMBED, {"inputs": text}).body, texts))
        assert together == alone
        large = threads.submit(ask, url, EMBED, {"inputs": texts * 5})
        meanwhile = list(threads.map(lambda text: ask(url, EMBED, {"inputs": text}).body, texts))
        assert meanwhile == alone
        expected = compiled.encode(texts, on_truncation="ignore")
        assert_same_bits(large.result().vectors, np.concatenate([expected] * 5))
    assert_same_bits(np.array([json.loads(body)[0] for body in alone], np.float32), expected)


def test_requests_that_wait_are_one_batch(encoder: SentenceEncoder, threads: ThreadPoolExecutor) -> None:
    with running_waiting(encoder) as (url, engine):
        first = threads.submit(ask, url, EMBED, {"inputs": "a"})
        engine.wait_for_batch()  # an idle engine waits for nothing else
        others = [threads.submit(ask, url, EMBED, {"inputs": ["b", "c"]}) for _ in range(5)]
        waits_until_queued(url, 5)
        engine.go.set()
        assert [one.result().status for one in (first, *others)] == [200] * 6
        assert engine.sizes == [1, 10]


def test_a_short_request_passes_a_large_one(encoder: SentenceEncoder, threads: ThreadPoolExecutor) -> None:
    done: list[str] = []

    def asked(name: str, inputs: list[str]) -> None:
        assert ask(url, EMBED, {"inputs": inputs}).status == 200
        done.append(name)

    with running_waiting(encoder, batch_tokens=64) as (url, engine):
        large = threads.submit(asked, "large", ["abcdefghij"] * 1000)
        engine.wait_for_batch()
        short = threads.submit(asked, "short", ["a"])
        waits_until_queued(url, 2)
        engine.go.set()
        short.result()
        large.result()
    assert done == ["short", "large"]
    assert engine.sizes[1] <= 6


def test_a_full_queue_is_429_with_the_time_to_wait(encoder: SentenceEncoder, threads: ThreadPoolExecutor) -> None:
    with running_waiting(encoder, max_queue_tokens=10) as (url, engine):
        served = [threads.submit(ask, url, EMBED, {"inputs": "a"})]
        engine.wait_for_batch()
        served.append(threads.submit(ask, url, EMBED, {"inputs": "abcdef"}))
        waits_until_queued(url, 1)
        refused = ask(url, EMBED, {"inputs": "a"})
        openai = ask(url, "/v1/embeddings", {"input": "a"})
        assert refused.status == openai.status == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json["error_type"] == "Overloaded"
        assert refused.json["error"].startswith(
            "the server is overloaded: 8 tokens of other requests wait, and 10 are "
        )
        assert openai.json["error"]["code"] == "server_overloaded"
        engine.go.set()
        assert [one.result().status for one in served] == [200, 200]
        assert ask(url, EMBED, {"inputs": ["abcdef"] * 10}).status == 200  # larger than the queue, but alone


def test_a_request_that_waits_too_long_is_503(encoder: SentenceEncoder, threads: ThreadPoolExecutor) -> None:
    with running_waiting(encoder, queue_timeout=0.2) as (url, engine):
        found = [threads.submit(ask, url, EMBED, {"inputs": "a"}) for _ in range(3)]
        answers = [one.result() for one in found]
        assert [answer.status for answer in answers] == [503] * 3
        assert answers[0].json["error"] == "the results were not computed within 0.2 seconds: try again later"
        assert metric(url, "minilm_np_queue_requests") == 0
        engine.go.set()
        # on a busy machine, the first text may wait longer than 0.2 seconds, too
        assert hostile.wait_for(lambda: ask(url, EMBED, {"inputs": "a"}).status == 200)


def test_a_client_that_goes_away_is_dropped_from_the_queue(
    encoder: SentenceEncoder, threads: ThreadPoolExecutor
) -> None:
    with running_waiting(encoder) as (url, engine):
        stays = threads.submit(ask, url, EMBED, {"inputs": "a"})
        engine.wait_for_batch()
        goes = connect(url)
        goes.request("POST", EMBED, json.dumps({"inputs": ["b"] * 50}), {"Content-Type": "application/json"})
        waits_until_queued(url, 1)
        goes.close()
        waits_until_queued(url, 0)
        engine.go.set()
        assert stays.result().status == 200
        assert ask(url, EMBED, {"inputs": "c"}).status == 200
        assert engine.sizes == [1, 1]
        assert 'path="/embed",status="499"} 1.0' in ask(url, "/metrics").body.decode()


def test_an_engine_that_fails_fails_its_requests_only(encoder: SentenceEncoder) -> None:
    with running_waiting(encoder) as (url, engine):
        engine.go.set()
        engine.failure = ZeroDivisionError("a text of a client")
        answer = ask(url, EMBED, {"inputs": "a"})
        assert (answer.status, answer.json["error_type"]) == (500, "Backend")
        assert answer.json["error"] == "the server failed to encode this text: see its log for the cause"
        engine.failure = None
        assert ask(url, EMBED, {"inputs": "a"}).status == 200


@pytest.mark.parametrize(
    ("settings", "body", "message"),
    [
        ({"max_texts": 3}, {"inputs": ["a"] * 4}, "inputs: expected at most 3 texts, found 4"),
        ({"max_texts": 3}, {"inputs": [[5]] * 4}, "inputs: expected at most 3 texts, found 4"),
        ({"max_characters": 9}, {"inputs": ["aaaaa"] * 2}, "inputs: expected at most 9 characters in all texts, "),
        ({"max_body_bytes": 20}, {"inputs": "aaaaaaaaaaaaaa"}, "the body: expected at most 20 bytes"),
        ({"max_bodies_bytes": 5}, {"inputs": "a"}, "the server is overloaded: the requests in flight exceed 5 bytes"),
    ],
)  # fmt: skip
def test_limits_of_a_request(encoder: SentenceEncoder, settings: dict[str, Any], body: object, message: str) -> None:
    with running(encoder, **settings) as url:
        answer = ask(url, EMBED, body)
        assert answer.status == (429 if "overloaded" in message else 413)
        assert answer.json["error"].startswith(message)


def test_a_body_without_end_is_refused_and_not_read(encoder: SentenceEncoder) -> None:
    with running(encoder, max_body_bytes=1000) as url:
        for head in (b"Content-Length: 2000000000", b"Transfer-Encoding: chunked"):
            parts = urllib.parse.urlsplit(url)
            with socket.create_connection((parts.hostname, parts.port), SECONDS) as client:
                client.sendall(b"POST /embed HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
                sending = threading.Thread(target=_send_without_end, args=[client])
                sending.start()
                answer = until_closed(client)
                sending.join(SECONDS)
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert b"the body: expected at most 1,000 bytes" in answer


def _send_without_end(client: socket.socket) -> None:
    try:
        while True:
            client.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
    except OSError:  # the server has closed the connection
        return


def test_bodies_in_memory_are_counted_until_their_requests_are_over(
    encoder: SentenceEncoder, threads: ThreadPoolExecutor
) -> None:
    body = json.dumps({"inputs": "a" * 10}).encode()
    with running_waiting(encoder, max_bodies_bytes=2 * len(body)) as (url, engine):
        first = [threads.submit(ask, url, EMBED, body)]
        engine.wait_for_batch()
        first.append(threads.submit(ask, url, EMBED, body))
        waits_until_queued(url, 1)
        assert ask(url, EMBED, body).status == 429
        engine.go.set()
        assert [one.result().status for one in first] == [200, 200]
        assert ask(url, EMBED, body).status == 200
