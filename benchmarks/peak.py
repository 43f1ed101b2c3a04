"""The peak float32 arithmetic of this machine: independent chains of fma, on one thread or many.

    python -m benchmarks.peak [threads]

It prints the peak of a burst, and the sustained peak. A processor lowers its clock under load, and takes milliseconds
to raise it again. So `in_turn` measures the peak that a processor sustains during other work: the loop takes turns with
the work, a few milliseconds each. All shares of the peak refer to that. Here, the other work is the multiplication of
matrices, by NumPy.
"""

import statistics
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

from benchmarks.common import processor
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import fma, kernel, splat, store
from minilm_np.engine.runtime.workers import default_threads

LONG, SHORT = 20_000_000, 100_000  # steps
TURN = 3e-3  # seconds of a turn


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


def peak(steps: int, threads: int = 1) -> float:
    """Return the FLOP per second of the loop, run once on each thread at the same time.

    The time is that of each thread, without the time in which it waits for a processor that others use.
    """
    independent_fmas(1, np.empty(simd.LANES, np.float32))  # compiles it
    barrier = threading.Barrier(threads)
    rates: list[float] = []

    def run() -> None:
        out = np.empty(simd.LANES, np.float32)
        barrier.wait()
        start = time.thread_time()
        independent_fmas(steps, out)
        rates.append(2 * simd.LANES * CHAINS * steps / (time.thread_time() - start))

    if threads == 1:
        run()
    else:
        team = [threading.Thread(target=run) for _ in range(threads)]
        for thread in team:
            thread.start()
        for thread in team:
            thread.join()
    return sum(rates)


def turn_of_fma(threads: int = 1) -> Callable[[], float]:
    """Return a function that runs the loop for TURN, and returns its FLOP per second."""
    return turn(lambda steps: peak(steps, threads), 2 * simd.LANES * CHAINS * threads)


def turn(rate: Callable[[int], float], operations: int) -> Callable[[], float]:
    """Return a function that calls `rate` with the number of steps, of so many operations each, that take TURN."""
    steps = max(1, int(TURN * max(rate(SHORT) for _ in range(3)) / operations))
    return lambda: rate(steps)


def in_turn(
    call: Callable[[], object],
    loop: Callable[[], float],
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Return the median time of a call, and the median rate of a loop that takes turns with it.

    Short calls are repeated until a turn is over; a call that takes longer is one turn. clock: measures the calls.
    """
    times: list[float] = []
    rates: list[float] = []
    while sum(times) < seconds or len(rates) < 3:
        begin = now = clock()
        while now < begin + TURN:
            start = now
            call()
            now = clock()
            times.append(now - start)
        rates.append(loop())
    return statistics.median(times), statistics.median(rates)


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else default_threads()
    print(f"{processor()}, vector instructions: {simd.TARGET}")
    matrix = np.random.default_rng(0).standard_normal((384, 384), dtype=np.float32)
    for count in dict.fromkeys((1, threads)):
        burst = max(peak(LONG, count) for _ in range(10))
        _, sustained = in_turn(lambda: matrix @ matrix, turn_of_fma(count), 0.5)
        print(f"{count} threads: {burst * 1e-9:.1f} GFLOP/s, sustained {sustained * 1e-9:.1f} GFLOP/s")


if __name__ == "__main__":
    main()
