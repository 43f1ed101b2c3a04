"""How a matrix product becomes fast, in four steps: naive, tiled, packed, register tile. One thread, float32.

    python -m benchmarks.ladder [--quick] [--chart FILE.png]

The product is out = x @ weight.T of the model's widest dense layer, for a text of 121 tokens: x (M, K) = (121, 384),
weight (N, K) = (1536, 384). Every step does the same 2 M N K = 143 million operations. Only the place of the numbers
changes: memory, caches, registers. The yardstick is the peak of one core: independent fma, nothing else.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from numba import njit

from benchmarks.common import markdown, on_one_thread, processor
from benchmarks.peak import peak
from minilm_np.engine.float32.kernels.layout import pack, packed_shape
from minilm_np.engine.float32.kernels.linear import linear

M, K, N = 121, 384, 1536
PANEL, BLOCK = 192, 32


# Step 1: the definition. Each output is one chain of additions, and each addition waits for the one before it: about
# four cycles for two operations, on a core that can do 32 or 64 operations per cycle. And every row of x reads the
# whole weight again, 2.4 MB, which is more than the caches near the core hold.
@njit
def naive(x, weight, out):
    for m in range(M):
        for n in range(N):
            total = np.float32(0.0)
            for k in range(K):
                total += x[m, k] * weight[n, k]
            out[m, n] = total


# Step 2: the same sums, in tiles. 192 outputs by 32 inputs of the weight are 24 KB: they stay in the first-level cache
# for all rows of x. With n innermost, the 192 chains do not wait for each other. But neighbours in n are K floats apart
# in memory, so the compiled code loads them one by one.
@njit
def tiled(x, weight, out):
    out[:] = np.float32(0.0)
    for panel in range(0, N, PANEL):
        for block in range(0, K, BLOCK):
            for m in range(M):
                for k in range(block, block + BLOCK):
                    value = x[m, k]
                    for n in range(panel, panel + PANEL):
                        out[m, n] += value * weight[n, k]


# Step 3: the weight is packed once, in the order in which it is read: panels[n // 192, k, n % 192]. Now neighbours in
# n are neighbours in memory, and the compiled code loads 16 (or 8, or 4) of them with one instruction. The remaining
# cost: each product loads two numbers, a weight and a sum, and stores the sum again.
@njit
def packed(x, panels, out):
    out[:] = np.float32(0.0)
    for p in range(N // PANEL):
        for block in range(0, K, BLOCK):
            for m in range(M):
                row = out[m, p * PANEL : (p + 1) * PANEL]
                for k in range(block, block + BLOCK):
                    value, weights = x[m, k], panels[p, k]
                    for n in range(PANEL):
                        row[n] += value * weights[n]


# Step 4: a tile of the output, rows x columns, stays in vector registers for a whole block of k. Each vector of the
# weight is loaded once for all rows, and each x once for all columns: with 9 rows and 3 vectors, 27 fma for 12 loads.
# The sums are read and written once per 128 steps of k. Compilers do not generate this, so `simd.fma_block` emits it in
# LLVM's vectors. `minilm_np/engine/float32/kernels/linear.py` is the loop around it, and the engine runs that.
def register_tile(x, weight_packed, out):
    linear(x, weight_packed, np.zeros(N, np.float32), out, 0, M, 0, len(weight_packed))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repeats, only to check that it runs")
    parser.add_argument("--chart", type=Path, help="draw the steps into this PNG file (needs matplotlib)")
    options = parser.parse_args()
    on_one_thread()

    rng = np.random.default_rng(0)
    x, weight, out = rng.standard_normal((M, K), "f4"), rng.standard_normal((N, K), "f4"), np.empty((M, N), "f4")
    panels = weight.reshape(N // PANEL, PANEL, K).transpose(0, 2, 1).copy()
    weight_packed = np.zeros(packed_shape(N, K), np.float32)  # the same with panels of 48
    pack(weight, weight_packed)
    steps = {
        "naive": lambda: naive(x, weight, out),
        "tiled": lambda: tiled(x, weight, out),
        "packed": lambda: packed(x, panels, out),
        "register tile": lambda: register_tile(x, weight_packed, out),
        "NumPy's matmul": lambda: np.matmul(x, weight.T, out=out),
    }
    for name, run in steps.items():
        out[:] = np.nan
        run()
        check(name, out, x.astype(float) @ weight.T.astype(float))
    times: dict[str, list[float]] = {name: [] for name in steps}
    peaks = []
    for _ in range(3 if options.quick else 15):
        peaks.append(peak(2_000_000))
        for name, run in steps.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    rates = {name: 2 * M * N * K / statistics.median(values) * 1e-9 for name, values in times.items()}
    top = max(peaks) * 1e-9
    print(f"{processor()}, one thread; x ({M}, {K}), weight ({N}, {K}); measured FMA peak {top:.1f} GFLOP/s\n")
    rows = [[name, f"{rate:.1f}", f"{100 * rate / top:.1f} %"] for name, rate in rates.items()]
    print(markdown(["step", "GFLOP/s", "of the peak"], rows))
    if options.chart:
        chart(rates, top, options.chart)


def check(name, out, truth):
    error = np.abs(out - truth).max() / np.abs(truth).max()
    if not error < 1e-5:
        raise SystemExit(f"{name} is wrong: its largest relative error is {error:.1e}")


def chart(rates, top, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    colors = ["#8d96a3", "#8d96a3", "#8d96a3", "#d1495b", "#4f7cac"]
    for place, rate in enumerate(rates.values()):
        axes.barh(place, rate, 0.7, color=colors[place])
        align, color = ("right", "white") if rate > 0.7 * top else ("left", "black")
        axes.text(rate, place, f" {rate:.1f} GFLOP/s, {100 * rate / top:.1f} % ", va="center", ha=align, color=color)
    axes.axvline(top, color="black", linewidth=1, linestyle=":", zorder=0)
    axes.set_yticks(range(len(rates)), list(rates))
    axes.invert_yaxis()
    axes.set_xlabel(f"GFLOP/s; the dotted line is this core's peak of independent fma, {top:.0f}")
    axes.set_title(f"One matrix product, {M} x {K} x {N}, float32, one thread ({processor()})", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
