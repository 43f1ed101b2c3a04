"""Dense layers in int16 and int8 against float32, on one thread, by each set of instructions that the machine has.

    python -m benchmarks.integer_products [--quick] [--rows M] [--rounds N]

The layers are those of all-MiniLM-L6-v2. Each set of instructions has a process of its own, in which every round calls
all contestants in turn, twice each, of which the second call is timed. Rates are medians over the rounds, in 10^9
operations per second (a multiply-add is two). Ratios to float32 are taken round by round, and are medians as well. The
time is that of the thread, without the time in which it waits for a processor that others use.

    sums     the exact sums of integers alone, which stay in the first-level cache
    layer    with scales and bias, written as float32: what float32's `linear` does
    +        the same, after x was quantised from float32
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import llvmlite.binding as llvm
import numpy as np

from benchmarks.common import CHECKOUT, markdown, on_one_thread, processor
from minilm_np.engine.runtime.integer_target import VARIABLE, integer_target

SHAPES = ((1152, 384), (384, 384), (1536, 384), (384, 1536))  # N, K
COLUMNS = [f"{width}{kind}" for width in ("int16", "int8") for kind in (" sums", "", " +")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="the best and the oldest instructions, 3 rounds, to check that it runs"
    )
    parser.add_argument("--rows", type=int, default=512, help="rows of x (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=200, help="timings of each (default: %(default)s)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    on_one_thread()
    if options.serve:
        print(json.dumps(measured(options.rows, options.rounds)))
    elif options.quick:
        every = list(targets().items())
        report(options.rows, 3, dict([every[0], every[-1]]))
    else:
        report(options.rows, options.rounds, targets())


def report(M, rounds, forced):
    """Print a table for each set of instructions. forced: name -> the environment variables that force it."""
    print(f"{processor()}, one thread, {M} rows, medians of {rounds} rounds")
    for name, variables in forced.items():
        environment = {key: value for key, value in os.environ.items() if key != VARIABLE} | variables
        options = ["--serve", "--rows", str(M), "--rounds", str(rounds)]
        child = subprocess.run(
            [sys.executable, "-m", "benchmarks.integer_products", *options],
            env=environment, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        rows = []
        for line in json.loads(child.stdout):
            cells = [f"{line['rates'][column]:.0f} ({line['ratios'][column]:.1f})" for column in COLUMNS]
            rows.append([line["shape"], f"{line['rates']['float32']:.0f}", *cells])
        print(f"\n{name}\n")
        print(markdown(["N x K", "float32", *COLUMNS], rows), flush=True)


def targets():
    """The sets of instructions of this machine: name -> the environment variables that force it."""
    best, features = integer_target(), llvm.get_host_cpu_features()
    found: dict[str, dict[str, str]] = {best: {}}
    if best == "amx":
        found["avx512vnni"] = {VARIABLE: "avx512vnni"}
    for name, feature, cpu in (
        ("avxvnni", "avxvnni", "alderlake"), ("avx512", "avx512bw", "x86-64-v4"), ("avx2", "avx2", "x86-64-v3"),
    ):  # fmt: skip
        if features.get(feature) and name not in found:
            found[name] = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""}
    return found


def measured(M, rounds):
    """Rates and ratios to float32 for each shape, by the instructions of this process."""
    lines, operations = [], {(N, K): 2e-9 * M * N * K for N, K in SHAPES}
    every = {shape: calls(M, *shape) | sums_calls(M, *shape) for shape in SHAPES}
    times: dict[tuple[int, int], dict[str, list[float]]] = {
        shape: {name: [] for name in contestants} for shape, contestants in every.items()
    }
    for r in range(rounds + 1):
        for shape, contestants in every.items():
            for name, call in contestants.items():
                call()  # brings its arrays into the caches
                start = time.thread_time()
                call()
                if r > 0:
                    times[shape][name].append(time.thread_time() - start)
    for shape, found in times.items():
        rates = {name: operations[shape] / statistics.median(values) for name, values in found.items()}
        ratios = {
            name: statistics.median(base / value for base, value in zip(found["float32"], values, strict=True))
            for name, values in found.items()
        }
        lines.append({"shape": f"{shape[0]} x {shape[1]}", "rates": rates, "ratios": ratios})
    return lines


def calls(M, N, K):
    """A layer of M rows, K inputs and N outputs: name -> a call, on random numbers."""
    from minilm_np.engine.float32.kernels import layout as float_layout
    from minilm_np.engine.float32.kernels import linear as float_linear
    from minilm_np.engine.integer.kernels import linear, quantise

    x, bias, out = normal(M, K), normal(N), aligned(M, N)
    scale, x_scale, zero = np.ones(N, np.float32), np.empty(M, np.float32), np.empty(M, np.int32)
    weight_packed = aligned(*float_layout.packed_shape(N, K))
    float_layout.pack(normal(N, K), weight_packed)
    (rows_16, packed_16, _), (rows_8, packed_8, weight_sum) = operands(M, N, K)

    def int16():
        linear.linear_16(rows_16, x_scale, packed_16, scale, bias, out, 0, M, 0, len(packed_16))

    def int8():
        linear.linear_8(rows_8, x_scale, zero, packed_8, scale, weight_sum, bias, out, 0, M, 0, len(packed_8))

    def quantised_int16():
        quantise.quantise_rows_16(x, rows_16, x_scale, 0, M)
        int16()

    def quantised_int8():
        quantise.quantise_rows_8(x, rows_8, x_scale, zero, 0, M)
        int8()

    quantised_int16()
    quantised_int8()
    return {
        "float32": lambda: float_linear.linear(x, weight_packed, bias, out, 0, M, 0, len(weight_packed)),
        "int16": int16,
        "int8": int8,
        "int16 +": quantised_int16,
        "int8 +": quantised_int8,
    }


def sums_calls(M, N, K):
    """The sums of such a layer alone."""
    sums = {bits: make_sums(bits) for bits in (16, 8)}
    (rows_16, packed_16, _), (rows_8, packed_8, _) = operands(M, N, K)
    memory = aligned(4096).view(np.int32)
    from minilm_np.engine.integer.kernels import quantise

    quantise.quantise_rows_16(normal(M, K), rows_16, np.empty(M, np.float32), 0, M)
    quantise.quantise_rows_8(normal(M, K), rows_8, np.empty(M, np.float32), np.empty(M, np.int32), 0, M)
    return {
        "int16 sums": lambda: sums[16](rows_16, packed_16, M, memory),
        "int8 sums": lambda: sums[8](rows_8, packed_8, M, memory),
    }


def make_sums(bits):
    """The loops of `linear` without what follows the sums."""
    from minilm_np.engine.integer.kernels import layout, products
    from minilm_np.engine.integer.kernels.linear import _GROUP_BYTES, _RUN_BYTES
    from minilm_np.engine.runtime.simd import inlined, integers, kernel, tiles

    block_rows, begin, make_step, end, count_steps, _, _ = products.BLOCK_16 if bits == 16 else products.BLOCK_8
    k_bits = layout.PANEL[bits] * bits

    @inlined
    def nothing(work, gap):
        pass

    multiply = make_step(nothing)

    @kernel
    def run(x, packed, M, memory):
        x_bytes, panel_bytes = x.shape[1], packed.shape[1]
        K = panel_bytes * 8 // k_bits
        group = max(1, _GROUP_BYTES // panel_bytes)
        run_rows = max(1, _RUN_BYTES // (x_bytes * block_rows)) * block_rows
        sums, state = integers.ints_address(memory), tiles.local_tiles()
        tiles.tile_begin()
        for first in range(0, len(packed), group):
            for run in range(0, M, run_rows):
                for p in range(first, min(first + group, len(packed))):
                    panel = integers.bytes_address(packed) + p * panel_bytes
                    for m in range(run, min(run + run_rows, M), block_rows):
                        block, rows = integers.bytes_address(x) + m * x_bytes, min(block_rows, M - m)
                        begin(state, rows)
                        for step in range(count_steps(K)):
                            multiply(state, step, block, rows, K, panel, None)
                        end(state, block, rows, K, panel, sums)
        tiles.tile_end()

    return run


def operands(M, N, K):
    """For 16 and for 8 bits: room for quantised x, a packed weight of random integers, the sums of its rows."""
    from minilm_np.engine.integer.kernels import layout

    for bits, most in ((16, 2000), (8, 127)):
        weight = np.random.default_rng(bits).integers(-most, most + 1, (N, K))
        packed = layout.aligned_bytes(layout.packed_shape(bits, N, K))
        layout.pack(bits, weight.astype(np.int16 if bits == 16 else np.int8), packed)
        yield layout.aligned_bytes(layout.rows_shape(bits, M, K)), packed, weight.sum(1).astype(np.int32)


def aligned(*shape):
    """A float32 array that begins at a multiple of 64 bytes, so that no contestant is slowed by chance."""
    from minilm_np.engine.integer.kernels.layout import aligned_bytes

    return aligned_bytes((4 * int(np.prod(shape)),)).view(np.float32).reshape(shape)


def normal(*shape):
    array = aligned(*shape)
    array[...] = np.random.default_rng(0).standard_normal(shape)
    return array


if __name__ == "__main__":
    main()
