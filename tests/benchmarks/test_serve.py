"""benchmarks.serve: what the client counts, with servers that are made up, and the report from made-up figures."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from benchmarks.serve import figures, table
from benchmarks.serve_load import AtRate, Closed, Load, ask, content_length, post, run
from benchmarks.soak import Soak

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"
REQUESTS = [post("/v1/embeddings", {"input": "a"})]


@contextmanager
def answering(*responses: bytes, seconds: float = 0.0) -> Iterator[int]:
    """A server in a thread that gives these responses in turn, each after some seconds: its port. b"" closes."""
    started, port = threading.Event(), 0
    count = 0

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(content_length(head))
                await asyncio.sleep(seconds)
                answer, count = responses[count % len(responses)], count + 1
                if not answer:
                    break
                writer.write(answer[:20])
                await asyncio.sleep(0)
                writer.write(answer[20:])
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def serve() -> None:
        nonlocal port
        server = await asyncio.start_server(client, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        started.set()
        await stop.wait()
        server.close()

    stop, loop = asyncio.Event(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    assert started.wait(60)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()


def test_one_request_and_its_response() -> None:
    with answering(OK) as port:
        assert ask(port, REQUESTS[0]) == ("200", b"ok")


def test_a_client_waits_for_its_response_before_it_sends_again() -> None:
    with answering(OK, seconds=0.05) as port:
        found = run(port, Closed(REQUESTS, clients=4, warm_up=0.1, seconds=0.5))
    assert 0 < len(found.latencies) <= 4 * 11
    assert min(found.latencies) >= 0.047  # the timer may end a little early
    assert found.rate == pytest.approx(len(found.latencies) / found.seconds)
    assert not found.failures


def test_failures_are_counted_and_not_measured() -> None:
    with answering(OK, BUSY) as port:
        found = run(port, Closed(REQUESTS, clients=2, warm_up=0.0, seconds=0.3))
    assert set(found.failures) == {"429"}
    assert abs(found.failures["429"] - len(found.latencies)) <= 2


def test_lost_connections_are_failures() -> None:
    with answering(OK, OK, b"", seconds=0.02) as port:
        found = run(port, Closed(REQUESTS, clients=3, warm_up=0.0, seconds=0.3))
    assert set(found.failures) == {"connection lost"}


def test_requests_arrive_at_the_rate_whatever_the_server_does() -> None:
    """300 requests per second, each of which takes 0.2 seconds: a client that waited could not send them."""
    with answering(OK, seconds=0.2) as port:
        found = run(port, AtRate(REQUESTS, rate=300.0, warm_up=0.1, seconds=1.0, seed=0))
    assert len(found.latencies) == pytest.approx(300, abs=100)
    assert min(found.latencies) >= 0.197  # timers of the event loop may end a millisecond early, on both sides
    assert not found.failures


def test_a_latency_counts_from_the_arrival_when_no_connection_is_free() -> None:
    """128 connections take 0.5 seconds each: of 1,000 arrivals per second most wait longer for a connection."""
    with answering(OK, seconds=0.5) as port:
        found = run(port, AtRate(REQUESTS, rate=1000.0, warm_up=0.0, seconds=0.6, seed=0))
    assert max(found.latencies) > 1.0


def test_a_response_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a response with Content-Length, found the headers"):
        content_length(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n")


def test_a_load_without_a_good_response_ends_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    class Made:
        port, peer = 0, type("Peer", (), {"title": "a server"})

        def nothing(self) -> float:
            return 0.0

        resume = pause = cpu_seconds = nothing

    def failed(port: int, load: object) -> Load:
        found = Load()
        found.record(1.0, "500")
        return found

    monkeypatch.setattr("benchmarks.serve.run", failed)
    with pytest.raises(SystemExit, match=r"a server: no response, but failures: \{'500': 1\}"):
        figures(Made(), Closed(REQUESTS, 1, 0.0, 1.0))  # type: ignore[arg-type]


def made_up(title: str, rate: float, p99: float) -> dict[str, Any]:
    one = {"rate": rate, "server_cpu_per_request": 0.002, "client_cpu": 0.1}
    return {
        "title": title, "rate": rate, "p50": p99 / 2, "p99": p99, "half_p50": p99 / 20, "half_p99": p99 / 10,
        "failures": 0, "peak_memory_bytes": 250_000_000, "at_peak": [one, one | {"rate": rate + 10}], "at_half": [],
    }  # fmt: skip


def test_the_report_compares_ours_with_each_other_server() -> None:
    machine = {
        "processor": "A processor", "processors": 2, "memory_bytes": 1 << 34, "system": "Linux", "python": "3.11",
        "packages": {}, "load_average_at_start": 0.0,
    }  # fmt: skip
    found = {
        "machine": machine, "clients": 64, "threads": 2, "rounds": 2, "seconds": 10.0, "ceiling": {"rate": 20_000.0},
        "servers": {"minilm_np": made_up("ours", 900.0, 0.1), "other": made_up("theirs", 300.0, 0.4)},
        "left_out": {"infinity": "not installed"},
    }  # fmt: skip
    lines = [" ".join(line.replace("|", " ").split()) for line in table(found).splitlines()]
    assert "ours 900 (900 to 910) 50.0 100.0 5.0 10.0 2.00 0.10 250 0" in lines
    assert "ours against theirs 3.00 0.25 0.25" in lines
    assert "left out: infinity: not installed" in lines


@pytest.mark.parametrize(("slope", "flat"), [(0.0, True), (10_000.0, True), (40_000.0, False)])
def test_the_memory_of_a_soak_is_a_line_through_what_follows_the_warm_up(slope: float, flat: bool) -> None:
    soak = Soak(process=None, clients=0, seed=0)  # type: ignore[arg-type]
    soak.samples = [
        {"seconds": float(second), "memory": slope * second if second >= 200 else 0.0} for second in range(1000)
    ]
    found = soak.found(1000.0)
    assert found["bytes_per_hour"] == pytest.approx(3600 * slope)
    assert found["flat"] is flat
