"""Limits of a connection that uvicorn does not have: its number, slow or long headers, a client that does not read.

uvicorn waits without end for the headers of a request, for a body that nothing reads, and for a client to read its
response. A client can open many such connections at no cost (slow loris, slow read). uvicorn also accepts any number of
requests on one connection before it has answered the first one (pipelining). In another ASGI server a proxy in front
must set these limits.
"""

import asyncio

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from minilm_np.server.settings import ServerSettings

HEAD_BYTES = 64 << 10  # of the request line and the headers
UNANSWERED = 100  # requests without a response on one connection; honest clients send one, or a few
LINGER_SECONDS = 1.0  # between a refusal and the end of the connection, so that the client can read the refusal


def protocol_with_limits(settings: ServerSettings) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol with the limits of the settings, for `uvicorn.Config(http=...)`."""

    class LimitedProtocol(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None  # until the headers, or a body that nothing reads, are complete
        _write_timer: asyncio.TimerHandle | None = None  # until the client reads
        _unanswered: tuple[RequestResponseCycle, ...] = ()  # the requests without a complete response
        _body_bytes = _other_bytes = 0  # of a request: its body, and its headers, chunk sizes and trailers
        _is_refused = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > settings.max_connections:
                self._refuse(
                    503, "server_overloaded", f"the server has {settings.max_connections} connections, its limit"
                )
            else:
                self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            self._stop_write_timer()
            self._drop_requests()  # uvicorn itself drops only the last one
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._is_refused:
                return
            self._other_bytes += len(data)
            super().data_received(data)
            if self._other_bytes > HEAD_BYTES + self._body_bytes // 8:  # chunk sizes need far less than an eighth
                self._refuse(431, "headers_too_large", f"expected at most {HEAD_BYTES:,} bytes of headers")

        def on_message_begin(self) -> None:
            if self._is_refused:
                raise ConnectionAbortedError  # the parser reads no more of the data
            super().on_message_begin()
            self._expect_head()

        def on_headers_complete(self) -> None:
            self._stop_timer()
            super().on_headers_complete()
            self._unanswered = (*(one for one in self._unanswered if not one.response_complete), self.cycle)
            if len(self._unanswered) > UNANSWERED:
                self._refuse(429, "too_many_requests", f"expected at most {UNANSWERED} requests without a response")

        def on_body(self, body: bytes) -> None:
            self._other_bytes -= len(body)
            self._body_bytes += len(body)
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._body_bytes = self._other_bytes = 0
            super().on_message_complete()
            if self.cycle.response_complete:  # and nothing has read this body
                self._stop_timer()
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.transport.is_closing():
                self._expect_reading()
            elif self.cycle.response_complete and self.cycle.more_body:
                self._timer = self.loop.call_later(settings.body_timeout, self.transport.abort)

        def timeout_keep_alive_handler(self) -> None:
            super().timeout_keep_alive_handler()
            self._expect_reading()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._expect_reading()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop_write_timer()
            if self.transport.is_closing():
                self._expect_reading()

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, "invalid_http", "the request is not valid HTTP/1.1")

        def _expect_head(self) -> None:
            if self._timer is None:
                self._timer = self.loop.call_later(settings.head_timeout, self._give_up)

        def _give_up(self) -> None:
            self._timer = None
            if self.cycle is not None and not self.cycle.response_complete:  # of an earlier request
                self._expect_head()
                return
            self._refuse(408, "request_timeout", f"the headers did not arrive within {settings.head_timeout:g} seconds")

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _expect_reading(self) -> None:
            """End the connection unless the client reads what was written in time.

            A transport that is closed waits, without end, until the client has read everything.
            """
            self._stop_write_timer()
            self._write_timer = self.loop.call_later(settings.write_timeout, self.transport.abort)

        def _stop_write_timer(self) -> None:
            if self._write_timer is not None:
                self._write_timer.cancel()
                self._write_timer = None

        def _drop_requests(self) -> None:
            """End the requests without a complete response, as if their client had gone."""
            for cycle in self._unanswered:
                if not cycle.response_complete:
                    cycle.disconnected = True
                    cycle.message_event.set()
            self._unanswered = ()
            self.pipeline.clear()

        def _refuse(self, status: int, code: str, message: str) -> None:
            """Send an error, and close the connection a little later. Requests without a response are dropped."""
            self._stop_timer()
            if self._is_refused or self.transport.is_closing():
                return
            self._is_refused = True
            self.connections.discard(self)  # it takes no place from others
            is_started = any(one.response_started and not one.response_complete for one in self._unanswered)
            self._drop_requests()
            if not is_started:  # else the error would be a part of that response
                self.transport.write(_refusal(status, code, message))
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    return LimitedProtocol


PHRASES = {
    400: "Bad Request",
    408: "Request Timeout",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


def _refusal(status: int, code: str, message: str) -> bytes:
    """A complete response in the shape of OpenAI's errors; the path is not known."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    body = orjson.dumps({"error": error})
    retry = "retry-after: 1\r\n" if status == 503 else ""
    head = (
        f"HTTP/1.1 {status} {PHRASES[status]}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"{retry}connection: close\r\n\r\n"
    )
    return head.encode() + body
