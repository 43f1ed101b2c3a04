"""The peak of integer arithmetic of this machine, on one thread: loops of the instruction that multiplies.

    python -m benchmarks.integer_peak

A loop has independent accumulators only: no loads, no stores. A multiply-add of two integers is two operations. An
AMX product of two tiles (`tdpbusd`: 16 x 16 x 64 multiply-adds of 8-bit integers) takes 16 cycles; two `vpdpbusd` or
`vpdpwssd` of 512 bits take one cycle on most processors. A product of 16-bit integers on AMX is four products of tiles.
`benchmarks.peak` does the same for float32.
"""

import time
from collections.abc import Callable

import numpy as np
from llvmlite import ir

from benchmarks.common import processor
from benchmarks.peak import turn
from minilm_np.engine.integer.kernels.layout import TARGET, TILES
from minilm_np.engine.runtime.simd import LANES, emit, integers, kernel, tiles
from minilm_np.engine.runtime.simd.integers import int32x16, splat_int, store_ints

# The instructions, by target: for 16 and for 8 bits. A target that is not listed has no loop here.
INSTRUCTIONS = {
    "amx": ("tdpbusd, four times", "tdpbusd"),
    "avx512vnni": ("vpdpwssd", "vpdpbusd"),
    "avxvnni": ("vpdpwssd", "vpdpbusd"),
    "avx512": ("vpmaddwd, vpaddd", "vpmaddwd, vpaddd"),
    "avx2": ("vpmaddwd, vpaddd", "vpmaddwd, vpaddd"),
}
_REGISTER_BITS = 512 if TARGET in ("avx512vnni", "avx512") else 256
CHAINS = 10 if _REGISTER_BITS == 512 else 5  # of sixteen lanes, as in `benchmarks.peak`
_INTS, _SHORTS = ir.VectorType(ir.IntType(32), LANES), ir.VectorType(ir.IntType(16), 2 * LANES)


def _multiply_add(bits):
    """Make a function (accumulator, x, weight) -> accumulator, the multiply-add of this target on 512 bits."""
    if TARGET not in ("avx512vnni", "avxvnni"):
        return emit.instruction(int32x16, int32x16, int32x16, int32x16)(_multiply_and_add)
    multiply = integers.Pairs(16, _REGISTER_BITS) if bits == 16 else integers.Quads(_REGISTER_BITS)
    return emit.instruction(int32x16, int32x16, int32x16, int32x16)(multiply.add)


def _multiply_and_add(builder, accumulator, x, weight):
    """vpmaddwd as assembly: LLVM would move a product that is always the same out of the loop."""
    lanes = _REGISTER_BITS // 32
    part, register = ir.VectorType(ir.IntType(32), lanes), "v" if _REGISTER_BITS == 512 else "x"
    found = []
    for first in range(0, LANES, lanes):
        indices = ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(first, first + lanes)))
        operands = [builder.shuffle_vector(v, v, indices) for v in (x, weight)]
        kind, constraints = ir.FunctionType(part, [part, part]), f"={register},{register},{register}"
        found.append(builder.asm(kind, "vpmaddwd $2, $1, $0", constraints, operands, True))
    every = ir.Constant(_INTS, list(range(LANES)))
    products = found[0] if len(found) == 1 else builder.shuffle_vector(*found, every)
    return builder.add(accumulator, products)


def _vector_loop(bits):
    add = _multiply_add(bits)

    @kernel
    def ten_chains(steps, out):
        x, w = splat_int(np.int32(0x01020304)), splat_int(np.int32(0x04030201))
        a = b = c = d = e = f = g = h = i = j = splat_int(np.int32(0))
        for _ in range(steps):
            a, b, c, d, e = add(a, x, w), add(b, x, w), add(c, x, w), add(d, x, w), add(e, x, w)
            f, g, h, i, j = add(f, x, w), add(g, x, w), add(h, x, w), add(i, x, w), add(j, x, w)
        store_ints(integers.ints_address(out), ((a + b) + (c + d)) + ((e + f) + (g + h)) + (i + j))

    @kernel
    def five_chains(steps, out):
        x, w = splat_int(np.int32(0x01020304)), splat_int(np.int32(0x04030201))
        a = b = c = d = e = splat_int(np.int32(0))
        for _ in range(steps):
            a, b, c, d, e = add(a, x, w), add(b, x, w), add(c, x, w), add(d, x, w), add(e, x, w)
        store_ints(integers.ints_address(out), (a + b) + (c + d) + e)

    return ten_chains if CHAINS == 10 else five_chains


@kernel
def _tile_loop(steps, out):
    state = tiles.local_tiles()
    tiles.tile_begin()
    tiles.tile_zero(state, 0)
    tiles.tile_zero(state, 1)
    tiles.tile_zero(state, 2)
    tiles.tile_zero(state, 3)
    tiles.tile_zero(state, 4)
    tiles.tile_zero(state, 5)
    tiles.tile_zero(state, 6)
    tiles.tile_zero(state, 7)
    for _ in range(steps):
        tiles.tile_dot_us(state, 0, 6, 7)
        tiles.tile_dot_us(state, 1, 6, 7)
        tiles.tile_dot_us(state, 2, 6, 7)
        tiles.tile_dot_us(state, 3, 6, 7)
        tiles.tile_dot_us(state, 4, 6, 7)
        tiles.tile_dot_us(state, 5, 6, 7)
    tiles.tile_store(state, 0, integers.ints_address(out), 16)
    tiles.tile_end()


def turn_of_products(bits: int) -> Callable[[], float] | None:
    """Return a function that runs the loop for a turn, and returns its operations per second; None without a loop.

    The operations are multiplications and additions of `bits`-bit integers, of 16 or of 8.
    """
    if TARGET not in INSTRUCTIONS:
        return None
    if TILES:
        run, operations = _tile_loop, 6 * 2 * 16 * 16 * 64 // (4 if bits == 16 else 1)
    else:
        pairs = bits == 16 or TARGET not in ("avx512vnni", "avxvnni")
        run, operations = _vector_loop(bits), CHAINS * 2 * LANES * (2 if pairs else 4)
    out = np.zeros(1024, np.int32)
    run(1, out)  # compiles it

    def rate(steps: int) -> float:
        start = time.thread_time()
        run(steps, out)
        return operations * steps / (time.thread_time() - start)

    return turn(rate, operations)


def main() -> None:
    print(f"{processor()}, integer target {TARGET}, one thread")
    for bits, name in zip((16, 8), INSTRUCTIONS.get(TARGET, ()), strict=False):
        loop = turn_of_products(bits)
        if loop:
            print(f"int{bits} ({name}): {max(loop() for _ in range(30)) * 1e-9:.0f} GOP/s")


if __name__ == "__main__":
    main()
