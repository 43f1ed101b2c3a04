"""The peak float32 arithmetic of this machine: independent chains of fma, on one thread or many.

    python -m benchmarks.peak [threads]

This prints the peak of a burst. A processor lowers its clock under load, and needs milliseconds to raise it again. So
`in_turn` measures the peak that is sustained during other work: the loop takes turns with the work, a few milliseconds
each. Shares of the peak refer to that.
"""

import statistics
import sys
import threading
import time

import numpy as np

from benchmarks.common import processor
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import fma, kernel, splat, store
from minilm_np.engine.runtime.workers import default_threads

LONG, SHORT = 20_000_000, 100_000  # steps
TURN = 3e-3  # seconds of the loop, and of the work, when they take turns


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
    """Return the FLOP per second of the loop, run once on each thread at the same time."""
    independent_fmas(1, np.empty(simd.LANES, np.float32))  # compiles it
    barrier, rates = threading.Barrier(threads), []

    def run():
        out = np.empty(simd.LANES, np.float32)
        barrier.wait()
        start = time.perf_counter()
        independent_fmas(steps, out)
        rates.append(2 * simd.LANES * CHAINS * steps / (time.perf_counter() - start))

    if threads == 1:
        run()
    else:
        team = [threading.Thread(target=run) for _ in range(threads)]
        for thread in team:
            thread.start()
        for thread in team:
            thread.join()
    return sum(rates)


def in_turn(call, threads=1, seconds=1.0):
    """Return the median time of a call, and the median rate of the loop of fma in turn with it, in FLOP per second.

    Calls are repeated for about TURN seconds before each turn of the loop; a longer call has a turn of its own.
    """
    steps = int(TURN * peak(SHORT, threads) / threads / (2 * simd.LANES * CHAINS))
    times: list[float] = []
    rates: list[float] = []
    while sum(times) < seconds or len(rates) < 3:
        begin = time.perf_counter()
        while (start := time.perf_counter()) < begin + TURN:
            call()
            times.append(time.perf_counter() - start)
        rates.append(peak(steps, threads))
    return statistics.median(times), statistics.median(rates)


def main():
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else default_threads()
    print(f"{processor()}, vector instructions: {simd.TARGET}")
    for count in dict.fromkeys((1, threads)):
        print(f"{count} threads: {max(peak(LONG, count) for _ in range(10)) * 1e-9:.1f} GFLOP/s")


if __name__ == "__main__":
    main()
