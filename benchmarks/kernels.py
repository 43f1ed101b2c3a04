"""Each kernel on one thread: its speed against its limit, and its share of a forward pass of all-MiniLM-L6-v2.

    python -m benchmarks.kernels [--quick] [--compute-type float32,int16,int8]

There are two kinds of tables. The first is a whole pass of the engine, stage by stage, in the engine's order and with
the weights of all layers, so that the caches hold what they hold in real use. The limit of a stage is the longer of two
times. One is its arithmetic at the measured peak of the instruction that multiplies: fma, or the integer instruction of
this machine, named in the heading. The other is its memory traffic: its weights at the measured speed of summing an
array as large as all layers' weights, and its rows at the measured speed of copying the same number of bytes. The
engine's own time for the same pass, on one thread, is printed beside it.

The second measures the matrix product and attention alone, at many sizes.

The peaks are sustained ones: the loop of the instruction takes turns with the work, a few milliseconds each. Times and
peaks are medians. They are those of the thread, without the time in which it waits for a processor that others use.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import markdown, processor
from benchmarks.integer_peak import INSTRUCTIONS, turn_of_products
from benchmarks.integer_products import aligned, calls
from benchmarks.peak import in_turn, turn_of_fma
from minilm_np.engine import registry
from minilm_np.engine.float32.engine import CHUNK_TOKENS, _RaggedPass
from minilm_np.engine.float32.kernels import attention, layout, linear
from minilm_np.engine.integer.kernels.layout import TARGET
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import kernel, load, splat, store
from minilm_np.model_files.config import ModelConfig
from minilm_np.model_files.random_weights import random_weights

D, H, F, V, L = 384, 12, 1536, 30522, 6
E = D // H
SCALE = np.float32(1 / math.sqrt(E))
BYTES = {"float32": 4, "int16": 2, "int8": 1}  # of an element of a weight
COMPUTE_TYPES = tuple(BYTES)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few sizes and repeats, only to check that it runs")
    parser.add_argument("--compute-type", default=",".join(COMPUTE_TYPES), help="one or more (default: %(default)s)")
    options = parser.parse_args()
    print(f"{processor()}, float32 target {simd.TARGET}, integer target {TARGET}, one thread")
    config = ModelConfig()
    for compute_type in options.compute_type.split(","):
        weights = random_weights(config, 0).items()
        engine = registry.find("numba", compute_type).make(config, weights, threads=1)
        for B, T in ((1, 7), (1, 121)) if options.quick else ((1, 7), (1, 121), (1, 256), (32, 121)):
            shares(engine, compute_type, B, T, 2 if options.quick else 15)
    sizes(options.quick, 0.01 if options.quick else 0.2)


def turn_of_dense(compute_type):
    """The loop whose rate limits the dense layers, and its name; (None, ...) if this machine has none."""
    if compute_type == "float32":
        return turn_of_fma(), "fma"
    names = INSTRUCTIONS.get(TARGET, ("unknown", "unknown"))
    bits = 16 if compute_type == "int16" else 8
    return turn_of_products(bits), names[0 if bits == 16 else 1]


# ---- a pass, stage by stage ------------------------------------------------------------------------------------------


class Stage(NamedTuple):
    """A stage: its arithmetic, the bytes of weights that it reads, the bytes of rows that it reads and writes."""

    name: str
    dense_flops: int = 0  # at the rate of the compute type
    float_flops: int = 0  # at the rate of fma
    weights: int = 0
    rows: int = 0


def stages(compute_type, B, T):
    """The stages of a pass over B texts of T tokens."""
    M, size = B * T, BYTES[compute_type]

    def product(name, K, N):
        return Stage(name, dense_flops=2 * M * K * N, weights=size * K * N)

    integer = compute_type != "float32"
    layer = [
        product("query, key, value", D, 3 * D),
        Stage("attention", float_flops=4 * B * T * T * D, rows=16 * M * D),
        Stage("quantise the context", rows=(4 + size) * M * D),
        product("attention output", D, D),
        Stage("LayerNorm", rows=(8 + size * integer) * M * D),
        product("feed-forward 1, GELU", D, F),
        Stage("quantise the intermediate", rows=(4 + size) * M * F),
        product("feed-forward 2", F, D),
        Stage("LayerNorm", rows=(8 + size * integer) * M * D),
    ]
    layer = [stage for stage in layer if integer or not stage.name.startswith("quantise")]
    first, last = Stage("embeddings", rows=8 * M * D), Stage("pooling, norm", rows=4 * M * D)
    return [first, *layer * L, last]


def shares(engine, compute_type, B, T, repeats):
    """Print the table of a pass over B texts of T tokens."""
    chunk = max(1, min(B, CHUNK_TOKENS // T))  # texts per pass on one thread; there are B / chunk passes
    described = stages(compute_type, chunk, T)
    ids = np.random.default_rng(0).integers(0, V, (B, T)).tolist()
    weights = read_speed(sum(stage.weights for stage in described))
    fma, (dense, instruction) = turn_of_fma(), turn_of_dense(compute_type)
    engine.encode(ids)
    times, wholes, fmas, denses = [], [], [], []
    for _ in range(repeats):
        times.append(stage_seconds(engine, ids[:chunk], len(described)))
        fmas.append(fma())
        if dense:
            denses.append(dense())
        wholes.append(seconds(lambda: engine.encode(ids)))
    fma_peak = statistics.median(fmas)
    dense_peak = statistics.median(denses) if denses else math.inf
    medians = [statistics.median(found) * B / chunk for found in zip(*times, strict=True)]
    rows = []
    for name in dict.fromkeys(stage.name for stage in described):
        mine = [stage for stage in described if stage.name == name]
        spent = sum(median for stage, median in zip(described, medians, strict=True) if stage.name == name)
        dense_flops, float_flops, weight_bytes, row_bytes = (
            sum(part) * B / chunk for part in list(zip(*mine, strict=True))[1:]
        )
        arithmetic = dense_flops / dense_peak + float_flops / fma_peak
        memory = weight_bytes / weights + (row_bytes / copy_speed(mine[0].rows) if row_bytes else 0)
        flops = dense_flops + float_flops
        limit = instruction if dense_flops else "fma"
        rows.append(
            [
                name,
                f"{len(mine) * B // chunk}",
                f"{spent * 1e6:.0f}",
                f"{100 * spent / sum(medians):.1f} %",
                f"{flops / spent * 1e-9:.0f}" if flops else "-",
                limit if arithmetic > memory else "memory",
                f"{100 * max(arithmetic, memory) / spent:.0f} %",
            ]
        )
    print(
        f"\n{compute_type}, {B} x {T} tokens: the stages together {sum(medians) * 1e3:.2f} ms, the engine "
        f"{statistics.median(wholes) * 1e3:.2f} ms; sustained peaks: fma {fma_peak * 1e-9:.0f} GFLOP/s"
        + (f", {instruction} {dense_peak * 1e-9:.0f} GOP/s" if denses and compute_type != "float32" else "")
        + "\n"
    )
    print(markdown(["stage", "calls", "us", "share", "GOP/s", "limit", "of limit"], rows))


def stage_seconds(engine, ids, n_stages):
    """The seconds of each stage of a pass, without those of the call into compiled code."""
    assert engine.n_stages == n_stages, f"expected {n_stages} stages, found {engine.n_stages}"
    single = _RaggedPass(engine, ids, True, 1)
    empty = min(seconds(lambda: single._run_stages(0, 0, 0)) for _ in range(20))
    found = []
    for stage in range(n_stages):
        found.append(max(0.0, seconds(partial(single._run_stages, 0, stage, stage + 1)) - empty))
    single.close()
    return found


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


def sizes(quick, duration):
    """Print the speed of the matrix products and of attention at many sizes."""
    heights = (7, 121) if quick else (1, 2, 7, 10, 121, 128, 512)
    loops = {compute_type: turn_of_dense(compute_type)[0] for compute_type in COMPUTE_TYPES}
    rows = []

    def add(name, size, call, loop, flops):
        call()
        if loop is None:
            return
        time_of_call, top = in_turn(call, loop, duration, time.thread_time)
        rate = flops / time_of_call
        figures = f"{time_of_call * 1e6:.1f}", f"{rate * 1e-9:.1f}", f"{100 * rate / top:.0f} %"
        rows.append([name, size, *figures])

    rng = np.random.default_rng(0)
    for kind, K, N in (("bias", D, 3 * D), ("residual", D, D), ("gelu", D, F), ("residual", F, D)):
        for M in heights:
            size, flops = f"{M} x {K} x {N}", 2 * M * K * N
            x, out, residual = normal(rng, M, K), aligned(M, N), normal(rng, M, N)
            add(f"float32, {kind}", size, linear_call(rng, x, out, kind, residual), loops["float32"], flops)
            every = calls(M, N, K)
            for name in ("int16", "int16 +", "int8", "int8 +"):
                title = name.replace(" +", ", x quantised first")
                add(title, size, every[name], loops[name.split()[0]], flops)
    for T in (7, 121) if quick else (7, 14, 121, 256, 512):
        call = attention_call(normal(rng, T, 3 * D), T, aligned(T, D))
        add("attention", f"{T} x {D}", call, loops["float32"], 4 * T * T * D)
    print()
    print(markdown(["kernel", "size", "us", "GOP/s", "of the sustained peak"], sorted(rows, key=lambda row: row[0])))


def seconds(function: Callable[[], Any]) -> float:
    start = time.thread_time()
    function()
    return time.thread_time() - start


def normal(rng, *shape):
    array = aligned(*shape)
    array[...] = rng.standard_normal(shape, dtype=np.float32)
    return array


def linear_call(rng, x, out, kind, residual):
    """A call of a dense layer in float32 with a new random weight, aligned as the engine's weights are."""
    (M, K), N = x.shape, out.shape[1]
    bias, packed = normal(rng, N), aligned(*layout.packed_shape(N, K))
    layout.pack(normal(rng, N, K) * np.float32(K**-0.5), packed)
    ranges = 0, M, 0, len(packed)
    if kind == "gelu":
        return lambda: linear.linear_gelu(x, packed, bias, out, *ranges)
    if kind == "residual":
        return lambda: linear.linear_residual(x, packed, bias, residual, out, *ranges)
    return lambda: linear.linear(x, packed, bias, out, *ranges)


def attention_call(qkv, T, context):
    scratch, no_bias = np.empty(layout.scratch_size(T, E), np.float32), np.empty((H, 0), np.float32)
    return lambda: attention.attention(qkv, 0, T, 0, T, 0, H, H, SCALE, no_bias, context, scratch)


if __name__ == "__main__":
    main()
