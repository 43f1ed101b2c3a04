"""Kernels that were compiled in advance, against kernels that are compiled on this machine: speed, and starts.

    python -m benchmarks.prebuilt speed [--rounds 15] [--threads 1]
    python -m benchmarks.prebuilt starts [--starts 9]

`speed` measures every target that this processor supports, and the kernels that Numba compiles for this very processor,
in processes that take turns. `starts` measures the time from the start of a process to its first vector: with a
library, with the code cache that LLVM loads, and with nothing cached, which compiles. All bits must agree.
"""

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks.common import Worker, markdown, peak_memory, processor, say
from benchmarks.texts import mixed
from minilm_np.engine.runtime.targets import COMPILE, TARGETS, VARIABLE

COMPUTE_TYPES = ("float32", "int16", "int8")
TEXTS = {"text of 7 tokens": (1, 7, 7), "text of 121 tokens": (1, 121, 121), "32 texts of 60 to 121": (32, 60, 121)}
STEP = "a training step"
REPEATS = {"text of 7 tokens": 50, "text of 121 tokens": 10, "32 texts of 60 to 121": 1, STEP: 1}  # in a round
FIGURES = ("seconds", "cpu", "load", "peak")  # of a start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["speed", "starts", "worker", "start"], metavar="speed | starts")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each process (default: %(default)s)")
    parser.add_argument("--starts", type=int, default=9, help="processes of each kind (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the encoder, for `speed` (default: %(default)s)")
    parser.add_argument("--compute-type", default="float32", help=argparse.SUPPRESS)  # of `worker` and `start`
    options = parser.parse_args()
    if options.command in ("worker", "start"):
        worker(options.compute_type, options.threads) if options.command == "worker" else start(options.compute_type)
        return 0
    print(f"{processor()}\n")
    same = speed(options.rounds, options.threads) if options.command == "speed" else starts(options.starts)
    print(f"\nthe bits {'agree' if same else 'DIFFER'}")
    return 0 if same else 1


# ---- speed -----------------------------------------------------------------------------------------------------------


def speed(rounds: int, threads: int) -> bool:
    """Print the time of each workload with each target as a ratio. Return whether the bits agree."""
    kinds = ["compiled here", *(target.name for target in TARGETS if target.fits())]
    rows, same = [], True
    for compute_type in COMPUTE_TYPES:
        say(f"{compute_type} ...")
        workers = {kind: _worker(compute_type, threads, kind) for kind in kinds}
        names = [*TEXTS, STEP] if compute_type == "float32" else list(TEXTS)
        seconds: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in kinds} for name in names}
        digests = set()
        for _ in range(rounds):
            for name in names:
                for kind, process in workers.items():
                    found = process.ask(workload=name)
                    seconds[name][kind].append(found["seconds"])
                    digests.add((name, found["digest"]))
        for process in workers.values():
            process.close()
        same = same and len(digests) == len(names)
        for name in names:
            medians = {kind: statistics.median(found) for kind, found in seconds[name].items()}
            first = medians[kinds[0]]
            ratios = (f"{medians[kind] / first:.3f}" for kind in kinds[1:])
            rows.append([f"{compute_type}, {name}", f"{first * 1e3:.3f} ms", *ratios])
    print("The median time with kernels compiled here, and the ratio to it of kernels compiled in advance.\n")
    print(markdown(["", *kinds], rows))
    return same


def _worker(compute_type: str, threads: int, kind: str) -> Worker:
    arguments = ("worker", "--compute-type", compute_type, "--threads", str(threads))
    return Worker("-m", "benchmarks.prebuilt", *arguments, **{VARIABLE: COMPILE if kind == "compiled here" else kind})


def worker(compute_type: str, threads: int) -> None:
    """Answer each line with the seconds of a workload and a digest of its result."""
    from minilm_np import SentenceEncoder

    encoder = SentenceEncoder(compute_type=compute_type, threads=threads)
    texts = {name: mixed(*arguments) for name, arguments in TEXTS.items()}
    work: dict[str, Callable[[], bytes]] = {
        name: lambda name=name: encoder.encode(texts[name]).tobytes()  # type: ignore[misc]
        for name in TEXTS
    }
    if compute_type == "float32":
        work[STEP] = _training_step(encoder, threads)
    for run in work.values():
        run()
    for line in sys.stdin:
        name = json.loads(line)["workload"]
        begin = time.perf_counter()
        for _ in range(REPEATS[name]):
            result = work[name]()
        seconds = (time.perf_counter() - begin) / REPEATS[name]
        print(json.dumps({"seconds": seconds, "digest": hashlib.sha256(result).hexdigest()}), flush=True)


def _training_step(encoder: Any, threads: int) -> Callable[[], bytes]:
    """A function that computes vectors and gradients of 16 texts, without an update of the weights."""
    import numpy as np

    from minilm_np.train.dropout import Dropout
    from minilm_np.train.engine import TrainingEngine

    weights = {name: array.copy() for name, array in encoder.model.engine.weights().items()}
    engine, dropout = TrainingEngine(encoder.config, weights, threads), Dropout(1, 1, 0.1, 0.1)
    generator = np.random.default_rng(1)
    texts = [generator.integers(1000, 20000, length).tolist() for length in range(20, 52, 2)]
    slope = np.ones((len(texts), encoder.config.hidden_size), np.float32)

    def run() -> bytes:
        vectors = engine.forward(texts, dropout)
        gradients = engine.backward(texts, slope, dropout)
        return vectors.tobytes() + np.asarray(gradients["encoder.layer.0.output.dense.weight"]).tobytes()

    return run


# ---- starts ----------------------------------------------------------------------------------------------------------


def starts(count: int) -> bool:
    """Print the time to the first vector with a library, with the code cache and without. Return whether bits agree."""
    rows, same = [], True
    for compute_type in COMPUTE_TYPES:
        say(f"{compute_type} ...")
        kinds = {"library": {VARIABLE: ""}, "code cache": {VARIABLE: COMPILE}}
        found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
        for round_ in range(count + 1):  # the first fills the caches
            for kind, environment in kinds.items():
                answer = _start(compute_type, environment)
                if round_:
                    found[kind].append(answer)
        with tempfile.TemporaryDirectory() as empty:
            found["nothing cached"] = [_compiling(compute_type, empty)]
        same = same and len({answer["fingerprint"] for answers in found.values() for answer in answers}) == 1
        for kind, answers in found.items():
            middle = {name: statistics.median(answer[name] for answer in answers) for name in FIGURES}
            rows.append([
                f"{compute_type}, {kind}", f"{middle['seconds'] * 1e3:,.0f} ms", f"{middle['cpu'] * 1e3:,.0f} ms",
                f"{middle['load'] * 1e3:,.1f} ms", f"{middle['peak'] / 1e6:.0f} MB",
            ])  # fmt: skip
    print(markdown(["kernels", "start to first vector", "CPU time", "loading the kernels", "peak memory"], rows))
    return same


def _compiling(compute_type: str, cache: str) -> dict[str, Any]:
    """A start that compiles. The model is not in that cache, and is named by its folder."""
    from minilm_np.model_files.hub import fetch

    model = fetch(on_message=lambda message: None).path
    return _start(compute_type, {VARIABLE: COMPILE, "MINILM_NP_CACHE": cache, "MINILM_NP_BENCHMARK_MODEL": str(model)})


def _start(compute_type: str, environment: dict[str, str]) -> dict[str, Any]:
    begin = time.perf_counter()
    process = Worker("-m", "benchmarks.prebuilt", "start", "--compute-type", compute_type, **environment)
    process.answer()
    seconds = time.perf_counter() - begin
    answer = {"seconds": seconds, **process.answer()}
    process.close()
    return answer


def start(compute_type: str) -> None:
    """Compute a first vector; print that it is there, and then the facts."""
    from minilm_np.engine.float32 import loading as float32_loading
    from minilm_np.engine.integer import loading as integer_loading

    loading = [0.0]

    def timed(load: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            begin = time.perf_counter()
            try:
                return load(*arguments)
            finally:
                loading[0] += time.perf_counter() - begin

        return run

    for module in (float32_loading, integer_loading):
        vars(module)["load_entries"] = timed(vars(module)["load_entries"])
    from minilm_np import SentenceEncoder

    model = os.environ.get("MINILM_NP_BENCHMARK_MODEL") or "all-MiniLM-L6-v2"
    encoder = SentenceEncoder(model, compute_type=compute_type)
    encoder.encode("This is an example sentence")
    cpu = time.process_time()
    print("true", flush=True)
    print(json.dumps({"cpu": cpu, "load": loading[0], "peak": peak_memory(), "fingerprint": encoder.fingerprint()}))


if __name__ == "__main__":
    sys.exit(main())
