"""Clients that harm a server: too many connections, requests that drip, bodies of gigabytes, clients that go away.

Everything is bounded in number and time, and goes to the address in the URL, which is on this machine.
"""

import asyncio
import resource
import socket
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

SECONDS = 60.0  # after which a client that waits gives up
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
TWO_GB = 2_000_000_000


def address(url: str) -> tuple[str, int]:
    """The host and the port of a URL. Raises ValueError unless it is this machine."""
    parts = urllib.parse.urlsplit(url)
    if parts.hostname != "127.0.0.1" or parts.port is None:
        raise ValueError(f"expected a URL of 127.0.0.1, found {url}")
    return parts.hostname, parts.port


def allow_files(count: int) -> None:
    """Allow this process so many open files more, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, count + 200), hard), hard))


def connections(url: str, count: int) -> Counter[str]:
    """Open connections, ask for /health on each, and keep those open that are answered: how many got which status.

    "closed": the connection ended without a response. All are closed at the end.
    """
    allow_files(count)

    async def one(held: list[asyncio.StreamWriter]) -> str:
        try:
            reader, writer = await asyncio.open_connection(*address(url))
        except OSError:
            return "closed"
        held.append(writer)
        try:
            writer.write(HEALTH)
            return (await reader.readuntil(b"\r\n\r\n"))[9:12].decode()
        except (OSError, asyncio.IncompleteReadError):
            return "closed"

    async def every() -> Counter[str]:
        held: list[asyncio.StreamWriter] = []
        try:
            async with asyncio.timeout(SECONDS):
                return Counter(await asyncio.gather(*(one(held) for _ in range(count))))
        finally:
            for writer in held:
                writer.transport.abort()

    return asyncio.run(every())


def drips(url: str, count: int, start: bytes, pause: float) -> Counter[str]:
    """Send `start`, and then a byte per pause until the server closes the connection, on many connections.

    Returns how many got which status. "closed" and "reset": the connection ended without a response.
    """

    async def status(reader: asyncio.StreamReader) -> str:
        try:
            return (await reader.readuntil(b"\r\n\r\n"))[9:12].decode()
        except asyncio.IncompleteReadError:
            return "closed"
        except OSError:
            return "reset"

    async def drip(writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(pause)

    async def one() -> str:
        reader, writer = await asyncio.open_connection(*address(url))
        writer.write(start)
        dripping = asyncio.create_task(drip(writer))
        try:
            found = await status(reader)
            with suppress(OSError):  # the end may be a reset: the client still sends
                await reader.read()
            return found
        finally:
            dripping.cancel()
            writer.transport.abort()

    async def every() -> Counter[str]:
        async with asyncio.timeout(SECONDS):
            return Counter(await asyncio.gather(*(one() for _ in range(count))))

    return asyncio.run(every())


def lazy_body(url: str, chunked: bool, total: int = TWO_GB) -> tuple[bytes, int]:
    """Send a body of spaces as long as the server reads it: the response, and the bytes that were sent."""
    piece = b" " * (1 << 16)
    part = b"%x\r\n" % len(piece) + piece + b"\r\n" if chunked else piece
    kind = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % total
    sent, found = 0, b""
    with socket.create_connection(address(url), SECONDS) as client:
        try:
            client.sendall(HEAD + kind + b"\r\n\r\n")
            while sent < total:
                client.sendall(part)
                sent += len(part)
        except OSError:  # the server has closed the connection
            pass
        try:
            while got := client.recv(1 << 16):
                found += got
        except OSError:
            pass
    return found, sent


def half_closed(url: str, body: bytes) -> bytes:
    """Send a whole request, close the side of the client, and read until the server closes its side."""
    found = b""
    with socket.create_connection(address(url), SECONDS) as client:
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        client.shutdown(socket.SHUT_WR)
        while got := client.recv(1 << 16):
            found += got
    return found


def leave(url: str, body: bytes, count: int) -> None:
    """Send requests on many connections, and close each without reading the response."""
    clients = [socket.create_connection(address(url), SECONDS) for _ in range(count)]
    for client in clients:
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    for client in clients:
        client.close()


def wait_for(condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true in time."""
    stop = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > stop:
            return False
        time.sleep(0.01)
    return True
