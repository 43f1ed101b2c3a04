"""Time each kernel on one thread against the FMA peak of this core, at the sizes of all-MiniLM-L6-v2.

    python -m benchmarks.kernels [repeats]

The peak is that of independent chains of fma. It is measured again beside each kernel, in turn with it, and the best of
both is compared: a shared machine slows either. Prints the compile times first.
"""

import math
import sys
import time

import numpy as np

from minilm_np.kernels import attention, embeddings, layer_norm, layout, linear, pooling, simd
from minilm_np.kernels.simd import fma, kernel, splat, store

D, H, F, V, P, L = 384, 12, 1536, 30522, 512, 6
STEPS = 200_000


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


# Of sixteen lanes each: enough to hide the latency of an fma, few enough for the registers.
CHAINS, independent_fmas = (10, ten_chains) if simd.TARGET == "avx512" else (5, five_chains)


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def best_and_peak(function, repeats):
    """Best time of the function, and the best rate of the peak loop, in turns."""
    out = np.empty(simd.LANES, np.float32)
    function()
    best = fastest = math.inf
    for _ in range(repeats):
        fastest = min(fastest, seconds(lambda: independent_fmas(STEPS, out)))
        best = min(best, seconds(function))
    return best, 2 * simd.LANES * CHAINS * STEPS / fastest * 1e-9


def normal(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


def main():
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    rng = np.random.default_rng(0)
    total = 0.0
    print(f"target {simd.TARGET}, tile {linear.TILE_ROWS} x {linear.TILE_COLUMNS}")

    def linear_call(M, K, N, kind):
        x, bias, residual, out = normal(rng, M, K), normal(rng, N), normal(rng, M, N), np.empty((M, N), np.float32)
        packed = np.zeros(layout.packed_shape(N, K), np.float32)
        layout.pack(normal(rng, N, K), packed)
        ranges = 0, M, 0, len(packed)
        if kind == "gelu":
            return lambda: linear.linear_gelu(x, packed, bias, out, *ranges)
        if kind == "residual":
            return lambda: linear.linear_residual(x, packed, bias, residual, out, *ranges)
        return lambda: linear.linear(x, packed, bias, out, *ranges)

    def attention_call(T):
        qkv, context, offsets = normal(rng, T, 3 * D), np.empty((T, D), np.float32), np.array([0, T])
        scratch = np.empty(layout.scratch_size(T, D // H), np.float32)
        scale = np.float32(1 / math.sqrt(D // H))
        return lambda: attention.attention(qkv, offsets, 0, 1, 0, H, H, scale, context, scratch)

    def layer_norm_call(M):
        x, weight, bias, out = normal(rng, M, D), normal(rng, D), normal(rng, D), np.empty((M, D), np.float32)
        return lambda: layer_norm.layer_norm(x, weight, bias, np.float32(1e-12), out, 0, M)

    def embeddings_call(M):
        ids, positions, out = rng.integers(0, V, M), np.arange(M) % P, np.empty((M, D), np.float32)
        word, position, types = normal(rng, V, D), normal(rng, P, D), normal(rng, 2, D)
        weight, bias, eps = normal(rng, D), normal(rng, D), np.float32(1e-12)
        return lambda: embeddings.embeddings(ids, positions, word, position, types, weight, bias, eps, out, 0, M)

    def pooling_call(B, T):
        hidden, offsets, out = normal(rng, B * T, D), np.arange(B + 1) * T, np.empty((B, D), np.float32)

        def run():
            pooling.pooling(hidden, offsets, pooling.MEAN, out, 0, B)
            pooling.normalize(out, out, 0, B)

        return run

    for name, call in (
        ("linear", linear_call(2, 48, 48, "bias")),
        ("linear_gelu", linear_call(2, 48, 48, "gelu")),
        ("linear_residual", linear_call(2, 48, 48, "residual")),
        ("attention", attention_call(5)),
        ("layer_norm", layer_norm_call(2)),
        ("embeddings", embeddings_call(2)),
        ("pooling, normalize", pooling_call(2, 3)),
    ):
        compile_time = seconds(call)
        total += compile_time
        print(f"compile {name:20s} {compile_time:6.2f} s")
    print(f"compile {'all':20s} {total:6.2f} s")

    for kind, K, N in (("bias", D, 3 * D), ("residual", D, D), ("bias", D, F), ("gelu", D, F), ("residual", F, D)):
        for M in (1, 2, 7, 10, 121, 128, 512):
            best, peak = best_and_peak(linear_call(M, K, N, kind), repeats)
            rate = 2 * M * K * N / best * 1e-9
            print(f"linear M {M:4d} K {K:4d} N {N:4d} {kind:8s} {best * 1e6:9.1f} us {rate:7.1f} GFLOP/s", end=" ")
            print(f"{100 * rate / peak:5.1f} % of {peak:.1f}")
    for T in (7, 14, 121, 256, 512):
        best, peak = best_and_peak(attention_call(T), repeats)
        dense = 2 * T * L * (D * 3 * D + D * D + 2 * D * F) / peak * 1e-9
        rate = 4 * T * T * D / best * 1e-9
        print(
            f"attention T {T:4d} {best * 1e6:9.1f} us {rate:7.1f} GFLOP/s {100 * rate / peak:5.1f} % of peak,", end=" "
        )
        print(f"all layers {100 * L * best / (L * best + dense):4.1f} % of a pass (dense layers at peak)")
    for name, call, n_bytes in (
        ("layer_norm, 121 rows", layer_norm_call(121), 121 * D * 8),
        ("layer_norm, 4096 rows", layer_norm_call(4096), 4096 * D * 8),
        ("embeddings, 4096 rows", embeddings_call(4096), 4096 * D * 8),
        ("pooling, 32 x 121", pooling_call(32, 121), 32 * 121 * D * 4),
    ):
        best, _ = best_and_peak(call, repeats)
        print(f"{name:22s} {best * 1e6:9.1f} us {n_bytes / best * 1e-9:6.1f} GB/s")


if __name__ == "__main__":
    main()
