"""The vector instructions that kernels are written in. Only this package emits LLVM IR.

A `Float32x16` is sixteen float32 lanes, whatever the registers of the CPU: one zmm, two ymm, four xmm or four NEON
registers. Each operation below computes each lane with IEEE rounding, so the bits are the same on every CPU. Inside
kernels, vectors have + - * /, and pointers have `pointer + count`. The functions are

    address(array)                  pointer to the first element of a C-contiguous float32 array
    floats_at(location, shape)      the float32 array that begins at this address (an int64); ints_at: the int64 array
    load(p), store(p, v)            sixteen floats
    load_part(p, n, fill)           the first n of sixteen, or all if n > 16; other lanes are `fill`; reads n floats
    store_part(p, n, v)             the first n lanes, or all if n > 16; writes n floats
    transpose(p, stride, rows, columns, out, out_stride)
                                    sixteen by sixteen floats; rows and columns may be fewer
    splat(x)                        x in every lane
    fma(a, b, c)                    a * b + c, rounded once
    sqrt(v)
    maximum(a, b)                   a > b ? a : b
    maximum_or_nan(a, b)            the same, but NaN if either is NaN
    select_greater(a, b, x, y)      a > b ? x : y
    power_of_two(v)                 2 ** v for whole v from -126 to 127
    lane_sum(v), lane_max(v)        one float from lane pairs (i, i+8), (i, i+4), (i, i+2), (i, i+1)

Two functions make a function at module level, which kernels then call: `local_floats(n)` (memory on the stack) and
`fma_block(...)` (the register tile of every matrix product). Threads use `get_float_mode`, `set_float_mode`,
`atomic_add`, `atomic_load`, `pause` and `yield_processor`.

Not used, because their bits differ between targets or their rounding is not fixed: fastmath, `llvm.fmuladd`,
`llvm.vector.reduce.*`, `roundeven`, `maxnum` and `minnum`, and every function of libm.

Read the files in this order:

    target.py       the instruction set that Numba compiles for; the decorators `kernel` and `inlined`
    emit.py         shared types, and the functions that emit LLVM IR
    lanes.py        arithmetic of sixteen lanes
    memory.py       pointers, arrays at addresses, loads and stores, transposition, memory on the stack
    tile.py         the register tile, `fma_block`
    threads.py      what threads need: the float mode, atomics, pause and yield
"""

from minilm_np.engine.runtime.simd.emit import LANES, Float32x16, float32x16, pointer
from minilm_np.engine.runtime.simd.lanes import (
    fma,
    lane_max,
    lane_sum,
    maximum,
    maximum_or_nan,
    power_of_two,
    select_greater,
    splat,
    sqrt,
)
from minilm_np.engine.runtime.simd.memory import (
    address,
    floats_at,
    ints_at,
    load,
    load_part,
    local_floats,
    store,
    store_part,
    transpose,
)
from minilm_np.engine.runtime.simd.target import TARGET, inlined, kernel
from minilm_np.engine.runtime.simd.threads import (
    atomic_add,
    atomic_load,
    get_float_mode,
    pause,
    set_float_mode,
    yield_processor,
)
from minilm_np.engine.runtime.simd.tile import fma_block

__all__ = [
    "LANES",
    "TARGET",
    "Float32x16",
    "address",
    "atomic_add",
    "atomic_load",
    "float32x16",
    "floats_at",
    "fma",
    "fma_block",
    "get_float_mode",
    "inlined",
    "ints_at",
    "kernel",
    "lane_max",
    "lane_sum",
    "load",
    "load_part",
    "local_floats",
    "maximum",
    "maximum_or_nan",
    "pause",
    "pointer",
    "power_of_two",
    "select_greater",
    "set_float_mode",
    "splat",
    "sqrt",
    "store",
    "store_part",
    "transpose",
    "yield_processor",
]
