"""The server: thousands of connections, requests that drip, bodies of gigabytes, clients that go away."""

import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tests.faults import Outcome, experiment
from tests.faults.children import environment, started
from tests.support import hostile
from tests.support.cli import NUMPY, write_small_model
from tests.support.server import ask, metric

LIMIT = 1024  # connections, the server's default
# 408: the client's process was too busy to send the headers within 10 seconds
POLITE = {"200": "served", "503": "refused with status 503", "408": "refused with status 408"}
GROWTH = 48 << 20  # bytes by which the server's memory may grow
AT_ONCE = 500  # clients that go away, in one round


@contextmanager
def serving(*options: str) -> Iterator[tuple[str, int]]:
    """The server of a small random model in a process: its URL and the id of the process."""
    with TemporaryDirectory() as folder:
        write_small_model(Path(folder))
        command = [
            sys.executable, "-m", "minilm_np", "serve", *NUMPY, "--model", folder, "--port", "0",
            "--log-format", "none", *options,
        ]  # fmt: skip
        with started(command, environment()) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if found := re.search(r"^minilm-np: serving .* on (http://.*)$", line):
                    yield found[1], process.pid
                    return
            raise AssertionError(f"the server ended with status {process.wait()}")


def memory(pid: int) -> int:
    """The resident memory of a process, in bytes."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return 1024 * int(found[1])


def answers(url: str) -> bool:
    """Whether the server answers others, within a minute at most."""
    return hostile.wait_for(lambda: ask(url, "/embed", {"inputs": "a"}).status == 200)


@experiment("server: connections beyond the limit", count=10_000, quick=300)
def server_connections(count: int, random: Random) -> Outcome:
    """Open connections at once and hold them; those within the limit are served, the others get an error status."""
    outcome = Outcome()
    limit = min(LIMIT, count // 3)
    with serving("--max-connections", str(limit)) as (url, pid):
        warm = hostile.connections(url, limit)
        before = memory(pid)
        found = hostile.connections(url, count)
        for status, times in found.items():
            if status in POLITE:
                outcome.hold(POLITE[status], times)
            else:
                outcome.failures += [f"a connection ended without a response ({status})"] * times
        if warm != {"200": limit} or found["200"] > limit:
            outcome.fail(f"expected {limit} connections that are served, found {warm['200']} and {found['200']}")
        if (grown := memory(pid) - before) > GROWTH:
            outcome.fail(f"the memory grew by {grown:,} bytes")
        if not answers(url):
            outcome.fail("the server answers no more")
    return outcome


@experiment("server: requests that drip", count=1000, quick=0)
def server_drips(count: int, random: Random) -> Outcome:
    """Send headers and bodies byte by byte on many connections; they end with status 408, and others are served."""
    outcome = Outcome()
    starts = [b"GET /health HTTP/1.1\r\nX: ", hostile.HEAD + b"Content-Length: 1000000\r\n\r\n"]
    with serving("--max-connections", str(2 * count)) as (url, _):
        for start in starts:
            found: dict[str, int] = {}
            dripping = threading.Thread(
                target=lambda found=found, start=start: found.update(hostile.drips(url, count // 2, start, 1.0))
            )
            dripping.start()
            while dripping.is_alive():
                if ask(url, "/embed", {"inputs": "a"}).status != 200:
                    outcome.fail("another client was refused")
                dripping.join(0.1)
            for status, times in found.items():
                if status == "408":
                    outcome.hold("status 408", times)
                else:
                    outcome.failures += [f"expected status 408, found {status}"] * times
    return outcome


@experiment("server: bodies of 2 GB", count=40, quick=2)
def server_bodies(count: int, random: Random) -> Outcome:
    """Send 2 GB lazily, by length or by chunks; the server refuses it early, and its memory does not grow."""
    outcome = Outcome()
    with serving("--max-body-bytes", str(1 << 20)) as (url, pid):
        answers(url)
        before = memory(pid)
        for number in range(count):
            answer, sent = hostile.lazy_body(url, chunked=bool(number % 2))
            grown = memory(pid) - before
            right = answer[9:12] in (b"413", b"") and sent < 64 << 20 and grown < GROWTH and answers(url)
            how = "refused with status 413" if answer else "reset"
            outcome.check(right, how, f"{answer[:40]!r}, {sent:,} bytes read, memory grew by {grown:,} bytes")
    return outcome


@experiment("server: clients that go away", count=20_000, quick=200)
def server_clients_that_leave(count: int, random: Random) -> Outcome:
    """Send requests and close each connection without reading; none stays in the queue, and memory does not grow."""
    outcome = Outcome()
    with serving() as (url, pid):
        body = json.dumps({"inputs": ["abc"] * 20}).encode()
        before = 0
        for number in range(0, count, AT_ONCE):
            clients = min(AT_ONCE, count - number)
            hostile.leave(url, body, clients)
            empty = hostile.wait_for(lambda: metric(url, "minilm_np_queue_requests") == 0)
            before = before or memory(pid)
            grown = memory(pid) - before
            if empty and grown < GROWTH:
                outcome.hold("dropped", clients)
            else:
                outcome.failures += [f"queue empty: {empty}, memory grew by {grown:,} bytes"] * clients
    return outcome
