"""Integers in vectors: sixteen int32 lanes, and the register tile of the integer matrix products.

Rows of 8-bit and 16-bit integers are memory of bytes: `byte_pointer` points to it. Integers wrap around, as in C with
-fwrapv; what a kernel's bounds exclude is said there. Inside kernels int32 vectors have + - *, and the functions are

    bytes_address(array), ints_address(array)   pointer to the first element of a C-contiguous uint8 or int32 array
    bytes_at(location, shape), ints32_at(...)   the uint8 or int32 array that begins at a location (an int64)
    pointer + count                             for both kinds of pointer
    load_ints(p), store_ints(p, v)              sixteen int32
    load_ints_part(p, n)                        the first n of sixteen, all if n > 16; other lanes are 0
    splat_int(x)                                x in every lane
    shift_left(v, n), shift_right(v, n)         n an int64 constant; the sign is copied to the right
    minimum_int(a, b), maximum_int(a, b)        the smaller, or the larger, of each pair of lanes
    to_floats(v)                                each int32 to the nearest float32, ties to even
    float_bits(v), bits_float(v)                float32 to the int32 of the same bits, and back
    store_shorts(p, v)                          the low 16 bits of each lane
    load_shorts(p)                              sixteen int16 as int32
    store_four_bytes(p, a, b, c, d)             the low 8 bits of each lane of four vectors
    store_four_second_bytes(p, a, b, c, d)      the 8 bits above those
    prefetch_line(p)                            a hint to bring p's cache line into the second-level cache

and for float32 vectors

    absolute(v)
    first_lane(v), first_int(v)                 lane 0 (of float32, of int32)
    lane_max_or_nan(v)                          as simd.lane_max, but NaN if any lane is NaN

Made once at module level, then called: `local_ints(n)` (memory on the stack) and `dot_block(...)`.
"""

import functools
import operator

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import LANES, emit, float32x16
from minilm_np.engine.runtime.simd.lanes import fold_lanes
from minilm_np.engine.runtime.simd.memory import array_at, first_lanes
from minilm_np.engine.runtime.simd.tile import never_unrolled, prefetch

llvm.initialize_native_asmparser()  # `Pairs` holds assembly

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_BYTES, _SHORTS, _INTS = (ir.VectorType(element, LANES) for element in (_I8, _I16, _I32))
_FLOATS = ir.VectorType(ir.FloatType(), LANES)


class Int32x16(types.Type):
    """Numba's type of sixteen int32 lanes."""

    def __init__(self):
        super().__init__(name="int32x16")


@register_model(Int32x16)
class _Int32x16Model(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, _INTS)


int32x16 = Int32x16()
byte_pointer, int_pointer = types.CPointer(types.uint8), types.CPointer(types.int32)


def _integer_operator(function, emit):
    infer_global(function)(
        type("IntegerOperator", (ConcreteTemplate,), {"cases": [signature(int32x16, int32x16, int32x16)]})
    )

    @lower_builtin(function, int32x16, int32x16)
    def lower(context, builder, sig, args):
        return emit(builder, *args)


_integer_operator(operator.add, lambda builder, a, b: builder.add(a, b))
_integer_operator(operator.sub, lambda builder, a, b: builder.sub(a, b))
_integer_operator(operator.mul, lambda builder, a, b: builder.mul(a, b))


@infer_global(operator.add)
class _PointerPlusCount(ConcreteTemplate):
    cases = [signature(pointer, pointer, types.int64) for pointer in (byte_pointer, int_pointer)]


@lower_builtin(operator.add, byte_pointer, types.int64)
@lower_builtin(operator.add, int_pointer, types.int64)
def _pointer_plus_count(context, builder, sig, args):
    return builder.gep(args[0], [args[1]])


# ---- memory ----------------------------------------------------------------------------------------------------------


def _address(dtype, pointer):
    @intrinsic
    def address(typingctx, array):
        def codegen(context, builder, sig, args):
            return cgutils.create_struct_proxy(sig.args[0])(context, builder, args[0]).data

        if isinstance(array, types.Array) and array.dtype == dtype and array.layout == "C":
            return pointer(array), codegen

    return address


bytes_address, ints_address = _address(types.uint8, byte_pointer), _address(types.int32, int_pointer)


@intrinsic
def bytes_at(typingctx, location, shape):
    """The C-contiguous uint8 array of this shape (a tuple of int64) that begins at a location (int64)."""
    return array_at(types.uint8, location, shape)


@intrinsic
def ints32_at(typingctx, location, shape):
    """The same, of int32."""
    return array_at(types.int32, location, shape)


def local_ints(size):
    """Make a function that gives a pointer to `size` int32 on its caller's stack, aligned to a cache line."""

    @intrinsic
    def local(typingctx):
        def codegen(context, builder, sig, args):
            with builder.goto_entry_block():  # `cgutils.alloca_once` would also fill it with zeros
                memory = builder.alloca(ir.ArrayType(_I32, size))
            memory.align = 64
            return builder.bitcast(memory, _I32.as_pointer())

        return int_pointer(), codegen

    return local


def _load(builder, p, vector_type):
    return builder.load(builder.bitcast(p, vector_type.as_pointer()), align=1)


def _store(builder, p, v):
    builder.store(v, builder.bitcast(p, v.type.as_pointer()), align=1)


@emit.instruction(int32x16, int_pointer)
def load_ints(builder, p):
    return _load(builder, p, _INTS)


@emit.instruction(types.void, int_pointer, int32x16)
def store_ints(builder, p, v):
    _store(builder, p, v)


@emit.instruction(int32x16, int_pointer, types.int64)
def load_ints_part(builder, p, n):
    mask = first_lanes(builder, n)
    arguments = builder.bitcast(p, _INTS.as_pointer()), ir.Constant(_I32, 4), mask, emit.constant(0, _INTS)
    return emit.call(builder, "llvm.masked.load.v16i32.p0", _INTS, *arguments)


@emit.instruction(int32x16, byte_pointer)
def load_shorts(builder, p):
    vector = builder.load(builder.bitcast(p, _SHORTS.as_pointer()), align=1)
    return builder.sext(vector, _INTS)


@emit.instruction(types.void, byte_pointer, int32x16, int32x16, int32x16, int32x16)
def store_four_bytes(builder, p, a, b, c, d):
    _store(builder, p, _one_byte_of_each(builder, 0, a, b, c, d))


@emit.instruction(types.void, byte_pointer, int32x16, int32x16, int32x16, int32x16)
def store_four_second_bytes(builder, p, a, b, c, d):
    _store(builder, p, _one_byte_of_each(builder, 1, a, b, c, d))


def _one_byte_of_each(builder, byte, *vectors):
    """Byte number `byte`, from the lowest on, of all lanes of four vectors: 64 bytes."""
    a, b, c, d = (builder.bitcast(v, ir.VectorType(_I8, 4 * LANES)) for v in vectors)
    indices = ir.Constant(ir.VectorType(_I32, 2 * LANES), list(range(byte, 8 * LANES, 4)))
    halves = builder.shuffle_vector(a, b, indices), builder.shuffle_vector(c, d, indices)
    return builder.shuffle_vector(*halves, ir.Constant(ir.VectorType(_I32, 4 * LANES), list(range(4 * LANES))))


@emit.instruction(types.void, byte_pointer, int32x16)
def store_shorts(builder, p, v):
    _store(builder, p, builder.trunc(v, _SHORTS))


# ---- arithmetic ------------------------------------------------------------------------------------------------------


@emit.instruction(int32x16, types.int32)
def splat_int(builder, x):
    return emit.broadcast(builder, x, _INTS)


@emit.instruction(int32x16, int32x16, types.int64)
def shift_left(builder, v, n):
    return builder.shl(v, emit.broadcast(builder, builder.trunc(n, _I32), _INTS))


@emit.instruction(int32x16, int32x16, types.int64)
def shift_right(builder, v, n):
    return builder.ashr(v, emit.broadcast(builder, builder.trunc(n, _I32), _INTS))


@emit.instruction(float32x16, int32x16)
def to_floats(builder, v):
    return builder.sitofp(v, _FLOATS)


@emit.instruction(int32x16, float32x16)
def float_bits(builder, v):
    return builder.bitcast(v, _INTS)


@emit.instruction(float32x16, int32x16)
def bits_float(builder, v):
    return builder.bitcast(v, _FLOATS)


@emit.instruction(int32x16, int32x16, int32x16)
def maximum_int(builder, a, b):
    return builder.select(builder.icmp_signed(">", a, b), a, b)


@emit.instruction(int32x16, int32x16, int32x16)
def minimum_int(builder, a, b):
    return builder.select(builder.icmp_signed("<", a, b), a, b)


@emit.instruction(float32x16, float32x16)
def absolute(builder, v):
    return emit.call(builder, "llvm.fabs.v16f32", _FLOATS, v)


@emit.instruction(types.float32, float32x16)
def first_lane(builder, v):
    return builder.extract_element(v, ir.Constant(_I32, 0))


@emit.instruction(types.int32, int32x16)
def first_int(builder, v):
    return builder.extract_element(v, ir.Constant(_I32, 0))


@emit.instruction(types.float32, float32x16)
def lane_max_or_nan(builder, v):
    return fold_lanes(builder, functools.partial(simd.maximum_or_nan.emit, builder), v)


@emit.instruction(types.void, byte_pointer)
def prefetch_line(builder, p):
    prefetch(builder, p)


# ---- the register tile -----------------------------------------------------------------------------------------------


def dot_block(max_rows, vectors, panel_width, multiply):
    """Make the inner loop of an integer matrix product: a few rows of x times 16 * vectors columns of a panel.

        block(rows, x, x_stride, panel, count, tile, tile_stride, ahead)

        for each row r < rows, for each column c < 16 * vectors:
            tile[r * tile_stride + c] = sum over k of x[r][k] * panel[k][c], in int32

    x_stride is in bytes, tile_stride in int32, `count` in groups of k. Each group of a row of x lies in
    `multiply.x_bytes` bytes, and that of a column of the panel in `multiply.w_bytes`, the columns side by side.
    All rows * vectors accumulators stay in registers; the loop is written out for each number of rows from 1 to
    max_rows. With each group of the panel that is read, the one `ahead` further on is prefetched into the second-level
    cache: a hint, which may point beyond the panel; with 0 it does nothing.
    """

    @intrinsic
    def block(typingctx, rows, x, x_stride, panel, count, tile, tile_stride, ahead):
        def codegen(context, builder, sig, args):
            rows, x, x_stride, panel, count, tile, tile_stride, ahead = args
            ahead = builder.mul(ahead, ir.Constant(_I64, panel_width * multiply.w_bytes))
            done = builder.append_basic_block("tile.done")
            switch = builder.switch(rows, done)
            for r in range(1, max_rows + 1):
                case = builder.append_basic_block(f"tile.{r}x{vectors}")
                switch.add_case(r, case)
                builder.position_at_end(case)
                x_rows = [builder.gep(x, [builder.mul(x_stride, ir.Constant(_I64, i))]) for i in range(r)]
                tile_rows = [builder.gep(tile, [builder.mul(tile_stride, ir.Constant(_I64, i))]) for i in range(r)]
                _emit_tile(builder, x_rows, panel, count, tile_rows, ahead, vectors, panel_width, multiply)
                builder.branch(done)
            builder.position_at_end(done)

        integer = types.int64
        arguments = integer, byte_pointer, integer, byte_pointer, integer, int_pointer, integer, integer
        return types.void(*arguments), codegen

    return block


def _emit_tile(builder, x_rows, panel, count, tile_rows, ahead, vectors, panel_width, multiply):
    start = builder.block
    loop = builder.append_basic_block("tile.k")
    builder.branch(loop)

    builder.position_at_end(loop)
    k = builder.phi(_I64)
    k.add_incoming(ir.Constant(_I64, 0), start)
    accumulators = [[builder.phi(_INTS) for _ in range(vectors)] for _ in x_rows]
    panel_row = builder.gep(panel, [builder.mul(k, ir.Constant(_I64, panel_width * multiply.w_bytes))])
    offsets = [ir.Constant(_I64, LANES * multiply.w_bytes * v) for v in range(vectors)]
    columns = [multiply.load_columns(builder, builder.gep(panel_row, [offset])) for offset in offsets]
    for line in range(0, LANES * multiply.w_bytes * vectors, 64):
        prefetch(builder, builder.gep(panel_row, [builder.add(ahead, ir.Constant(_I64, line))]))
    x_offset = builder.mul(k, ir.Constant(_I64, multiply.x_bytes))
    for x_row, row_accumulators in zip(x_rows, accumulators, strict=True):
        x_group = multiply.load_x(builder, builder.gep(x_row, [x_offset]))
        for column, accumulator in zip(columns, row_accumulators, strict=True):
            accumulator.add_incoming(emit.constant(0, _INTS), start)
            accumulator.add_incoming(multiply.add(builder, accumulator, x_group, column), loop)
    k_next = builder.add(k, ir.Constant(_I64, 1))
    k.add_incoming(k_next, loop)
    stop = builder.append_basic_block("tile.stop")
    back = builder.cbranch(builder.icmp_signed("<", k_next, count), loop, stop)
    back.set_metadata("llvm.loop", never_unrolled(builder.module))

    builder.position_at_end(stop)
    for tile_row, row in zip(tile_rows, accumulators, strict=True):
        for v, accumulator in enumerate(row):
            p = builder.gep(tile_row, [ir.Constant(_I64, LANES * v)])
            store_ints.emit(builder, p, accumulator.incomings[1][0])


class Pairs:
    """x and weight in int16, two of k side by side; with w_bits = 8 the weight is int8 in memory.

    LLVM makes vpmaddwd + vpaddd of the IR below (pmaddwd + paddd in older x86). vpdpwssd does the same in one, on
    `fused` = 512 or 256 bits. It is written as assembly, because LLVM tears the intrinsic of it apart again where it
    believes that two instructions take less time; in these loops they take twice as long.
    """

    group, x_bytes = 2, 4

    def __init__(self, w_bits, fused=0):
        self.w_bytes = 2 * w_bits // 8
        self._memory = ir.VectorType(ir.IntType(w_bits), 2 * LANES)
        self._shorts, self._longs = ir.VectorType(_I16, 2 * LANES), ir.VectorType(_I32, 2 * LANES)
        self._fused = fused

    def load_x(self, builder, p):
        pair = builder.load(builder.bitcast(p, _I32.as_pointer()), align=1)
        return builder.bitcast(emit.broadcast(builder, pair, _INTS), self._shorts)

    def load_columns(self, builder, p):
        columns = _load(builder, p, self._memory)
        return columns if columns.type == self._shorts else builder.sext(columns, self._shorts)

    def add(self, builder, accumulator, x, column):
        if self._fused:
            operands = accumulator, builder.bitcast(x, _INTS), builder.bitcast(column, _INTS)
            return _in_parts(builder, self._fused, self._fused_add, *operands)
        products = builder.mul(builder.sext(x, self._longs), builder.sext(column, self._longs))
        even, odd = (ir.Constant(_INTS, list(range(first, 2 * LANES, 2))) for first in (0, 1))
        pairs = builder.add(
            builder.shuffle_vector(products, products, even), builder.shuffle_vector(products, products, odd)
        )
        return builder.add(accumulator, pairs)

    def _fused_add(self, builder, accumulator, x, column):
        kind = ir.FunctionType(accumulator.type, [accumulator.type] * 3)
        code, register = ("vpdpwssd", "v") if self._fused == 512 else ("{vex} vpdpwssd", "x")
        constraints = f"={register},0,{register},{register}"
        return builder.asm(kind, f"{code} $3, $2, $0", constraints, [accumulator, x, column], False)


def _in_parts(builder, bits, add, *vectors):
    """add(builder, accumulator, x, column) on sixteen lanes, in vectors of `bits` bits."""
    lanes = bits // 32
    if lanes == LANES:
        return add(builder, *vectors)
    sums = []
    for first in range(0, LANES, lanes):
        indices = ir.Constant(ir.VectorType(_I32, lanes), list(range(first, first + lanes)))
        sums.append(add(builder, *(builder.shuffle_vector(v, v, indices) for v in vectors)))
    return builder.shuffle_vector(*sums, ir.Constant(_INTS, list(range(LANES))))


class Singles:
    """x in int16, weight in int16 or int8, each k by itself: smlal on NEON."""

    group, x_bytes = 1, 2

    def __init__(self, w_bits):
        self.w_bytes = w_bits // 8
        self._memory = ir.VectorType(ir.IntType(w_bits), LANES)

    def load_x(self, builder, p):
        return emit.broadcast(builder, builder.load(builder.bitcast(p, _I16.as_pointer()), align=1), _SHORTS)

    def load_columns(self, builder, p):
        columns = _load(builder, p, self._memory)
        return columns if columns.type == _SHORTS else builder.sext(columns, _SHORTS)

    def add(self, builder, accumulator, x, column):
        return builder.add(accumulator, builder.mul(builder.sext(x, _INTS), builder.sext(column, _INTS)))


class Quads:
    """x in uint8, weight in int8, four of k side by side: vpdpbusd, on 512 or 256 bits."""

    group, x_bytes, w_bytes = 4, 4, 4

    def __init__(self, bits):
        self._bits = bits

    def load_x(self, builder, p):
        return emit.broadcast(builder, builder.load(builder.bitcast(p, _I32.as_pointer()), align=1), _INTS)

    def load_columns(self, builder, p):
        return _load(builder, p, _INTS)

    def add(self, builder, accumulator, x, column):
        return _in_parts(builder, self._bits, self._fused_add, accumulator, x, column)

    def _fused_add(self, builder, accumulator, x, column):
        quads = ir.VectorType(_I8, self._bits // 8)
        operands = accumulator, builder.bitcast(x, quads), builder.bitcast(column, quads)
        return emit.call(builder, f"llvm.x86.avx512.vpdpbusd.{self._bits}", accumulator.type, *operands)
