"""What the tests of the server share: a server in a thread, requests to it, and an engine that waits."""

import dataclasses
import http.client
import json
import socket
import threading
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast

import numpy as np
import uvicorn

from minilm_np import CrossEncoder, SentenceEncoder
from minilm_np.engine.protocol import Engine, Report, Vectors
from minilm_np.server.app import create_app
from minilm_np.server.run import configured, listen, url_of
from minilm_np.server.settings import ServerSettings

SECONDS = 60  # after which a test that waits has failed


class Answer:
    """A response: status, headers in lower case, body."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def vectors(self) -> Vectors:
        """The vectors of a response of either API, as float32."""
        rows = [item["embedding"] for item in self.json["data"]] if isinstance(self.json, dict) else self.json
        return np.array(rows, np.float32)


@contextmanager
def running(encoder: SentenceEncoder | None, reranker: CrossEncoder | None = None, **settings: Any) -> Iterator[str]:
    """A server in a thread, on a free port: its URL. It ends when its requests are answered."""
    defaults: dict[str, Any] = {"port": 0, "log_format": "none"}
    chosen = ServerSettings(**defaults | settings)
    with listen(chosen) as listening:
        server = uvicorn.Server(configured(create_app(chosen, encoder, reranker), chosen))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield url_of(listening)
        finally:
            server.should_exit = True
            thread.join(SECONDS)
            assert not thread.is_alive()


def connect(url: str) -> http.client.HTTPConnection:
    """A connection to a server."""
    parts = urllib.parse.urlsplit(url)
    return http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=SECONDS)


def until_closed(client: socket.socket) -> bytes:
    """Everything that a server sends until it closes the connection."""
    found = b""
    try:
        while part := client.recv(1 << 16):
            found += part
    except ConnectionResetError:
        pass
    return found


def sent_until_closed(client: socket.socket, content: bytes) -> bytes:
    """Everything that a server sends until it closes the connection. The content is sent meanwhile.

    A server that refuses a request may close the connection before it has read all of it.
    """

    def send() -> None:
        with suppress(OSError):
            client.sendall(content)

    sending = threading.Thread(target=send)
    sending.start()
    found = until_closed(client)
    sending.join(SECONDS)
    return found


def ask(
    url: str, path: str, body: Any = None, *, method: str | None = None, headers: dict[str, str] | None = None
) -> Answer:
    """Send one request: POST with a body (bytes as they are, anything else as JSON), else GET."""
    connection = connect(url)
    raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    kind = {} if raw is None else {"Content-Type": "application/json"}
    try:
        connection.request(method or ("GET" if raw is None else "POST"), path, raw, kind | (headers or {}))
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, response.read())
    finally:
        connection.close()


class WaitingEngine:
    """An engine that tells of each batch, and computes it when `go` is set. `sizes` are the texts of the batches."""

    threads = 1

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.started = threading.Semaphore(0)
        self.go = threading.Event()
        self.sizes: list[int] = []
        self.failure: Exception | None = None

    def encode(
        self,
        texts: Sequence[Sequence[int]],
        *,
        normalize: bool,
        report: Report,
        token_type_ids: Sequence[Sequence[int]] | None = None,
    ) -> Vectors:
        self.sizes.append(len(texts))
        self.started.release()
        assert self.go.wait(SECONDS)
        if self.failure is not None:
            raise self.failure
        return self._engine.encode(texts, normalize=normalize, report=report, token_type_ids=token_type_ids)

    def wait_for_batch(self) -> None:
        assert self.started.acquire(timeout=SECONDS)


def with_waiting_engine(encoder: SentenceEncoder) -> tuple[SentenceEncoder, WaitingEngine]:
    """The encoder with such an engine. Create its server with `go` set: the application encodes a text at its start."""
    engine = WaitingEngine(encoder.model.engine)
    model = dataclasses.replace(encoder.model, engine=cast(Engine, engine))  # the server calls `encode` only
    return SentenceEncoder._of(model), engine


@contextmanager
def running_waiting(
    encoder: SentenceEncoder, reranker: CrossEncoder | None = None, **settings: Any
) -> Iterator[tuple[str, WaitingEngine]]:
    """A server whose engine for vectors waits: its URL and the engine. What waits at the end is computed."""
    waiting, engine = with_waiting_engine(encoder)
    engine.go.set()
    with running(waiting, reranker, **settings) as url:
        engine.go.clear()
        engine.sizes.clear()
        while engine.started.acquire(blocking=False):
            pass
        try:
            yield url, engine
        finally:
            engine.go.set()


def metric(url: str, name: str) -> float:
    """A number of /metrics."""
    for line in ask(url, "/metrics").body.decode().splitlines():
        if line.startswith(f"{name} "):
            return float(line.split(" ")[1])
    raise AssertionError(f"/metrics has no {name}")
