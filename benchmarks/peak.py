"""The peak float32 arithmetic of this machine: independent chains of fma, on one thread or many.

    python -m benchmarks.peak [threads]

`python -m benchmarks.peak serve THREADS` is a worker of other benchmarks: it measures once per line of input.
"""

import json
import sys
import threading
import time

import numpy as np

from benchmarks.common import processor
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import fma, kernel, splat, store
from minilm_np.engine.runtime.workers import default_threads

LONG = 20_000_000  # steps; long enough to make the start of the threads negligible


@kernel
def ten_chains(steps, out):
    one, half = splat(np.float32(1.0)), splat(np.float32(0.5))
    a = b = c = d = e = f = g = h = i = j = one
    for _ in range(steps):
        a, b, c, d, e = fma(a, half, one), fma(b, half, one), fma(c, half, one), fma(d, half, one), fma(e, half, one)
        f, g, h, i, j = fma(f, half, one), fma(g, half, one), fma(h, half, one), fma(i, half, one), fma(j, half, one)
    store(simd.address(out), ((a + b) + (c + d)) + ((e + f) + (g + h)) + (i + j))


@kernel
def five_chains(steps, out):
    one, half = splat(np.float32(1.0)), splat(np.float32(0.5))
    a = b = c = d = e = one
    for _ in range(steps):
        a, b, c, d, e = fma(a, half, one), fma(b, half, one), fma(c, half, one), fma(d, half, one), fma(e, half, one)
    store(simd.address(out), (a + b) + (c + d) + e)


# Chains of sixteen lanes: enough to hide the latency of an fma, few enough for the registers.
CHAINS, independent_fmas = (10, ten_chains) if simd.TARGET == "avx512" else (5, five_chains)


def peak(steps, threads=1):
    """FLOP per second of the loop, run once on each thread at the same time."""
    independent_fmas(1, np.empty(simd.LANES, np.float32))  # compiles it
    barrier = threading.Barrier(threads + 1)

    def run():
        out = np.empty(simd.LANES, np.float32)
        barrier.wait()
        independent_fmas(steps, out)

    team = [threading.Thread(target=run) for _ in range(threads)]
    for thread in team:
        thread.start()
    barrier.wait()
    start = time.perf_counter()
    for thread in team:
        thread.join()
    return threads * 2 * simd.LANES * CHAINS * steps / (time.perf_counter() - start)


def serve(threads):
    for line in sys.stdin:
        print(json.dumps(max(peak(json.loads(line)["steps"], threads) for _ in range(3))), flush=True)


def main():
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]))
        return
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else default_threads()
    print(f"{processor()}, vector instructions: {simd.TARGET}")
    for count in dict.fromkeys((1, threads)):
        print(f"{count} threads: {max(peak(LONG, count) for _ in range(10)) * 1e-9:.1f} GFLOP/s")


if __name__ == "__main__":
    main()
