"""Each kernel on one thread: its speed against its limit, and its share of a forward pass of all-MiniLM-L6-v2.

    python -m benchmarks.kernels [--quick]

There are two kinds of tables. The first replays a whole pass kernel by kernel, in the engine's order and with the
weights of all layers, so that the caches hold what they hold in real use. A kernel's limit is the longer of two times.
One is its arithmetic at the measured peak of independent fma. The other is its memory traffic: its weights at the
measured speed of summing an array as large as all layers' weights, and its rows at the measured speed of copying the
same number of bytes. The engine's own time for the same pass, on one thread, is printed beside it.

The second measures the matrix product and attention alone, at many sizes. The peak is measured again in turn with each,
and the best values of both are compared, because other work on the machine slows both.
"""

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import markdown, processor
from benchmarks.peak import peak
from minilm_np.engine.float32.engine import CHUNK_TOKENS, Float32Engine
from minilm_np.engine.float32.kernels import attention, embeddings, layer_norm, layout, linear, pooling
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import kernel, load, splat, store
from minilm_np.model_files.config import ModelConfig
from minilm_np.model_files.random_weights import random_weights

D, H, F, V, P, L = 384, 12, 1536, 30522, 512, 6
E = D // H
EPS, SCALE = np.float32(1e-12), np.float32(1 / math.sqrt(E))
STEPS = 200_000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few sizes and repeats, only to check that it runs")
    quick = parser.parse_args().quick
    print(f"{processor()}, target {simd.TARGET}, tile {linear.TILE_ROWS} x {linear.TILE_COLUMNS}, one thread")
    config = ModelConfig()
    engine = Float32Engine(config, random_weights(config, 0).items(), threads=1)
    for B, T in ((1, 7), (1, 121)) if quick else ((1, 7), (1, 121), (1, 256), (32, 121)):
        shares(engine, B, T, 2 if quick else 15)
    sizes(quick, 3 if quick else 30)


# ---- a pass, kernel by kernel ----------------------------------------------------------------------------------------


def shares(engine, B, T, repeats):
    """Print the table of a pass over B texts of T tokens."""
    chunk = max(1, min(B, CHUNK_TOKENS // T))  # texts per pass on one thread; there are B / chunk passes
    steps = forward_pass(chunk, T)
    ids = np.random.default_rng(0).integers(0, V, (B, T)).tolist()
    weights = read_speed(sum(step.weights for step in steps))
    for step in steps:
        step.call()
    replays, wholes, peaks = [], [], []
    for _ in range(repeats):
        peaks.append(peak(STEPS * 20))
        replays.append([seconds(step.call) for step in steps])
        wholes.append(seconds(lambda: engine.encode(ids)))
    medians = [statistics.median(times) * B / chunk for times in zip(*replays, strict=True)]
    best_peak, total = max(peaks), sum(medians)
    rows = []
    for name in dict.fromkeys(step.kernel for step in steps):
        mine = [step for step in steps if step.kernel == name]
        spent = sum(median for step, median in zip(steps, medians, strict=True) if step.kernel == name)
        flops, weight_bytes, row_bytes = (
            sum(part) * B / chunk
            for part in zip(*((step.flops, step.weights, step.rows) for step in mine), strict=True)
        )
        arithmetic = flops / best_peak
        memory = weight_bytes / weights + (row_bytes / copy_speed(mine[0].rows) if row_bytes else 0)
        rows.append(
            [
                name,
                f"{len(mine) * B // chunk}",
                f"{spent * 1e6:.0f}",
                f"{100 * spent / total:.1f} %",
                f"{flops / spent * 1e-9:.0f}" if flops else "-",
                "fma" if arithmetic > memory else "memory",
                f"{100 * max(arithmetic, memory) / spent:.0f} %",
            ]
        )
    whole = statistics.median(wholes)
    print(f"\n{B} x {T} tokens: the kernels together {total * 1e3:.2f} ms, the engine {whole * 1e3:.2f} ms", end="; ")
    print(f"peak {best_peak * 1e-9:.0f} GFLOP/s\n")
    print(markdown(["kernel", "calls", "us", "share", "GFLOP/s", "limit", "of limit"], rows))


class Step(NamedTuple):
    """A call of a kernel, its arithmetic, the bytes of weights that it reads, the bytes of rows read and written."""

    kernel: str
    call: Callable[[], Any]
    flops: int = 0
    weights: int = 0
    rows: int = 0


def forward_pass(B, T):
    """The calls of a pass over B texts of T tokens."""
    rng = np.random.default_rng(0)
    M = B * T
    x, wide, context, attended, inner = (np.empty((M, n), np.float32) for n in (D, 3 * D, D, D, F))
    out, offsets = np.empty((B, D), np.float32), np.arange(B + 1) * T

    def product(name, x, out, *options):
        weights = x.shape[1] * out.shape[1]
        return Step(name, linear_call(rng, x, out, *options), flops=2 * M * weights, weights=4 * weights)

    steps = [Step("embeddings", embeddings_call(rng, M, x), rows=8 * M * D)]
    for _ in range(L):
        steps += [
            product("query, key, value", x, wide),
            Step("attention", attention_call(wide, offsets, context), flops=4 * B * T * T * D, rows=16 * M * D),
            product("attention output", context, attended, "residual", x),
            Step("LayerNorm", layer_norm_call(rng, attended, attended), rows=8 * M * D),
            product("feed-forward 1, GELU", attended, inner, "gelu"),
            product("feed-forward 2", inner, x, "residual", attended),
            Step("LayerNorm", layer_norm_call(rng, x, x), rows=8 * M * D),
        ]
    return [*steps, Step("pooling, norm", pooling_call(x, offsets, out), rows=4 * M * D)]


def copy_speed(n_bytes):
    """The best speed of a copy that reads and writes n_bytes in all, in bytes per second."""
    source = np.ones(n_bytes // 8, np.float32)
    target = np.empty_like(source)
    return n_bytes / min(seconds(lambda: np.copyto(target, source)) for _ in range(20))


def read_speed(n_bytes):
    """The best speed of summing an array of n_bytes, in bytes per second."""
    source, out = np.ones(n_bytes // 4, np.float32), np.empty(simd.LANES, np.float32)
    add_up(source, out)
    return n_bytes / min(seconds(lambda: add_up(source, out)) for _ in range(20))


@kernel
def add_up(array, out):
    # (n,) -> 16 sums; up to 63 elements at the end are ignored
    a = b = c = d = splat(np.float32(0.0))
    for i in range(0, len(array) - 63, 64):
        here = simd.address(array) + i
        a, b, c, d = a + load(here), b + load(here + 16), c + load(here + 32), d + load(here + 48)
    store(simd.address(out), (a + b) + (c + d))


# ---- single kernels --------------------------------------------------------------------------------------------------


def sizes(quick, repeats):
    """Print the speed of the matrix product and of attention at many sizes."""
    rng = np.random.default_rng(0)
    heights = (7, 121) if quick else (1, 2, 7, 10, 121, 128, 512)
    rows = []
    for kind, K, N in (("bias", D, 3 * D), ("residual", D, D), ("bias", D, F), ("gelu", D, F), ("residual", F, D)):
        for M in heights:
            x, out, residual = normal(rng, M, K), np.empty((M, N), np.float32), normal(rng, M, N)
            best, top = best_and_peak(linear_call(rng, x, out, kind, residual), repeats)
            rows.append(size_row(f"linear, {kind}", f"{M} x {K} x {N}", best, top, 2 * M * K * N))
    for T in (7, 121) if quick else (7, 14, 121, 256, 512):
        call = attention_call(normal(rng, T, 3 * D), np.array([0, T]), np.empty((T, D), np.float32))
        rows.append(size_row("attention", f"{T} x {D}", *best_and_peak(call, repeats), 4 * T * T * D))
    print()
    print(markdown(["kernel", "size", "us", "GFLOP/s", "of the peak"], rows))


def size_row(name, size, best, top, flops):
    rate = flops / best
    return [name, size, f"{best * 1e6:.1f}", f"{rate * 1e-9:.1f}", f"{100 * rate / top:.0f} %"]


def best_and_peak(function, repeats):
    """The function's best time, and the best rate of the peak loop, measured in turns."""
    function()
    best, top = math.inf, 0.0
    for _ in range(repeats):
        top = max(top, peak(STEPS))
        best = min(best, seconds(function))
    return best, top


# ---- calls -----------------------------------------------------------------------------------------------------------


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def normal(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


def linear_call(rng, x, out, kind="bias", residual=None):
    """A call of a dense layer with a new random weight."""
    (M, K), N = x.shape, out.shape[1]
    bias, packed = normal(rng, N), np.zeros(layout.packed_shape(N, K), np.float32)
    layout.pack(normal(rng, N, K) * np.float32(K**-0.5), packed)
    ranges = 0, M, 0, len(packed)
    x[:] = normal(rng, M, K)
    if kind == "gelu":
        return lambda: linear.linear_gelu(x, packed, bias, out, *ranges)
    if kind == "residual":
        return lambda: linear.linear_residual(x, packed, bias, residual, out, *ranges)
    return lambda: linear.linear(x, packed, bias, out, *ranges)


def attention_call(qkv, offsets, context):
    scratch = np.empty(layout.scratch_size(int(np.diff(offsets).max()), E), np.float32)

    def run():  # as `forward` calls it, text by text
        for first, last in itertools.pairwise(offsets):
            attention.attention(qkv, first, last, first, last, 0, H, H, SCALE, context, scratch)

    return run


def layer_norm_call(rng, x, out):
    weight, bias = normal(rng, D), normal(rng, D)
    return lambda: layer_norm.layer_norm(x, weight, bias, EPS, out, 0, len(x))


def embeddings_call(rng, M, out):
    ids, positions = rng.integers(0, V, M), np.arange(M) % P
    tables, norm = [normal(rng, rows, D) for rows in (V, P, 2)], (normal(rng, D), normal(rng, D))
    return lambda: embeddings.embeddings(ids, positions, *tables, *norm, EPS, out, 0, M)


def pooling_call(hidden, offsets, out):
    def run():
        pooling.pooling(hidden, offsets, pooling.MEAN, out, 0, len(out))
        pooling.normalize(out, out, 0, len(out))

    return run


if __name__ == "__main__":
    main()
