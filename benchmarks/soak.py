"""Keep `minilm-np serve` busy for a long time with clients that come and go, and watch its memory.

    python -m benchmarks.soak [--seconds S] [--clients N] [--threads N] [--seed N] [--json FILE]

At any moment 48 clients are there. Each connects, sends 1 to 20 requests, and goes. Most requests are one short text;
others have up to 100 texts or one long text, are large, are malformed, or go to another path. One client in ten goes
away without reading its last response, and one in twenty in the middle of a request. At every hundredth request the
vector of one and the same text is compared: it must always have the same bits.

Prints the resident memory, the threads and the open files once per minute; then the slope of the memory after the
first fifth of the time. Exit code 1: the memory grew by more than 16 MB on this line, a request failed, or bits differ.
"""

import argparse
import asyncio
import os
import random
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common import describe, machine, markdown, write_json
from benchmarks.serve_load import content_length, post
from benchmarks.serve_peers import MODEL, NotRunError, Process, peers
from benchmarks.texts import WORDS
from minilm_np.engine.runtime.workers import default_threads
from minilm_np.model_files.hub import fetch

FLAT = 16e6  # bytes by which the memory may grow after the warm-up
WARM_UP = 0.2  # of the time
OVERLOADED = ("429", "503")  # correct answers where other programs take the processors; the report counts them
ALWAYS = post("/v1/embeddings", {"model": MODEL, "input": "A text that is sent again and again"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, metavar="S", default=1800.0, help="duration (default: 1800)")
    parser.add_argument("--clients", type=int, metavar="N", default=48, help="clients at any moment (default: 48)")
    parser.add_argument(
        "--threads", type=int, metavar="N", default=default_threads(), help="of the server (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, metavar="N", default=0, help="seed of the requests (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    options = parser.parse_args()

    ours = peers(fetch(on_message=lambda message: None).path, options.threads, None, None)[0]["minilm_np"]
    print(describe(facts := machine()), flush=True)
    try:
        with Process(ours, options.threads) as process:
            soak = Soak(process, options.clients, options.seed)
            asyncio.run(soak.run(options.seconds))
    except NotRunError as error:
        sys.exit(f"the server did not start: {error}")
    found = soak.found(options.seconds)
    print(report(found))
    if options.json:
        write_json(options.json, {"machine": facts, **found})
    sys.exit(0 if found["flat"] and not found["faults"] else 1)


class Soak:
    """The clients of one server, and what they and the samples of its memory found."""

    def __init__(self, process: Process, clients: int, seed: int) -> None:
        self._process, self._n_clients = process, clients
        self._random = random.Random(seed)
        self._always: bytes | None = None  # the response to ALWAYS
        self._n_requests = 0
        self._deadline = 0.0
        self.statuses: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.samples: list[dict[str, float]] = []

    async def run(self, seconds: float) -> None:
        begin = time.monotonic()
        self._deadline = begin + seconds
        clients = [asyncio.create_task(self._clients()) for _ in range(self._n_clients)]
        next_line = 0.0
        while (now := time.monotonic()) < self._deadline:
            self.samples.append(self._sample(now - begin))
            if now - begin >= next_line:
                next_line += 60
                print(self._line(), flush=True)
            await asyncio.sleep(min(1.0, seconds / 50))
        await asyncio.gather(*clients)

    def _sample(self, seconds: float) -> dict[str, float]:
        pid = self._process.pid
        return {
            "seconds": seconds,
            "memory": self._process.memory(),
            "threads": len(os.listdir(f"/proc/{pid}/task")),
            "files": len(os.listdir(f"/proc/{pid}/fd")),
            "requests": self._n_requests,
        }

    def _line(self) -> str:
        one = self.samples[-1]
        return (
            f"{one['seconds']:6.0f} s  {one['memory'] / 1e6:7.1f} MB  {one['threads']:.0f} threads  "
            f"{one['files']:.0f} files  {one['requests']:,.0f} requests"
        )

    async def _clients(self) -> None:
        """One client after another."""
        while time.monotonic() < self._deadline:
            try:
                await self._client()
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                self.faults[f"{type(error).__name__}: {error}"[:200]] += 1
                await asyncio.sleep(0.1)

    async def _client(self) -> None:
        """A client's connection, from its beginning to its end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._process.port, limit=1 << 24)
        draw = self._random.random
        try:
            for _ in range(self._random.randint(1, 20)):
                self._n_requests += 1
                is_always = self._n_requests % 100 == 0
                request, expected = (ALWAYS, "200") if is_always else self._request()
                writer.write(request)
                status, body = await response(reader)
                self.statuses[status] += 1
                if status in OVERLOADED:
                    continue
                if status != expected:
                    self.faults[f"expected status {expected}, found {status}: {body[:100]!r}"] += 1
                    return
                if is_always:
                    self._always = self._always or body
                    if body != self._always:
                        self.faults["other bits of the same text"] += 1
            if (leaving := draw()) < 0.1:
                writer.write(self._request()[0])
            elif leaving < 0.15:
                writer.write(self._request()[0][: self._random.randint(1, 150)])
            await writer.drain()
        finally:
            writer.transport.abort() if draw() < 0.5 else writer.close()

    def _request(self) -> tuple[bytes, str]:
        """A random request, and the status that it must get."""
        kind = self._random.random()
        if kind < 0.7:
            return post("/v1/embeddings", {"model": MODEL, "input": self._text(20)}), "200"
        if kind < 0.75:
            texts = [self._text(30) for _ in range(self._random.randint(2, 100))]
            return post("/v1/embeddings", {"input": texts, "encoding_format": "base64"}), "200"
        if kind < 0.8:
            return post("/embed", {"inputs": self._text(1000), "truncate": True}), "200"
        if kind < 0.85:
            return post("/embed", {"inputs": "again " * 300}), "413"  # too long, and not to be truncated
        if kind < 0.9:
            return post("/similarity", {"inputs": {"source_sentence": "a", "sentences": [self._text(9)]}}), "200"
        if kind < 0.93:
            return post("/tokenize", {"inputs": self._text(50)}), "200"
        if kind < 0.95:
            return post("/v1/embeddings", {"input": [None]}), "400"
        if kind < 0.97:
            return b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "404"
        return b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "200"

    def _text(self, most_words: int) -> str:
        return " ".join(self._random.choices(WORDS, k=self._random.randint(1, most_words)))

    def found(self, seconds: float) -> dict[str, Any]:
        """Return the results: the slope of the memory is that of a line through the samples after the warm-up."""
        measured = [one for one in self.samples if one["seconds"] >= WARM_UP * seconds]
        line = statistics.linear_regression([one["seconds"] for one in measured], [one["memory"] for one in measured])
        growth = line.slope * (measured[-1]["seconds"] - measured[0]["seconds"])
        return {
            "seconds": seconds,
            "requests": self._n_requests,
            "statuses": dict(self.statuses),
            "faults": dict(self.faults),
            "bytes_per_hour": line.slope * 3600,
            "growth_bytes": growth,
            "flat": growth <= FLAT,
            "samples": self.samples,
        }


async def response(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Read one response: its status and its body, which may come in chunks."""
    head = await reader.readuntil(b"\r\n\r\n")
    status = head[9:12].decode()
    if b"\r\ntransfer-encoding: chunked" not in head.lower():
        return status, await reader.readexactly(content_length(head))
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return status, body


def report(found: dict[str, Any]) -> str:
    """Return the samples of ten moments as a table, and the conclusion."""
    samples = found["samples"]
    chosen = [samples[round(number * (len(samples) - 1) / 9)] for number in range(10)]
    rows = [
        (f"{one['seconds']:,.0f}", f"{one['memory'] / 1e6:.1f}", f"{one['threads']:.0f}", f"{one['files']:.0f}",
         f"{one['requests']:,.0f}")
        for one in chosen
    ]  # fmt: skip
    statuses = ", ".join(f"{times:,} with status {status}" for status, times in sorted(found["statuses"].items()))
    lines = [
        "",
        markdown(("seconds", "memory, MB", "threads", "open files", "requests"), rows),
        "",
        f"{found['requests']:,} requests: {statuses}",
        f"memory after the first fifth: {found['growth_bytes'] / 1e6:+.1f} MB on the fitted line, "
        f"{found['bytes_per_hour'] / 1e6:+.1f} MB per hour: {'flat' if found['flat'] else 'it GROWS'}",
    ]
    lines += [f"fault, {times:,} times: {fault}" for fault, times in found["faults"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
