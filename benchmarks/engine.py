"""An engine in figures: throughput against the NumPy backend, start-up, compilation, memory.

    python -m benchmarks.engine [--quick] [--compute-type int16]

Each figure comes from separate processes. The two backends take turns, with a pause in between, because the threads of
a BLAS keep spinning for a while. The ratio is the meaningful figure.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import processor
from minilm_np.engine.registry import COMPUTE_TYPES
from minilm_np.model_files.hub import fetch

WORKER = """
import sys, time
from benchmarks.texts import mixed
from minilm_np import SentenceEncoder
encoder = SentenceEncoder(backend=sys.argv[1], compute_type=sys.argv[2])
texts = mixed(32, 121, 121)
encoder.encode(texts)
for line in sys.stdin:
    start = time.perf_counter()
    encoder.encode(texts)
    print(time.perf_counter() - start, flush=True)
"""

FIRST_VECTOR = """
import re, sys
from minilm_np import SentenceEncoder
SentenceEncoder(sys.argv[1], compute_type=sys.argv[2]).encode("This is an example sentence")
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repeats, only to check that it runs")
    parser.add_argument("--compute-type", choices=COMPUTE_TYPES, default="float32", help="(default: %(default)s)")
    options = parser.parse_args()
    repeats = 2 if options.quick else 9
    machine = f"{processor()}, {len(os.sched_getaffinity(0))} processors, Python {platform.python_version()}"
    print(f"{machine}, compute type {options.compute_type}")

    seconds = throughput(options.compute_type, repeats)
    numba, numpy = (statistics.median(seconds[backend]) for backend in ("numba", "numpy"))
    print(f"32 texts of 121 tokens: numba {numba * 1e3:.0f} ms, numpy {numpy * 1e3:.0f} ms, ratio {numpy / numba:.2f}")

    with tempfile.TemporaryDirectory() as cache:
        cold, _ = first_vector(options.compute_type, cache)
        warm, memory = zip(*(first_vector(options.compute_type, cache) for _ in range(repeats)), strict=True)
    cached = statistics.median(warm)
    print(f"process start to first vector: {cold:.1f} s with compilation, {cached:.2f} s with cached kernels")
    print(f"peak memory (VmHWM) of that process: {statistics.median(memory):.0f} MB")


def throughput(compute_type: str, repeats: int) -> dict[str, list[float]]:
    """Seconds of each repeat, by backend. The backends take turns."""
    types = {"numba": compute_type, "numpy": "float32"}
    workers = {backend: start(WORKER, backend, used) for backend, used in types.items()}
    seconds: dict[str, list[float]] = {backend: [] for backend in workers}
    for _ in range(repeats + 1):
        for backend, worker in workers.items():
            worker.stdin.write("go\n")
            worker.stdin.flush()
            seconds[backend].append(float(worker.stdout.readline()))
            time.sleep(0.3)
    for worker in workers.values():
        worker.communicate()
    return {backend: values[1:] for backend, values in seconds.items()}


def first_vector(compute_type: str, cache: str) -> tuple[float, float]:
    """Run a process that encodes one text. Returns its seconds from start to end, and its peak memory in 10^6 bytes."""
    folder = str(fetch(on_message=lambda message: None).path)
    begin = time.perf_counter()
    output, _ = start(FIRST_VECTOR, folder, compute_type, MINILM_NP_CACHE=cache).communicate()
    return time.perf_counter() - begin, int(output) * 1024 / 1e6


def start(program: str, *arguments: str, **environment: str) -> Any:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        cwd=Path(__file__).parent.parent,
    )


if __name__ == "__main__":
    main()
