"""Compare this project with the other engines that run the model on a CPU: float32, from text to vector.

    python -m benchmarks.peers [--quick] [--rounds N] [--threads N] [--busy N] [--only ENGINE,...]
                               [--json FILE] [--chart FILE.png]

Each variant of each engine runs in a separate process, on the same number of threads; `contestants.py` defines them.
The vectors are checked first, and an engine with wrong vectors is excluded. Then the engines take turns: a block of
calls, a pause, the next engine. Without the pause the spinning threads of most engines would slow the next one. Each
round begins with another engine. For each workload the fastest variant of an engine counts. The peak, to which shares
refer, is the throughput of independent fma on the same number of threads; it is measured in turn with the engines. An
engine that is not installed is left out and named. With --busy, other processes compute at the same time.
"""

import argparse
import contextlib
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import exports
from benchmarks.common import (
    Worker,
    WorkerError,
    describe,
    machine,
    percentile,
    quartiles,
    say,
    thread_variables,
    write_json,
)
from benchmarks.contestants import CONTESTANTS
from benchmarks.install_size import installed_size, own_requirements
from benchmarks.peers_report import chart, tables
from benchmarks.workloads import flops, workloads
from minilm_np import SentenceEncoder
from minilm_np.engine.runtime.workers import default_threads
from minilm_np.model_files.config import load_config
from minilm_np.model_files.hub import fetch

OURS = "minilm_np"
LARGEST_ERROR = 1e-5  # of any number of a vector, against the NumPy reference; correct float32 has a tenth of it
PEAK_STEPS = 20_000_000


class Course:
    """The number of rounds, and the duration of blocks and pauses."""

    def __init__(self, quick: bool, rounds: int | None) -> None:
        self.quick = quick
        self.rounds = rounds or (2 if quick else 5)
        self.block_seconds, self.pause = (0.05, 0.05) if quick else (0.5, 0.4)
        self.starts = 1 if quick else self.rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few texts and repeats, as a smoke test")
    parser.add_argument("--rounds", type=int, help="number of rounds (default: 5; with --quick 2)")
    parser.add_argument("--threads", type=int, default=default_threads(), help="per engine (default: %(default)s)")
    parser.add_argument("--busy", type=int, default=0, help="processes that compute beside the engines (default: 0)")
    parser.add_argument("--only", help="the first letters of the peers to measure: onnxruntime,openvino,...")
    parser.add_argument("--json", type=Path, help="write every measured figure to FILE")
    parser.add_argument("--chart", type=Path, help="draw the ratios as PNG to FILE (needs matplotlib)")
    options = parser.parse_args()

    course = Course(options.quick, options.rounds)
    found: dict[str, Any] = {"machine": machine(), **vars(options), "left_out": {}}
    del found["json"], found["chart"]
    print(describe(found["machine"]))
    folder = str(fetch(on_message=lambda message: None).path)
    models = contestants_here(options.only, found["left_out"])
    with busy(options.busy):
        found["times"], found["errors"], found["peak_flops"] = compare(folder, models, options.threads, course, found)
        found["starts"] = starts(folder, {key: models[key] for key in found["times"]}, options.threads, course)
    found["sizes"] = sizes(list(found["times"]))
    found["workloads"] = described(folder, course)
    found["summary"] = summary(found)

    print(tables(found))
    for name, reason in found["left_out"].items():
        print(f"left out: {name}: {reason}")
    if options.json:
        write_json(options.json, found)
    if options.chart:
        chart(found, options.chart)


def contestants_here(only: str | None, left_out: dict[str, str]) -> dict[str, str]:
    """Return the contestants that can run here, each with the file that it loads ("" for the published folder)."""
    models = {}
    for key, way in CONTESTANTS.items():
        if only and key != OURS and not key.startswith(tuple(only.split(","))):
            continue
        if importlib.util.find_spec(way.module) is None:
            left_out[way.engine] = f"{way.module} is not installed"
            continue
        try:
            models[key] = str(exports.find(way.export)) if way.export else ""
        except exports.ExportError as error:
            left_out[key] = str(error)
    return models


def contestant(key: str, folder: str, model: str, threads: int, task: str) -> Worker:
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "true"}
    arguments = ("-m", "benchmarks.contestants", key, folder, model, str(threads), task)
    return Worker(*arguments, **thread_variables(threads), **quiet)


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Run `count` processes that only compute, until the block ends."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


# ---- the workloads ---------------------------------------------------------------------------------------------------


def compare(
    folder: str, models: dict[str, str], threads: int, course: Course, found: dict[str, Any]
) -> tuple[dict[str, dict[str, list[list[float]]]], dict[str, float], float]:
    """Return the seconds of every call by contestant, workload and round; the errors; the peak in FLOP per second."""
    begin = time.perf_counter()
    with contextlib.ExitStack() as stack:
        workers = {key: contestant(key, folder, model, threads, "serve") for key, model in models.items()}
        for worker in workers.values():
            stack.callback(worker.close)
        meter = Worker("-m", "benchmarks.peak", "serve", str(threads))
        stack.callback(meter.close)
        errors = check(folder, workers, course, found["left_out"])
        times: dict[str, dict[str, list[list[float]]]] = {key: {} for key in workers}
        peak = 0.0
        for number in range(course.rounds):
            say(f"{time.perf_counter() - begin:.0f} s: round {number + 1} of {course.rounds}")
            turns = [*workers][number % len(workers) :] + [*workers][: number % len(workers)]
            for workload in workloads(course.quick):
                time.sleep(course.pause)
                peak = max(peak, meter.ask(steps=PEAK_STEPS))
                for key in turns:
                    time.sleep(course.pause)
                    answer = workers[key].ask(quick=course.quick, workload=workload, seconds=course.block_seconds)
                    times[key].setdefault(workload, []).append(answer)
    return times, errors, peak


def check(folder: str, workers: dict[str, Worker], course: Course, left_out: dict[str, str]) -> dict[str, float]:
    """Return each contestant's largest error against the NumPy reference; remove those with wrong vectors."""
    errors = {}
    reference = SentenceEncoder(folder, backend="numpy")
    truths = {name: reference.encode(workload.texts) for name, workload in workloads(course.quick).items()}
    for key, worker in list(workers.items()):
        try:
            worker.answer()  # "ready"
            errors[key] = max(error(vectors(worker, name, course), truth) for name, truth in truths.items())
            if errors[key] <= LARGEST_ERROR:
                continue
            left_out[key] = f"its vectors are wrong by {errors[key]:.1e}"
        except WorkerError as gone:
            left_out[key] = str(gone)
        if key == OURS:
            raise SystemExit(f"{OURS}: {left_out[key]}")
        del workers[key]
    return errors


def vectors(worker: Worker, workload: str, course: Course) -> NDArray[np.float32]:
    with tempfile.TemporaryDirectory() as place:
        worker.ask(quick=course.quick, workload=workload, path=f"{place}/vectors.npy")
        found: NDArray[np.float32] = np.load(f"{place}/vectors.npy")
        return found


def error(found: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """Return the largest difference of any number; infinity where the shape differs, or a value is not finite."""
    if found.shape != truth.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - truth).max())


# ---- start, memory, size ---------------------------------------------------------------------------------------------


def starts(folder: str, models: dict[str, str], threads: int, course: Course) -> dict[str, dict[str, list[float]]]:
    """Return, by contestant, the seconds from process start to first vector, and the bytes of peak memory.

    The contestants are started in turns. The first start of each is not counted: it fills the page cache. The kernels
    of this project are compiled before.
    """
    found: dict[str, dict[str, list[float]]] = {
        key: {"seconds": [], "memory": []} for key in models if CONTESTANTS[key].starts
    }
    say("measuring the start of each engine")
    for number in range(course.starts + 1):
        for key in found:
            time.sleep(course.pause)
            begin = time.perf_counter()
            worker = contestant(key, folder, models[key], threads, "first")
            worker.answer()
            seconds = time.perf_counter() - begin
            memory = worker.answer()
            worker.close()
            if number or course.quick:
                found[key]["seconds"].append(seconds)
                found[key]["memory"].append(memory)
        if course.quick:
            break
    return found


def sizes(keys: list[str]) -> dict[str, dict[str, int]]:
    """Return, by engine, the bytes of each distribution that it needs."""
    return {
        CONTESTANTS[key].engine: installed_size(CONTESTANTS[key].distributions)
        if key != OURS
        else installed_size(own_requirements())
        for key in keys
    }


# ---- the figures -----------------------------------------------------------------------------------------------------


def described(folder: str, course: Course) -> dict[str, dict[str, Any]]:
    """Return the title, the tokens and the FLOP of each workload."""
    config = load_config(Path(folder))
    tokenizer = SentenceEncoder(folder, backend="numpy").tokenizer
    found = {}
    for name, workload in workloads(course.quick).items():
        lengths = tokenizer(workload.texts).n_tokens
        found[name] = {
            "title": workload.title,
            "texts": len(lengths),
            "tokens": sum(lengths),
            "flops": flops(lengths, config),
        }
    return found


def summary(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return, by workload, the figures of each engine's fastest variant, and the ratios of `ratios`."""
    times = found["times"]
    result: dict[str, dict[str, Any]] = {}
    for name, workload in found["workloads"].items():
        engines: dict[str, dict[str, Any]] = {}
        for key in times:
            calls = [seconds for calls in times[key][name] for seconds in calls]
            low, median, high = quartiles(calls)
            engine = CONTESTANTS[key].engine
            if engine in engines and engines[engine]["median"] <= median:
                continue
            engines[engine] = {
                "contestant": key,
                "calls": len(calls),
                "lower_quartile": low,
                "median": median,
                "upper_quartile": high,
                "percentile_90": percentile(calls, 90),
                "gflops": workload["flops"] / median * 1e-9,
                "share_of_peak": workload["flops"] / median / found["peak_flops"],
            }
        result[name] = {"engines": engines, **ratios(engines, times, name)}
    return result


def ratios(engines: dict[str, dict[str, Any]], times: dict[str, Any], workload: str) -> dict[str, Any]:
    """Return the best peer's time divided by ours: for the medians of all calls, and for each round."""
    peers = {engine: figures["median"] for engine, figures in engines.items() if engine != OURS}
    if not peers:
        return {}
    best = min(peers, key=lambda engine: peers[engine])
    key = engines[best]["contestant"]
    rounds = [
        statistics.median(theirs) / statistics.median(ours)
        for theirs, ours in zip(times[key][workload], times[OURS][workload], strict=True)
    ]
    return {"best_peer": best, "ratio": peers[best] / engines[OURS]["median"], "ratio_of_rounds": rounds}


if __name__ == "__main__":
    main()
