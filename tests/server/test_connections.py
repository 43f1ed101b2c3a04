"""Connections that are slow, broken or too many: each is answered politely, and closed."""

import asyncio
import json
import logging
import re
import socket
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from uvicorn.server import ServerState

from minilm_np import SentenceEncoder
from minilm_np.server.app import create_app
from minilm_np.server.connections import UNANSWERED, protocol_with_limits
from minilm_np.server.run import configured
from minilm_np.server.settings import ServerSettings
from tests.support.hostile import wait_for
from tests.support.server import SECONDS, ask, running, running_waiting, sent_until_closed, until_closed

HEAD = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def opened(url: str) -> socket.socket:
    parts = urllib.parse.urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), SECONDS)


def refusal(found: bytes) -> tuple[int, str]:
    """The status of a response and the code of its error."""
    head, _, body = found.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert b"content-length: %d" % len(body) in head
    return int(head.split(b" ")[1]), json.loads(body)["error"]["code"]


@pytest.mark.parametrize("sent", [b"", b"POST /em", HEAD, HEAD + b"X: "], ids=["nothing", "line", "headers", "header"])
def test_headers_that_do_not_arrive(encoder: SentenceEncoder, sent: bytes) -> None:
    with running(encoder, head_timeout=0.2) as url, opened(url) as client:
        assert refusal(sent_until_closed(client, sent)) == (408, "request_timeout")


def test_a_second_request_whose_headers_do_not_arrive(encoder: SentenceEncoder) -> None:
    # the headers of the first request must arrive in time, on a busy machine, too
    with running(encoder, head_timeout=1.0) as url, opened(url) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /hea")
        first, _, second = until_closed(client).partition(b'{"status":"ok"}')
        assert first.startswith(b"HTTP/1.1 200 ")
        assert refusal(second) == (408, "request_timeout")


def test_a_body_that_does_not_arrive(encoder: SentenceEncoder) -> None:
    with running(encoder, body_timeout=0.2) as url, opened(url) as client:
        client.sendall(HEAD + b'Content-Length: 100\r\n\r\n{"inputs"')
        found = until_closed(client)
        assert found.startswith(b"HTTP/1.1 408 ")
        assert b"the body did not arrive within 0.2 seconds" in found


@pytest.mark.parametrize("rest", [b"", b"a", b"ab"], ids=["nothing", "half", "all"])
def test_a_body_that_nothing_reads(encoder: SentenceEncoder, rest: bytes) -> None:
    """The response does not wait for it. The connection ends, whether the body arrives or not."""
    with running(encoder, body_timeout=0.2, keep_alive=0.2) as url, opened(url) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        sent_until_closed(client, rest)


def test_an_idle_connection_is_closed(encoder: SentenceEncoder) -> None:
    with running(encoder, keep_alive=0.2) as url, opened(url) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert until_closed(client).endswith(b'{"status":"ok"}')


def test_headers_without_end(url: str) -> None:
    with opened(url) as client:
        assert refusal(sent_until_closed(client, HEAD + b"X: " + b"x" * 100_000)) == (431, "headers_too_large")


def test_trailers_without_end(url: str) -> None:
    with opened(url) as client:
        sent = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX: " + b"x" * 100_000
        assert refusal(sent_until_closed(client, sent)) == (431, "headers_too_large")


def test_a_body_in_many_chunks(url: str) -> None:
    body = json.dumps({"inputs": ["a"] * 2000}).encode()
    chunks = b"".join(b"40\r\n" + body[start : start + 64] + b"\r\n" for start in range(0, len(body) // 64 * 64, 64))
    rest = body[len(body) // 64 * 64 :]
    chunks += b"%x\r\n" % len(rest) + rest + b"\r\n0\r\n\r\n" if rest else b"0\r\n\r\n"
    with opened(url) as client:
        client.sendall(HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        assert until_closed(client).startswith(b"HTTP/1.1 200 ")


def test_bytes_that_are_not_http(url: str) -> None:
    with opened(url) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\r\n\r\n")
        assert refusal(until_closed(client)) == (400, "invalid_http")


def test_bytes_that_are_not_http_after_a_request(encoder: SentenceEncoder, caplog: pytest.LogCaptureFixture) -> None:
    """The request is dropped; its response would come after the end of the connection."""
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "minilm_np.server")]
    for logger in loggers:  # they may not propagate
        logger.addHandler(caplog.handler)
    try:
        with running_waiting(encoder) as (url, engine), opened(url) as client:
            client.sendall(HEAD + b'Content-Length: 15\r\n\r\n{"inputs": "a"}')
            engine.wait_for_batch()
            client.sendall(b"\x16\x03\x01\x02\x00\r\n\r\n")
            assert refusal(until_closed(client)) == (400, "invalid_http")
            engine.go.set()
            assert wait_for(lambda: b'path="/embed"' in ask(url, "/metrics").body)
    finally:
        for logger in loggers:
            logger.removeHandler(caplog.handler)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_many_requests_on_one_connection_before_the_first_response(url: str) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with opened(url) as client:
        found = sent_until_closed(client, request * 200 * UNANSWERED)
        assert refusal(found[found.rindex(b"HTTP/1.1 ") :]) == (429, "too_many_requests")
    with opened(url) as client:
        last = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert sent_until_closed(client, request * (UNANSWERED - 1) + last).count(b"HTTP/1.1 200 ") == UNANSWERED


def test_more_connections_than_the_limit(encoder: SentenceEncoder) -> None:
    with running(encoder, max_connections=3) as url:
        held = [opened(url) for _ in range(3)]
        for client in held:  # the server has accepted each of them
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        for _ in range(5):
            with opened(url) as refused:
                found = until_closed(refused)
                assert refusal(found) == (503, "server_overloaded")
                assert b"retry-after: 1\r\n" in found
        assert answered(held[0])
        for client in held:
            client.close()


def answered(client: socket.socket) -> bool:
    client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    return client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_closes_its_side_is_gone(url: str) -> None:
    body = b'{"inputs": "a"}'
    with opened(url) as client:
        client.sendall(HEAD + b"Content-Length: 100\r\n\r\n" + body)
        client.shutdown(socket.SHUT_WR)
        assert until_closed(client) == b""
    assert ask(url, "/health").status == 200


def test_a_client_that_does_not_read_its_response(encoder: SentenceEncoder) -> None:
    body = json.dumps({"inputs": [""] * 2000}).encode()
    with running(encoder, write_timeout=0.2) as url, opened(url) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
        with ThreadPoolExecutor(1) as thread:
            sending = thread.submit(send_while_open, client, request * 40)  # more than the buffers of both sides take
            assert ask(url, "/health").status == 200
            # the connection ends with a reset when the server gives up, and nothing is read before
            assert re.search(r"reset|Broken", str(sending.result(SECONDS)))


class UnreadTransport(asyncio.Transport):
    """A transport of a client that reads nothing: after `close` it waits for the client until `abort`."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closing, self.aborted = b"", False, asyncio.Event()

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.aborted.set()


@pytest.mark.parametrize("header", [b"Connection: close\r\n", b""], ids=["close", "keep-alive"])
def test_a_client_that_does_not_read_the_end_of_its_response(encoder: SentenceEncoder, header: bytes) -> None:
    """So few bytes wait that the transport does not ask the server to pause."""
    settings = ServerSettings(write_timeout=0.01, keep_alive=0.01)

    async def serve() -> bytes:
        config = configured(create_app(settings, encoder), settings)
        config.load()
        protocol = protocol_with_limits(settings)(config=config, server_state=ServerState(), app_state={})
        transport = UnreadTransport()
        protocol.connection_made(transport)
        protocol.data_received(b"GET /info HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n")
        await asyncio.wait_for(transport.aborted.wait(), SECONDS)
        return transport.written

    assert asyncio.run(serve()).startswith(b"HTTP/1.1 200 ")


def send_while_open(client: socket.socket, content: bytes) -> OSError:
    """Send the content, and then spaces, until the connection ends: the error of the end."""
    try:
        while True:
            client.sendall(content)
            content = b" "
    except OSError as error:
        return error


def test_requests_on_one_connection_are_answered_in_order(url: str) -> None:
    bodies = [json.dumps({"inputs": ["a"] * number}).encode() for number in (3, 1, 2)]
    with opened(url) as client:
        client.sendall(b"".join(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies[:-1]))
        client.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(bodies[-1]) + bodies[-1])
        found = until_closed(client)
    counts = [len(json.loads(part.partition(b"\r\n\r\n")[2])) for part in found.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert counts == [3, 1, 2]
