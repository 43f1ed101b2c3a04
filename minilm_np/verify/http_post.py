"""One POST over HTTP, limited in time and in bytes whatever the server does."""

import http.client
import queue
import socket
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any

from minilm_np._checks import printable
from minilm_np.errors import ImplementationError

THREAD = "minilm-np-http"  # name of the thread of an exchange
RECEIVED = 128 << 10  # bytes that may wait in the system's buffer of a connection


def post(url: str, body: bytes, *, name: str, seconds: float, largest: int) -> bytes:
    """Send JSON and return the body of the response. No request is repeated, and no redirect is followed.

    name: the server in error messages, without secrets.
    seconds: the limit of the whole exchange: name resolution, connections, TLS, every byte sent and received.
    largest: the limit of the response's body in bytes. A compressed response is not decompressed.

    Raises ImplementationError. The proxy of the environment is used (HTTP_PROXY, HTTPS_PROXY, NO_PROXY).
    """
    # The timeout of a socket applies to each read, and a server can cause any number of reads: by a header that drips,
    # by interim responses or trailers without end. Name resolution has no timeout at all. So the exchange runs in
    # another thread, and the caller waits for its result.
    connections, result = _Connections(), queue.SimpleQueue[bytes | Exception]()

    def exchange() -> None:
        try:
            result.put(_exchange(url, body, connections, name, seconds, largest))
        except Exception as error:
            result.put(error)

    threading.Thread(target=exchange, name=THREAD, daemon=True).start()
    try:
        answer = result.get(timeout=seconds)
    except queue.Empty:
        answer = TimeoutError()
    finally:
        connections.close()  # this also ends the thread
    if isinstance(answer, bytes):
        return answer
    if isinstance(answer, ImplementationError):
        raise answer
    reason = getattr(answer, "reason", answer)
    if isinstance(reason, TimeoutError):
        raise ImplementationError(f"{name}: no complete response within {seconds:g} seconds")
    hint = ": is the server running, and on this port?" if isinstance(reason, ConnectionRefusedError) else ""
    raise ImplementationError(f"{name}: the request failed: {printable(str(reason)) or type(answer).__name__}{hint}")


def _exchange(url: str, body: bytes, connections: "_Connections", name: str, seconds: float, largest: int) -> bytes:
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "minilm-np"}
    request = urllib.request.Request(url, body, headers)
    opener = urllib.request.build_opener(_HTTP(connections), _HTTPS(connections), _NoRedirection)
    answer = bytearray()
    try:
        with opener.open(request, timeout=seconds) as response:
            while piece := response.read1(1 << 16):
                answer += piece
                if len(answer) > largest:
                    raise ImplementationError(f"{name}: the response is longer than {largest} bytes")
            if response.length:
                raise ImplementationError(f"{name}: the response ends {response.length} bytes too early")
    except urllib.error.HTTPError as error:
        with error:
            said = printable(f"{error.code} {error.reason}: {error.read(200).decode(errors='replace').strip()}")
        raise ImplementationError(f"{name}: the server answered {said}") from None
    return bytes(answer)


class _Connections:
    """The connections of one exchange, which another thread can close."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._is_closed = False

    def create(self, address: tuple[str, int], *arguments: Any) -> socket.socket:
        """Do the work of `socket.create_connection`."""
        connected = socket.create_connection(address, *arguments)
        # what has arrived can still be read after a shutdown, so this is also how much is parsed in vain
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED)
        with self._lock:
            # a duplicate, because TLS takes the descriptor out of the original
            self._sockets.append(connected.dup())
        if self._is_closed:
            self.close()
        return connected

    def close(self) -> None:
        """Shut down every connection: a read that waits in the other thread returns."""
        with self._lock:
            self._is_closed = True
            for duplicate in self._sockets:
                with suppress(OSError), duplicate:
                    duplicate.shutdown(socket.SHUT_RDWR)
            self._sockets.clear()


class _Recorded(urllib.request.AbstractHTTPHandler):
    """Makes every connection through a `_Connections`."""

    def __init__(self, connections: _Connections) -> None:
        super().__init__()
        self._connections = connections

    def do_open(self, http_class: Any, req: urllib.request.Request, **arguments: Any) -> http.client.HTTPResponse:
        def connection(host: str, **options: Any) -> http.client.HTTPConnection:
            made: Any = http_class(host, **options)
            made._create_connection = self._connections.create  # http.client's own hook, by which it is tested
            return made

        return super().do_open(connection, req, **arguments)


class _HTTP(_Recorded, urllib.request.HTTPHandler):
    pass


class _HTTPS(_Recorded, urllib.request.HTTPSHandler):
    pass


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """Makes a redirect an error: the POST would become a GET without the texts."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None
