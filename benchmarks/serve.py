"""Compare `minilm-np serve` with other servers of the model on a CPU: requests per second, and latency.

    python -m benchmarks.serve [--quick] [--rounds N] [--seconds S] [--clients N] [--threads N]
                               [--compute-types NAME,...] [--only KEY,...]
                               [--infinity PROGRAM] [--onnx FOLDER] [--json FILE]

Each server runs in a process, on the same number of threads; `serve_peers.py` lists them. A server that is not
installed or does not start is left out and named. A request has one sentence of 5 to 40 tokens.

1. Vectors: each server's vectors of 20 texts are compared with those of `SentenceEncoder`.
2. The ceiling: the same client with a server that computes nothing.
3. Peak rate: 64 clients, each of which sends its next request when it has its response.
4. Latency at half of the peak: requests arrive at random moments (a Poisson process), at 50% of the server's own peak
   rate in 3 (the median). A latency counts from the moment of arrival.

In 3 and 4 the servers take turns, and each round begins with another one. The servers whose turn it is not are stopped
(SIGSTOP). The client runs on the same processors as the servers; the table tells how much of them it used.
"""

import argparse
import contextlib
import json
import shutil
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import describe, machine, markdown, percentile, say, write_json
from benchmarks.serve_load import AtRate, Closed, Load, ask, run
from benchmarks.serve_peers import CEILING_PEER, NotRunError, Process, peers
from benchmarks.texts import short_sentences
from minilm_np import SentenceEncoder
from minilm_np.engine.runtime.workers import default_threads
from minilm_np.model_files.hub import fetch

OURS = "minilm_np"
SHARE = 0.5  # of its peak rate, at which a server's latency is measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, as a smoke test")
    parser.add_argument("--rounds", type=int, metavar="N", help="number of rounds (default: 5; with --quick 1)")
    parser.add_argument("--seconds", type=float, metavar="S", help="of each load (default: 10; with --quick 1)")
    parser.add_argument("--clients", type=int, metavar="N", default=64, help="for the peak rate (default: 64)")
    parser.add_argument(
        "--threads", type=int, metavar="N", default=default_threads(), help="per server (default: %(default)s)"
    )
    parser.add_argument(
        "--compute-types", metavar="NAME,...", type=lambda text: text.split(","), default=[],
        help="measure our server with these numbers, too: int16,int8",
    )  # fmt: skip
    parser.add_argument("--only", metavar="KEY,...", help="the beginnings of the servers' names: minilm_np,fastapi")
    parser.add_argument(
        "--infinity", metavar="PROGRAM", default=shutil.which("infinity_emb"), help="path of the program infinity_emb"
    )
    parser.add_argument("--onnx", type=Path, metavar="FOLDER", help="the model with onnx/model.onnx, for infinity-emb")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measured figure to FILE")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (1.0 if options.quick else 10.0)

    found = measured(options)
    print(table(found))
    if options.json:
        write_json(options.json, found)
    if failed := [name for name, one in found["servers"].items() if one["failures"]]:
        sys.exit(f"requests failed: {', '.join(failed)}")


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Return all measurements."""
    folder = fetch(on_message=lambda message: None).path
    every, left_out = peers(folder, options.threads, options.infinity, options.onnx, options.compute_types)
    if options.only:
        chosen = tuple(options.only.split(","))
        every = {name: peer for name, peer in every.items() if name.startswith(chosen)}
        left_out = {name: why for name, why in left_out.items() if name.startswith(chosen)}
    found: dict[str, Any] = {
        "machine": machine(), "threads": options.threads, "clients": options.clients, "rounds": options.rounds,
        "seconds": options.seconds, "quick": options.quick, "left_out": left_out, "servers": {},
    }  # fmt: skip
    texts = short_sentences(1000)
    with contextlib.ExitStack() as stack:
        processes: dict[str, Process] = {}
        for name, peer in {**every, "ceiling": CEILING_PEER}.items():
            say(f"start {peer.title}")
            try:
                processes[name] = stack.enter_context(Process(peer, options.threads))
            except NotRunError as error:
                left_out[name] = str(error)
                say(f"{name} is left out: {error}")
                continue
            processes[name].pause()
        if "ceiling" not in processes or len(processes) == 1:
            sys.exit(f"nothing to measure: {left_out}")
        ceiling = processes.pop("ceiling")
        requests = {name: [process.peer.request(text) for text in texts] for name, process in processes.items()}
        for name, difference in differences(processes, texts[:20]).items():
            found["servers"][name] = {"title": every[name].title, "difference": difference}
        found["ceiling"] = figures(ceiling, closed([CEILING_PEER.request(text) for text in texts], options))
        found["servers"] |= rounds(found["servers"], processes, requests, options)
    return found


def closed(requests: Sequence[bytes], options: argparse.Namespace) -> Closed:
    return Closed(requests, options.clients, options.seconds / 5, options.seconds)


def differences(processes: Mapping[str, Process], texts: list[str]) -> dict[str, float]:
    """Return the largest difference of each server's vectors from those of `SentenceEncoder`.

    Raises SystemExit if a server computes another model.
    """
    expected = SentenceEncoder().encode(texts)
    found = {}
    for name, process in processes.items():
        process.resume()
        answers = [ask(process.port, process.peer.request(text)) for text in texts]
        process.pause()
        if failed := [body for status, body in answers if status != "200"]:
            sys.exit(f"{name}: the request failed: {failed[0]!r:.300}")
        vectors = np.array([json.loads(body)["data"][0]["embedding"] for _, body in answers], np.float32)
        found[name] = float(np.abs(vectors - expected).max())
        if not found[name] < process.peer.far:
            sys.exit(f"{name}: its vectors differ by {found[name]:.1e} from those of SentenceEncoder")
    return found


def rounds(
    servers: Mapping[str, Mapping[str, Any]],
    processes: Mapping[str, Process],
    requests: Mapping[str, Sequence[bytes]],
    options: argparse.Namespace,
) -> dict[str, dict[str, Any]]:
    """Return the servers with their measurements at the peak and at half of it."""
    at_peak = in_turns("peak rate", processes, lambda name, number: closed(requests[name], options), options.rounds)
    peak = {name: statistics.median(one["rate"] for one in found) for name, found in at_peak.items()}

    def half(name: str, number: int) -> AtRate:
        return AtRate(requests[name], SHARE * peak[name], options.seconds / 5, options.seconds, seed=number)

    at_half = in_turns("half of the peak rate", processes, half, options.rounds)
    return {
        name: {
            **servers[name],
            "rate": peak[name],
            "p50": statistics.median(one["p50"] for one in at_peak[name]),
            "p99": statistics.median(one["p99"] for one in at_peak[name]),
            "half_p50": statistics.median(one["p50"] for one in at_half[name]),
            "half_p99": statistics.median(one["p99"] for one in at_half[name]),
            "failures": sum(sum(one["failures"].values()) for one in at_peak[name] + at_half[name]),
            "peak_memory_bytes": process.memory("VmHWM"),
            "at_peak": at_peak[name],
            "at_half": at_half[name],
        }
        for name, process in processes.items()
    }


def in_turns(
    title: str, processes: Mapping[str, Process], load: Callable[[str, int], Closed | AtRate], n_rounds: int
) -> dict[str, list[dict[str, Any]]]:
    """Return the figures of each server, one per round."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in processes}
    names = list(processes)
    for number in range(n_rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            found[name].append(figures(processes[name], load(name, number)))
            one = found[name][-1]
            say(f"{title}, round {number + 1}, {name}: {one['rate']:.1f} per second, p99 {1000 * one['p99']:.1f} ms")
    return found


def figures(process: Process, load: Closed | AtRate) -> dict[str, Any]:
    """Return what one load measures. The process runs meanwhile."""
    process.resume()
    cpu = process.cpu_seconds()
    measured: Load = run(process.port, load)
    cpu = process.cpu_seconds() - cpu
    process.pause()
    if not measured.latencies:
        sys.exit(f"{process.peer.title}: no response, but failures: {dict(measured.failures)}")
    n_all = len(measured.latencies) * (
        1 + load.warm_up / load.seconds
    )  # about; the CPU time is that of the warm-up, too
    return {
        "rate": measured.rate,
        "p50": percentile(measured.latencies, 50),
        "p99": percentile(measured.latencies, 99),
        "responses": len(measured.latencies),
        "failures": dict(measured.failures),
        "client_cpu": measured.client_cpu,
        "server_cpu_per_request": cpu / n_all,
        "late_p99": percentile(measured.late, 99) if measured.late else None,
    }


def table(found: Mapping[str, Any]) -> str:
    """Return the report: the machine, the figures of each server, and ours against each other server."""
    servers = found["servers"]
    ceiling = found["ceiling"]
    lines = [
        describe(found["machine"]),
        f"{found['clients']} clients, one short text per request, {found['threads']} threads per server, "
        f"{found['rounds']} rounds of {found['seconds']:g} s; medians of the rounds",
        f"ceiling of the client, with a server that computes nothing: {ceiling['rate']:,.0f} requests per second",
        "",
        markdown(
            (
                "server", "requests per second", "p50, ms", "p99, ms", "p50 at half, ms", "p99 at half, ms",
                "CPU ms per request", "CPUs of client", "peak memory, MB", "failed",
            ),
            [_row(one) for one in servers.values()],
        ),
    ]  # fmt: skip
    compared = [
        (
            f"{ours['title']} against {other['title']}",
            f"{ours['rate'] / other['rate']:.2f}",
            f"{ours['p99'] / other['p99']:.2f}",
            f"{ours['half_p99'] / other['half_p99']:.2f}",
        )
        for name, ours in servers.items()
        if name.startswith(OURS)
        for other_name, other in servers.items()
        if not other_name.startswith(OURS)
    ]
    if compared:
        lines += ["", markdown(("ratios", "requests per second", "p99", "p99 at half"), compared)]
    lines += [f"left out: {name}: {why}" for name, why in found["left_out"].items()]
    return "\n".join(lines)


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    rates = [each["rate"] for each in one["at_peak"]]
    return (
        one["title"],
        f"{one['rate']:,.0f} ({min(rates):,.0f} to {max(rates):,.0f})",
        *(f"{1000 * one[name]:.1f}" for name in ("p50", "p99", "half_p50", "half_p99")),
        f"{1000 * statistics.median(each['server_cpu_per_request'] for each in one['at_peak']):.2f}",
        f"{statistics.median(each['client_cpu'] for each in one['at_peak']):.2f}",
        f"{one['peak_memory_bytes'] / 1e6:,.0f}",
        str(one["failures"]),
    )


if __name__ == "__main__":
    main()
