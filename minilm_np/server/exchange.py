"""One request and its response: the body within its limits, the response, and a client that goes away."""

import asyncio
import time
from collections.abc import Iterable

import orjson
from starlette.types import Message, Receive, Scope, Send

from minilm_np.server.failures import ClientGoneError, RequestError, Why
from minilm_np.server.settings import ServerSettings

DRAINED = 8  # times the limit of a body: more of a body that is too large is not read before the connection is closed
DRAIN_SECONDS = 2.0
JSON = b"application/json"


class Bodies:
    """The bytes of all bodies in memory, and their limit."""

    def __init__(self, most: int) -> None:
        self.n_bytes, self.most = 0, most


class Exchange:
    """A request, and what its line of the log says. An ASGI server gives scope, receive and send."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, settings: ServerSettings, bodies: Bodies) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self._settings, self._bodies = settings, bodies
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.started = time.perf_counter()
        self.status = 0  # of the response; 499 if the client has gone
        self.n_texts = self.n_tokens = 0
        self.failure = ""  # the code of OpenAI's API
        self._body_bytes = 0
        self._is_started = False
        self._watcher: asyncio.Task[Message] | None = None

    # ---- the request ---------------------------------------------------------------------------------------------

    async def body(self) -> bytes:
        """Read the body. Raises RequestError: it is too large, too slow, or not JSON; ClientGoneError."""
        self._check_headers()
        most = self._settings.max_body_bytes
        length = self.headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 18 or int(length) > most:
            raise _too_large(most)
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self._settings.body_timeout):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    self._count(message.get("body", b""), most)
                    parts.append(message.get("body", b""))
                    if not message.get("more_body", False):
                        return parts[0] if len(parts) == 1 else b"".join(parts)
        except TimeoutError:
            raise RequestError(
                Why.SLOW_BODY,
                f"the body did not arrive within {self._settings.body_timeout:g} seconds: send it faster",
                ends=True,
            ) from None

    def _check_headers(self) -> None:
        kind = self.headers.get(b"content-type", JSON).partition(b";")[0].strip().lower()
        if kind != JSON:
            raise RequestError(
                Why.NOT_SUPPORTED,
                f"the header Content-Type: expected application/json, found {kind.decode('latin-1')[:80]!r}",
            )
        coding = self.headers.get(b"content-encoding", b"identity").strip().lower()
        if coding != b"identity":
            raise RequestError(
                Why.NOT_SUPPORTED,
                f"the header Content-Encoding: expected none, found {coding.decode('latin-1')[:80]!r}: send the body "
                "without compression",
            )

    def _count(self, part: bytes, most: int) -> None:
        self._body_bytes += len(part)
        self._bodies.n_bytes += len(part)
        if self._body_bytes > most:
            raise _too_large(most)
        if self._bodies.n_bytes > self._bodies.most:
            raise RequestError(
                Why.OVERLOADED,
                f"the server is overloaded: the requests in flight exceed {self._bodies.most:,} bytes: "
                "try again in 1 second",
                retry_after=1,
                ends=True,
            )

    def watch(self) -> "asyncio.Task[Message]":
        """Return a task that ends when the client has gone, or has got its response."""
        self._watcher = asyncio.ensure_future(self._receive())
        return self._watcher

    # ---- the response --------------------------------------------------------------------------------------------

    async def respond(
        self, content: bytes, *, status: int = 200, kind: bytes = JSON, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        """Send a complete response."""
        await self._start(status, [(b"content-type", kind), (b"content-length", b"%d" % len(content)), *headers])
        await self._send({"type": "http.response.body", "body": content})

    async def respond_in_parts(self, parts: Iterable[bytes]) -> None:
        """Send parts of JSON as they are made, each when the client has read enough of the last one.

        Raises ClientGoneError.
        """
        await self._start(200, [(b"content-type", JSON)])
        for part in parts:
            if self._watcher is not None and self._watcher.done():
                raise ClientGoneError
            await self._send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0)  # other requests are served meanwhile
        await self._send({"type": "http.response.body", "body": b""})

    async def refuse(self, error: RequestError, api: str) -> None:
        """Send the response that says why a request is refused."""
        status, answer = error.answer(api)
        self.failure = error.why.value.openai_code or ""
        headers = [(b"content-type", JSON)]
        if error.retry_after is not None:
            headers.append((b"retry-after", b"%d" % error.retry_after))
        if error.why is Why.NO_KEY:
            headers.append((b"www-authenticate", b"Bearer"))
        if error.ends:
            headers.append((b"connection", b"close"))
        content = orjson.dumps(answer)
        await self._start(status, [*headers, (b"content-length", b"%d" % len(content))])
        await self._send({"type": "http.response.body", "body": content, "more_body": error.ends})
        if error.ends:
            await self._drain()
            await self._send({"type": "http.response.body", "body": b""})

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status, self._is_started = status, True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _drain(self) -> None:
        """Read what the client still sends, within limits.

        A client that is still sending would lose the response if the connection were closed at once: what it sends
        then is answered with a reset.
        """
        left = DRAINED * self._settings.max_body_bytes
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while left > 0:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
        except TimeoutError:
            return

    @property
    def is_started(self) -> bool:
        """Whether a response has begun, so that no other one can be sent."""
        return self._is_started

    def close(self) -> None:
        """Give the memory of the body back."""
        self._bodies.n_bytes -= self._body_bytes
        self._body_bytes = 0


def _too_large(most: int) -> RequestError:
    return RequestError(Why.TOO_LARGE, f"the body: expected at most {most:,} bytes: send several requests", ends=True)
