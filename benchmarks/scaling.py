"""Throughput and peak memory by the number of texts, and throughput by the number of threads.

    python -m benchmarks.scaling [--quick] [--json FILE] [--chart FILE.png]

The texts are short sentences of 5 to 40 tokens. Every figure comes from a new process; the sizes, and the numbers of
threads, take turns in each round. Few texts are encoded repeatedly for a second, many texts once. Memory is VmHWM, the
peak of the process: `before` when the model is loaded and the texts exist, `after` when the texts are encoded. The
vectors take 1,536 bytes per text.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.common import Worker, describe, machine, markdown, peak_memory, say, take_stdout, write_json
from benchmarks.texts import short_sentences
from minilm_np import SentenceEncoder
from minilm_np.engine.runtime.workers import default_threads
from minilm_np.model_files.hub import fetch

LEAST_SECONDS = 1.0  # shortest time for which a process encodes
VECTOR_BYTES = 4 * 384


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few texts and repeats, only to check that it runs")
    parser.add_argument("--json", type=Path, help="write every measured figure to this file")
    parser.add_argument("--chart", type=Path, help="draw the curves into this PNG file (needs matplotlib)")
    options = parser.parse_args()
    rounds, sizes = (1, (100, 300, 1000)) if options.quick else (3, (100, 300, 1000, 3000, 10_000, 30_000, 100_000))
    threads, few = default_threads(), sizes[len(sizes) // 2]
    facts = machine()
    print(describe(facts))
    folder = str(fetch(on_message=lambda message: None).path)

    by_size: dict[int, list[dict[str, Any]]] = {size: [] for size in sizes}
    by_threads: dict[int, list[dict[str, Any]]] = {count: [] for count in range(1, threads + 1)}
    for number in range(rounds):
        for size, runs in by_size.items():
            say(f"round {number + 1} of {rounds}: {size:,} texts")
            runs.append(measure(folder, size, threads))
        for count, runs in by_threads.items():
            say(f"round {number + 1} of {rounds}: {count} threads")
            runs.append(measure(folder, few, count))

    print(f"\nShort sentences, {threads} threads: median of {rounds} process{'es' * (rounds > 1)} (lowest-highest).\n")
    print(markdown(["texts", *HEADER], [[f"{size:,}", *cells(size, runs)] for size, runs in by_size.items()]))
    print(f"\n{few:,} of them:\n")
    one = rate(by_threads[1])
    rows = [[str(count), *cells(few, runs), f"{rate(runs) / one:.2f}"] for count, runs in by_threads.items()]
    print(markdown(["threads", *HEADER, "speed-up"], rows))
    if options.json:
        write_json(options.json, {"machine": facts, "threads": threads, "by_size": by_size, "by_threads": by_threads})
    if options.chart:
        chart(by_size, by_threads, few, options.chart)


def measure(folder: str, n_texts: int, threads: int) -> dict[str, Any]:
    """The figures of one new process."""
    worker = Worker("-m", "benchmarks.scaling", "worker", folder, str(n_texts), str(threads))
    answer: dict[str, Any] = worker.answer()
    worker.close()
    return answer


def work(folder: str, n_texts: int, threads: int) -> dict[str, Any]:
    """The work of such a process."""
    encoder = SentenceEncoder(folder, threads=threads)
    texts = short_sentences(n_texts)
    n_tokens = sum(encoder.tokenizer(texts[:1000]).n_tokens) / min(n_texts, 1000)
    encoder.encode(texts[:100])
    before = peak_memory()
    times: list[float] = []
    while sum(times) < LEAST_SECONDS:
        start = time.perf_counter()
        encoder.encode(texts)
        times.append(time.perf_counter() - start)
    return {"tokens_per_text": n_tokens, "seconds": times, "before": before, "after": peak_memory()}


# ---- the figures -----------------------------------------------------------------------------------------------------

HEADER = ("texts / s", "tokens / s", "before, MB", "after, MB", "without the vectors, MB")


def rates(runs: list[dict[str, Any]]) -> list[float]:
    """Texts per second of each process."""
    return [run["texts"] / statistics.median(run["seconds"]) for run in runs]


def rate(runs: list[dict[str, Any]]) -> float:
    return statistics.median(rates(runs))


def cells(n_texts: int, runs: list[dict[str, Any]]) -> list[str]:
    found = rates(runs)
    before, after = (statistics.median(run[key] for run in runs) for key in ("before", "after"))
    return [
        f"{rate(runs):,.0f} ({min(found):,.0f}-{max(found):,.0f})",
        f"{rate(runs) * runs[0]['tokens_per_text']:,.0f}",
        f"{before / 1e6:.0f}",
        f"{after / 1e6:.0f}",
        f"{(after - n_texts * VECTOR_BYTES) / 1e6:.0f}",
    ]


def chart(
    by_size: dict[int, list[dict[str, Any]]], by_threads: dict[int, list[dict[str, Any]]], few: int, path: Path
) -> None:
    """Draw throughput and memory by the number of texts, and throughput by the number of threads."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (speed, memory, threads) = pyplot.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    sizes, red, grey = list(by_size), "#d1495b", "#8d96a3"
    speed.plot(sizes, [rate(runs) for runs in by_size.values()], "o-", color=red)
    speed.set(xscale="log", xlabel="texts", ylabel="texts per second", title="throughput")
    peaks = [statistics.median(run["after"] for run in runs) / 1e6 for runs in by_size.values()]
    without = [peak - size * VECTOR_BYTES / 1e6 for size, peak in zip(sizes, peaks, strict=True)]
    before = [statistics.median(run["before"] for run in runs) / 1e6 for runs in by_size.values()]
    memory.plot(sizes, peaks, "o-", color=red, label="peak")
    memory.plot(sizes, without, "o--", color=red, alpha=0.6, label="without the vectors")
    memory.plot(sizes, before, "o:", color=grey, label="before: model and texts")
    memory.set(xscale="log", xlabel="texts", ylabel="MB", title="peak memory of the process")
    memory.legend(frameon=False)
    one = rate(by_threads[1])
    threads.plot(list(by_threads), [one * count for count in by_threads], ":", color=grey, label="ideal")
    threads.plot(list(by_threads), [rate(runs) for runs in by_threads.values()], "o-", color=red, label="measured")
    threads.set(xlabel="threads", title=f"throughput, {few:,} texts", xticks=list(by_threads))
    threads.legend(frameon=False)
    for axes in (speed, memory, threads):
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        pipe = take_stdout()
        model, count, team = sys.argv[2:]
        pipe.write(json.dumps({"texts": int(count), **work(model, int(count), int(team))}) + "\n")
    else:
        main()
