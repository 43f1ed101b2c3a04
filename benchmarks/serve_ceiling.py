"""A server that computes nothing: it shows how many requests per second the client of `benchmarks.serve` can send.

    python -m benchmarks.serve_ceiling --port N

It answers every request at once with 384 numbers, always the same.
"""

import argparse
import asyncio
import json

import uvloop

from benchmarks.serve_load import content_length

VECTOR = [round(0.01 * number / 384, 9) + 1e-10 for number in range(384)]
BODY = json.dumps({"object": "list", "data": [{"index": 0, "embedding": VECTOR}]}).encode()
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


class Answering(asyncio.Protocol):
    """Answers each complete request with RESPONSE."""

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if end and len(body) >= content_length(head + b"\r\n"):
            self._buffer = b""
            self._transport.write(RESPONSE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, metavar="N", required=True, help="port on 127.0.0.1")
    port = parser.parse_args().port

    async def answer() -> None:
        server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", port)
        await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(answer())


if __name__ == "__main__":
    main()
