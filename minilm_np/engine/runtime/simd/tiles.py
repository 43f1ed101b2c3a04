"""Tiles of 16 rows of 64 bytes: AMX's instructions, or loops that do the same on memory.

There are eight tiles, and NUMBERS are their numbers. Inside kernels the functions are

    tile_begin(), tile_end()        around all others, in the same call into compiled code
    tile_zero(tiles, t)             zeros in a tile
    tile_load(tiles, t, p)          1,024 bytes that lie together
    tile_store(tiles, t, p, n)      a tile's 16 rows of 16 int32, n int32 apart
    tile_dot_uu(tiles, t, a, b)     and _ss, _su, _us: tile t, as 16 x 16 int32, grows by the product of a and b:
                                    t[m][n] += sum over k < 64 of a[m][k] * b[k / 4][4 * n + k % 4]
                                    where a is unsigned (u) or signed (s) by the first letter, and b by the second

`tiles` is what `local_tiles()` returns: the memory of the loops' eight tiles, which the instructions do not use. The
loops are for tests on machines without AMX, and show what the instructions do.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, errors
from numba.extending import intrinsic

from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.integer_target import integer_target
from minilm_np.engine.runtime.simd import emit, integers
from minilm_np.engine.runtime.simd.integers import byte_pointer, int_pointer

ROWS, ROW_BYTES = 16, 64
# Instructions take constants. For the loops they are np.int64: Numba compiles a function once for each constant.
NUMBERS = tuple(range(8)) if integer_target() == "amx" else tuple(map(np.int64, range(8)))

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_VOID = ir.VoidType()

local_tiles = integers.local_ints(8 * ROWS * ROW_BYTES // 4 if integer_target() == "amx-twin" else 1)


# ---- the instructions ------------------------------------------------------------------------------------------------


def _configuration():
    """Palette 1; eight tiles of 16 rows of 64 bytes."""
    configuration = np.zeros(64, np.uint8)
    configuration[0] = 1
    configuration[16:32].view(np.uint16)[:] = ROW_BYTES
    configuration[48:56] = ROWS
    return configuration.tobytes()


@emit.instruction(types.void)
def _hardware_begin(builder):
    content = _configuration()
    constant = cgutils.global_constant(
        builder, "tile_configuration", ir.Constant(ir.ArrayType(_I8, len(content)), bytearray(content))
    )
    emit.call(builder, "llvm.x86.ldtilecfg", _VOID, builder.bitcast(constant, _I8.as_pointer()))


@emit.instruction(types.void)
def _hardware_end(builder):
    emit.call(builder, "llvm.x86.tilerelease", _VOID)


def _number(argument):
    if not isinstance(argument, types.IntegerLiteral) or not 0 <= argument.literal_value < 8:
        raise errors.TypingError("the number of a tile must be a constant from 0 to 7")
    return ir.Constant(_I8, argument.literal_value)


@intrinsic(prefer_literal=True)
def _hardware_zero(typingctx, tiles, t):
    number = _number(t)

    def codegen(context, builder, sig, args):
        emit.call(builder, "llvm.x86.tilezero", _VOID, number)

    return types.void(tiles, t), codegen


@intrinsic(prefer_literal=True)
def _hardware_load(typingctx, tiles, t, p):
    number = _number(t)

    def codegen(context, builder, sig, args):
        p = builder.bitcast(args[2], _I8.as_pointer())
        emit.call(builder, "llvm.x86.tileloadd64", _VOID, number, p, ir.Constant(_I64, ROW_BYTES))

    return types.void(tiles, t, byte_pointer), codegen


@intrinsic(prefer_literal=True)
def _hardware_store(typingctx, tiles, t, p, stride):
    number = _number(t)

    def codegen(context, builder, sig, args):
        p, stride = builder.bitcast(args[2], _I8.as_pointer()), builder.mul(args[3], ir.Constant(_I64, 4))
        emit.call(builder, "llvm.x86.tilestored64", _VOID, number, p, stride)

    return types.void(tiles, t, int_pointer, types.int64), codegen


def _hardware_dot(signs):
    @intrinsic(prefer_literal=True)
    def dot(typingctx, tiles, t, a, b):
        numbers = _number(t), _number(a), _number(b)

        def codegen(context, builder, sig, args):
            emit.call(builder, f"llvm.x86.tdpb{signs}d", _VOID, *numbers)

        return types.void(tiles, t, a, b), codegen

    return dot


# ---- their twins -----------------------------------------------------------------------------------------------------


@intrinsic
def _stays_a_function(typingctx):
    """Keep LLVM from copying the calling function into its callers: the loops would be compiled dozens of times."""

    def codegen(context, builder, sig, args):
        attributes = builder.function.attributes
        attributes.discard("alwaysinline")  # which Numba passes on from an inlined caller
        attributes.add("noinline")

    return types.void(), codegen


@intrinsic
def _byte(typingctx, p, index):
    def codegen(context, builder, sig, args):
        p = builder.bitcast(args[0], _I8.as_pointer())
        return builder.load(builder.gep(p, [args[1]]))

    return types.int8(p, types.int64), codegen


@intrinsic
def _get(typingctx, p, index):
    def codegen(context, builder, sig, args):
        return builder.load(builder.gep(args[0], [args[1]]))

    return types.int32(int_pointer, types.int64), codegen


@intrinsic
def _set(typingctx, p, index, value):
    def codegen(context, builder, sig, args):
        builder.store(args[2], builder.gep(args[0], [args[1]]))

    return types.void(int_pointer, types.int64, types.int32), codegen


@intrinsic
def _int_at(typingctx, p, index):
    """The int32 that begins at a byte."""

    def codegen(context, builder, sig, args):
        return builder.load(builder.bitcast(builder.gep(args[0], [args[1]]), _I32.as_pointer()), align=1)

    return types.int32(byte_pointer, types.int64), codegen


_TILE = ROWS * ROW_BYTES // 4  # int32 of a tile
_UNSIGNED, _SIGNED = np.int64(255), np.int64(-1)  # masks of bytes that were sign-extended to int64


@simd.kernel
def _twin_begin():
    pass


@simd.kernel
def _twin_end():
    pass


@simd.kernel
def _twin_zero(tiles, t):
    _stays_a_function()
    for i in range(_TILE):
        _set(tiles, t * _TILE + i, np.int32(0))


@simd.kernel
def _twin_load(tiles, t, p):
    _stays_a_function()
    for i in range(_TILE):
        _set(tiles, t * _TILE + i, _int_at(p, 4 * i))


@simd.kernel
def _twin_store(tiles, t, p, stride):
    _stays_a_function()
    for row in range(ROWS):
        for column in range(ROW_BYTES // 4):
            _set(p, row * stride + column, _get(tiles, t * _TILE + row * (ROW_BYTES // 4) + column))


@simd.kernel
def _twin_dot(tiles, t, a, b, a_mask, b_mask):
    _stays_a_function()
    tile, a_tile, b_tile = tiles + t * _TILE, tiles + a * _TILE, tiles + b * _TILE
    for m in range(ROWS):
        for n in range(ROW_BYTES // 4):
            total = np.int64(0)
            for k in range(ROW_BYTES):
                left = np.int64(_byte(a_tile, m * ROW_BYTES + k)) & a_mask
                right = np.int64(_byte(b_tile, k // 4 * ROW_BYTES + 4 * n + k % 4)) & b_mask
                total += left * right
            index = m * (ROW_BYTES // 4) + n
            _set(tile, index, np.int32(_get(tile, index) + total))


@simd.kernel
def _twin_dot_ss(tiles, t, a, b):
    _twin_dot(tiles, t, a, b, _SIGNED, _SIGNED)


@simd.kernel
def _twin_dot_su(tiles, t, a, b):
    _twin_dot(tiles, t, a, b, _SIGNED, _UNSIGNED)


@simd.kernel
def _twin_dot_us(tiles, t, a, b):
    _twin_dot(tiles, t, a, b, _UNSIGNED, _SIGNED)


@simd.kernel
def _twin_dot_uu(tiles, t, a, b):
    _twin_dot(tiles, t, a, b, _UNSIGNED, _UNSIGNED)


if integer_target() == "amx":
    tile_begin, tile_end, tile_zero = _hardware_begin, _hardware_end, _hardware_zero
    tile_load, tile_store = _hardware_load, _hardware_store
    tile_dot_ss, tile_dot_su, tile_dot_us, tile_dot_uu = map(_hardware_dot, ("ss", "su", "us", "uu"))
else:
    tile_begin, tile_end, tile_zero = _twin_begin, _twin_end, _twin_zero
    tile_load, tile_store = _twin_load, _twin_store
    tile_dot_ss, tile_dot_su, tile_dot_us, tile_dot_uu = _twin_dot_ss, _twin_dot_su, _twin_dot_us, _twin_dot_uu
