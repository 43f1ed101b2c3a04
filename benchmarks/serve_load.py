"""HTTP load for the benchmark of servers: clients that wait for their response, and arrivals at a given rate.

The client shares the processors with the server, so it must be cheap: raw HTTP/1.1 on keep-alive connections, and no
response is parsed beyond its status and its length. Every server gets the same client.
"""

import asyncio
import itertools
import json
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import uvloop

POOL = (
    128  # connections of `at_rate`; at 30 requests per second each is used every 4 seconds, so none is closed as idle
)
SETTLE_SECONDS = 30.0  # for responses that are late


@dataclass
class Load:
    """What one load measured: the latencies of its good responses, and the number of each kind of failure."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)  # seconds
    failures: Counter[str] = field(default_factory=Counter)
    client_cpu: float = 0.0  # processors that the client used, on average
    late: list[float] = field(default_factory=list)  # `at_rate`: seconds between an arrival and its first byte sent

    @property
    def rate(self) -> float:
        """Good responses per second."""
        return len(self.latencies) / self.seconds

    def record(self, latency: float, status: str) -> None:
        if status == "200":
            self.latencies.append(latency)
        else:
            self.failures[status] += 1


class Connection(asyncio.Protocol):
    """A keep-alive connection with one request at a time. `done` gets it, the status and the body after each."""

    def __init__(self, done: "Done") -> None:
        self.done = done
        self.begin = 0.0  # of the request that is under way; for its caller
        self.counts = True
        self._buffer = bytearray()
        self._head = 0  # bytes of the response's head, 0 before it is complete
        self._length = 0
        self._busy = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def send(self, request: bytes) -> None:
        self._busy = True
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._head:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head, self._length = end + 4, content_length(bytes(self._buffer[: end + 2]))
        if len(self._buffer) < self._head + self._length:
            return
        status, body = self._buffer[9:12].decode(), bytes(self._buffer[self._head :])
        self._buffer.clear()
        self._head, self._busy = 0, False
        self.done(self, status, body)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy:
            self._busy = False
            self.done(self, "connection lost", b"")

    def is_open(self) -> bool:
        return not self.transport.is_closing()


Done = Callable[[Connection, str, bytes], None]


def content_length(head: bytes) -> int:
    """Return the number in the header Content-Length. Raises ValueError if there is none."""
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    if not found:
        raise ValueError(f"expected a response with Content-Length, found the headers {head!r}")
    return int(rest.partition(b"\r\n")[0])


def post(path: str, content: object) -> bytes:
    """Return the bytes of a POST request with JSON."""
    body = json.dumps(content).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def run(port: int, load: "Closed | AtRate") -> Load:
    """Put a load on the server at a port of 127.0.0.1, and return what it measured."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load.measure(port))


def ask(port: int, request: bytes) -> tuple[str, bytes]:
    """Send one request; return the status and the body of its response."""

    async def one() -> tuple[str, bytes]:
        answer: asyncio.Future[tuple[str, bytes]] = asyncio.get_running_loop().create_future()
        connection = await connect(port, lambda _, status, body: answer.set_result((status, body)))
        connection.send(request)
        try:
            return await answer
        finally:
            connection.transport.close()

    return asyncio.run(one())


async def connect(port: int, done: Done) -> Connection:
    return (await asyncio.get_running_loop().create_connection(lambda: Connection(done), "127.0.0.1", port))[1]


async def window(load: Load, warm_up: float, seconds: float, counting: Callable[[bool], None]) -> None:
    """Wait for the warm-up; count for the given seconds; fill in the time and the client's CPU time.

    A slow server gets more time, until it has answered once.
    """
    await asyncio.sleep(warm_up)
    counting(True)
    begin, cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    while not load.latencies and not load.failures and time.perf_counter() - begin < SETTLE_SECONDS:
        await asyncio.sleep(0.1)
    load.seconds = time.perf_counter() - begin
    load.client_cpu = (time.process_time() - cpu) / load.seconds
    counting(False)


@dataclass(frozen=True)
class Closed:
    """A number of clients, each of which sends its next request when it has the response to the last one."""

    requests: Sequence[bytes]
    clients: int
    warm_up: float
    seconds: float

    async def measure(self, port: int) -> Load:
        load, following, clock = Load(), itertools.cycle(self.requests), time.perf_counter
        counts = False

        def counting(value: bool) -> None:
            nonlocal counts
            counts = value

        def done(connection: Connection, status: str, body: bytes) -> None:
            if counts:
                load.record(clock() - connection.begin, status)
            if connection.is_open():
                connection.begin = clock()
                connection.send(next(following))

        connections = [await connect(port, done) for _ in range(self.clients)]
        for connection in connections:
            connection.begin = clock()
            connection.send(next(following))
        await window(load, self.warm_up, self.seconds, counting)
        for connection in connections:
            connection.transport.abort()
        return load


@dataclass(frozen=True)
class AtRate:
    """Requests that arrive at random moments (a Poisson process), whether or not the server has answered the others.

    A latency counts from the moment of arrival, so that a server that stalls is not spared the requests that its stall
    would have delayed.
    """

    requests: Sequence[bytes]
    rate: float  # requests per second
    warm_up: float
    seconds: float
    seed: int

    async def measure(self, port: int) -> Load:
        load, following, clock = Load(), itertools.cycle(self.requests), time.perf_counter
        free: deque[Connection] = deque()  # the one that waits longest is used first
        waiting: deque[tuple[float, bool]] = deque()  # arrivals for which no connection is free
        counts, missing = False, 0

        def counting(value: bool) -> None:
            nonlocal counts
            counts = value

        def start(connection: Connection, begin: float, counted: bool) -> None:
            connection.begin, connection.counts = begin, counted
            if counted:
                load.late.append(clock() - begin)
            connection.send(next(following))

        def done(connection: Connection, status: str, body: bytes) -> None:
            nonlocal missing
            if connection.counts:
                missing -= 1
                load.record(clock() - connection.begin, status)
            if not connection.is_open():
                return
            if waiting:
                start(connection, *waiting.popleft())
            else:
                free.append(connection)

        def arrive(moment: float) -> None:
            nonlocal missing
            missing += counts
            while free and not free[0].is_open():
                free.popleft()
            if free:
                start(free.popleft(), moment, counts)
            else:
                waiting.append((moment, counts))

        async def arrivals() -> None:
            generator, moment = random.Random(self.seed), clock()
            while True:
                moment += generator.expovariate(self.rate)
                if (ahead := moment - clock()) > 0:
                    await asyncio.sleep(ahead)
                arrive(moment)

        connections = [await connect(port, done) for _ in range(POOL)]
        free.extend(connections)
        arriving = asyncio.create_task(arrivals())
        await window(load, self.warm_up, self.seconds, counting)
        arriving.cancel()
        stop = clock() + SETTLE_SECONDS
        while missing and clock() < stop:
            await asyncio.sleep(0.01)
        if missing:
            load.failures["no response"] += missing
        for connection in connections:
            connection.transport.abort()
        return load
