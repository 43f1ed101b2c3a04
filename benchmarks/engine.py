"""An engine in figures: throughput against the NumPy backend, process start and its parts, compilation, memory.

    python -m benchmarks.engine [--quick] [--compute-type float32,int16,int8]

Each figure comes from separate processes, which take turns. All figures are medians, except those with compilation.

The threads of a BLAS keep spinning for a while, so there is a pause after each call. The ratio is the meaningful
figure. The time from process start to first vector is measured with files in the page cache, and once with kernels that
the process compiles. The table of its parts comes from other processes, which measure themselves; so the sum of the
parts is a little more.
"""

import argparse
import contextlib
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import Worker, markdown, processor
from minilm_np._files import package_cache
from minilm_np.engine.registry import COMPUTE_TYPES
from minilm_np.engine.runtime.targets import COMPILE, VARIABLE
from minilm_np.model_files.hub import fetch
from minilm_np.model_files.manifest import DEFAULT_MODEL

ENCODE = """
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
SentenceEncoder(compute_type=sys.argv[1]).encode("This is an example sentence")
print("true", flush=True)
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="few repeats and one compilation, only to check that it runs"
    )
    parser.add_argument("--compute-type", default=",".join(COMPUTE_TYPES), help="one or more (default: %(default)s)")
    options = parser.parse_args()
    types = options.compute_type.split(",")
    if unknown := set(types) - set(COMPUTE_TYPES):
        parser.error(f"argument --compute-type: expected {', '.join(COMPUTE_TYPES)}, found {', '.join(unknown)}")
    repeats = 2 if options.quick else 9
    print(f"{processor()}, {len(os.sched_getaffinity(0))} processors, Python {platform.python_version()}\n")

    numpy, *ours = throughput(types, repeats)
    print(f"32 texts of 121 tokens: numpy {numpy * 1e3:.0f} ms")
    for compute_type, seconds in zip(types, ours, strict=True):
        print(f"    numba, {compute_type}: {seconds * 1e3:.0f} ms, ratio {numpy / seconds:.2f}")

    with tempfile.TemporaryDirectory() as empty:
        compiled = {VARIABLE: COMPILE}
        to_compile = types[:1] if options.quick else types  # the integer kernels take a minute
        cold = {one: first_vector(one, cache, **compiled)[0] for one, cache in caches(to_compile, empty)}
        warm: dict[str, list[tuple[float, float]]] = {compute_type: [] for compute_type in types}
        parts: dict[str, list[dict[str, float]]] = {compute_type: [] for compute_type in types}
        for _ in range(repeats):
            for compute_type, cache in caches(types, empty):
                warm[compute_type].append(first_vector(compute_type, cache))
                parts[compute_type].append(start_parts(compute_type, cache))
    print("\nProcess start to first vector.\n")
    print(markdown(["", *types], start_rows(types, cold, warm, parts)))


def throughput(types: list[str], repeats: int) -> list[float]:
    """Return the median seconds for 32 texts of 121 tokens: of the NumPy backend, and of each compute type."""
    which = [("numpy", "float32"), *(("numba", compute_type) for compute_type in types)]
    workers = [Worker("-c", ENCODE, *one) for one in which]
    seconds: list[list[float]] = [[] for _ in workers]
    for _ in range(repeats + 1):
        for worker, found in zip(workers, seconds, strict=True):
            found.append(worker.ask())
            time.sleep(0.3)
    for worker in workers:
        worker.close()
    return [statistics.median(found[1:]) for found in seconds]


# ---- the start -------------------------------------------------------------------------------------------------------


def caches(types: list[str], folder: str) -> Iterator[tuple[str, str]]:
    """Yield each compute type with a cache of this package, which is at first empty, except for the model."""
    model = fetch(on_message=lambda message: None)
    for compute_type in types:
        cache = Path(folder) / compute_type
        if model.path.is_relative_to(package_cache()):
            (cache / DEFAULT_MODEL).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                (cache / DEFAULT_MODEL).symlink_to(model.path)
        yield compute_type, str(cache)


def first_vector(compute_type: str, cache: str, **environment: str) -> tuple[float, float]:
    """Return the seconds from the start of a process to its first vector, and its peak memory in bytes."""
    begin = time.perf_counter()
    worker = Worker("-c", FIRST_VECTOR, compute_type, MINILM_NP_CACHE=cache, **environment)
    worker.answer()
    seconds = time.perf_counter() - begin
    memory = worker.answer() * 1024
    worker.close()
    return seconds, memory


def start_parts(compute_type: str, cache: str) -> dict[str, float]:
    """Return the seconds of the parts of such a start."""
    begin = time.perf_counter()
    worker = Worker("-m", "benchmarks.start_parts", compute_type, str(begin), MINILM_NP_CACHE=cache)
    found: dict[str, float] = worker.answer()
    worker.close()
    return found


def start_rows(
    types: list[str],
    cold: dict[str, float],
    warm: dict[str, list[tuple[float, float]]],
    parts: dict[str, list[dict[str, float]]],
) -> list[list[str]]:
    """Return the rows of the table: each part in milliseconds, the whole, and the peak memory.

    cold: of the compute types whose kernels were compiled.
    """
    names = dict.fromkeys(name for one in types for found in parts[one] for name in found)

    def row(name: str, figures: dict[str, Any], unit: str) -> list[str]:
        return [name, *(f"{figures[one]:,.0f} {unit}" if one in figures else "-" for one in types)]

    rows = []
    for name in names:
        medians = {one: statistics.median(found.get(name, 0.0) for found in parts[one]) * 1e3 for one in types}
        rows.append(row(name, medians, "ms"))
    whole = {one: statistics.median(seconds for seconds, _ in warm[one]) * 1e3 for one in types}
    memory = {one: statistics.median(found for _, found in warm[one]) / 1e6 for one in types}
    return [
        *rows,
        row("**all**", whole, "ms"),
        row("all, with the kernels to be compiled", {one: seconds * 1e3 for one, seconds in cold.items()}, "ms"),
        row("peak memory", memory, "MB"),
    ]


if __name__ == "__main__":
    main()
