"""Servers on loopback that misbehave below the level of HTTP: each sends raw bytes, at its own pace."""

import itertools
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

Talk = Callable[[socket.socket], None]  # what the server does with a connection


@contextmanager
def serving_raw(talk: Talk, host: str = "127.0.0.1") -> Iterator[str]:
    """Yield HOST:PORT of a server, which closes its connections at the end."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    threads: list[threading.Thread] = []
    connections: list[socket.socket] = []

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):  # the client has closed the connection
            talk(connection)

    def accept() -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                connection = listener.accept()[0]
                connections.append(connection)
                threads.append(threading.Thread(target=answer, args=[connection], daemon=True))
                threads[-1].start()

    with socket.create_server((host, 0), family=family) as listener:
        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
    for connection, thread in zip(connections, threads, strict=True):
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        thread.join()


def sends(start: bytes, then: Iterable[bytes] = (), pause: float = 0.0) -> Talk:
    """What a server does that reads a request, sends `start`, and then each piece after a pause."""

    def talk(connection: socket.socket) -> None:
        _read_request(connection)
        connection.sendall(start)
        closed = threading.Event()
        for piece in then:
            closed.wait(pause)  # nothing sets it: it sets the pace
            connection.sendall(piece)

    return talk


def _read_request(connection: socket.socket) -> None:
    """Read a request to its end: a connection that is closed with unread bytes is reset, and the response is lost."""
    request = b""
    while b"\r\n\r\n" not in request and (piece := connection.recv(1 << 16)):
        request += piece
    head, _, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: *([0-9]+)", head, re.IGNORECASE)
    left = int(length[1]) - len(body) if length else 0
    while left > 0 and (piece := connection.recv(left)):
        left -= len(piece)


def silent(connection: socket.socket) -> None:
    """Read until the client closes the connection; send nothing."""
    while connection.recv(1 << 16):
        pass


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
PAUSE = 0.02  # far below every timeout of a socket

# name: what the server does; every one goes on for as long as the client lets it
ENDLESS: dict[str, Talk] = {
    "silence": silent,
    "status line": sends(b"HTTP/1.1 200 ", itertools.repeat(b"O"), PAUSE),
    "header": sends(HEAD + b"X-Header: ", itertools.repeat(b"x"), PAUSE),
    "interim responses": sends(b"", itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)),
    "interim headers": sends(b"HTTP/1.1 100 Continue\r\n", itertools.repeat(b"X: y\r\n"), PAUSE),
    "body": sends(HEAD + b"Content-Length: 100000\r\n\r\n", itertools.repeat(b" "), PAUSE),
    "body to the end of the connection": sends(HEAD + b"\r\n", itertools.repeat(b" "), PAUSE),
    "chunk size": sends(CHUNKED, itertools.repeat(b"0"), PAUSE),
    "small chunks": sends(CHUNKED, itertools.repeat(b"1\r\n \r\n"), PAUSE),
    "trailers": sends(CHUNKED + b"5\r\n[[1]]\r\n0\r\n", itertools.repeat(b"X: y\r\n" * 1000)),
    "error body": sends(b"HTTP/1.1 500 No\r\n\r\n", itertools.repeat(b"x"), PAUSE),
}
