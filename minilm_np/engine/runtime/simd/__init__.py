"""The vector instructions the kernels are written in; the only file that knows LLVM.

A `Float32x16` is sixteen float32 lanes, whatever the registers of the CPU: one zmm, two ymm, four xmm or four NEON
registers. Each operation below acts on every lane by itself with IEEE rounding, so the lanes hold the same bits on
every CPU. Inside kernels vectors have + - * /, pointers have `pointer + count`, and the functions are

    address(array)                  pointer to the first element of a C-contiguous float32 array
    floats_at(i, shape)             the float32 array that begins at the location i (an int64); ints_at: one of int64
    load(p), store(p, v)            sixteen floats
    load_part(p, n, fill)           the first n of sixteen, all if n > 16; other lanes are `fill`; no more is read
    store_part(p, n, v)             the first n lanes, all if n > 16; no more is written
    transpose(p, stride, rows, columns, out, out_stride)
                                    sixteen by sixteen floats, of which rows and columns may be fewer
    splat(x)                        x in every lane
    fma(a, b, c)                    a * b + c, rounded once
    sqrt(v)
    maximum(a, b)                   a > b ? a : b
    maximum_or_nan(a, b)            the same, but NaN if either is NaN
    select_greater(a, b, x, y)      a > b ? x : y
    power_of_two(v)                 2 ** v for whole v from -126 to 127
    lane_sum(v), lane_max(v)        one float from lane pairs (i, i+8), (i, i+4), (i, i+2), (i, i+1)

Made once at module level, then called: `local_floats(n)` (memory on the stack) and `fma_block(...)` (the register
tile of every matrix product). Used around the kernels: `get_float_mode`, `set_float_mode`, `atomic_add`,
`atomic_load`, `atomic_store`, `pause`, `yield_processor`.

What is avoided, because its bits differ between targets or its rounding is free: fastmath, `llvm.fmuladd`,
`llvm.vector.reduce.*`, `roundeven`, `maxnum` and `minnum`, and every function of libm. For the same reason `fma` is
spelled out in float64 where the target has no such instruction: LLVM would call libm's `fmaf` there.
"""

import functools
import inspect
import operator
import os
import re

import llvmlite.binding as llvm
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model
from numba.np import arrayobj

LANES = 16

_FLOAT, _DOUBLE, _I1, _I32, _I64 = ir.FloatType(), ir.DoubleType(), ir.IntType(1), ir.IntType(32), ir.IntType(64)
_VECTOR, _MASK, _INTS = (ir.VectorType(element, LANES) for element in (_FLOAT, _I1, _I32))
_DOUBLES, _LONGS = ir.VectorType(_DOUBLE, LANES), ir.VectorType(_I64, LANES)

# Every kernel is compiled alike: serial, without the GIL, no checks of division by zero, no fastmath.
kernel = njit(nogil=True, error_model="numpy")
# A small function that is always copied into its callers.
inlined = njit(nogil=True, error_model="numpy", forceinline=True)


# ---- the target ------------------------------------------------------------------------------------------------------


def _probe_target():
    """Name the vector fma of the CPU Numba compiles for: "avx512", "avx2", "neon" or "none".

    The assembly is asked, not the CPU: NUMBA_CPU_NAME and NUMBA_CPU_FEATURES may have chosen another target.
    """
    module = llvm.parse_assembly("""
        declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
        define void @probe(ptr %p, <16 x float> %a, <16 x float> %b) {
            %c = load <16 x float>, ptr %p
            %d = call <16 x float> @llvm.fma.v16f32(<16 x float> %a, <16 x float> %b, <16 x float> %c)
            store <16 x float> %d, ptr %p
            ret void
        }""")
    machine = cpu_target.target_context.codegen()._tm
    module.triple = machine.triple
    assembly = machine.emit_assembly(module)
    for name, pattern in (("avx512", r"\bvfn?madd\w+ps\b.*zmm"), ("avx2", r"\bvfn?madd\w+ps\b"), ("neon", r"\bfmla\b")):
        if re.search(pattern, assembly):
            return name
    return "none"


TARGET = _probe_target()


# ---- the types -------------------------------------------------------------------------------------------------------


class Float32x16(types.Type):
    """Numba's type of sixteen float32 lanes."""

    def __init__(self):
        super().__init__(name="float32x16")


@register_model(Float32x16)
class _Float32x16Model(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, _VECTOR)


float32x16 = Float32x16()
pointer = types.CPointer(types.float32)


def _instruction(result, *arguments):
    """Make a function for kernels, with these Numba types, of one that emits LLVM IR; the latter stays as `.emit`."""

    def decorate(emit):
        def instruction(typingctx, *_):
            return result(*arguments), lambda context, builder, sig, args: emit(builder, *args)

        instruction.__name__, instruction.__doc__ = emit.__name__, emit.__doc__
        instruction.__signature__ = inspect.signature(emit)  # `builder` in the place of `typingctx`
        function = intrinsic(instruction)
        function.emit = emit
        return function

    return decorate


def _splat(builder, value, vector_type=_VECTOR):
    first = builder.insert_element(ir.Constant(vector_type, ir.Undefined), value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, first, ir.Constant(_INTS, [0] * LANES))


def _constant(value, vector_type=_VECTOR):
    return ir.Constant(vector_type, [value] * LANES)


def _call(builder, name, result, *arguments):
    """Call an LLVM intrinsic, declared by hand: llvmlite's `declare_intrinsic` takes no vector types."""
    function_type = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), arguments)


def _vector_operator(function, emit):
    infer_global(function)(
        type("VectorOperator", (ConcreteTemplate,), {"cases": [signature(float32x16, float32x16, float32x16)]})
    )

    @lower_builtin(function, float32x16, float32x16)
    def lower(context, builder, sig, args):
        return emit(builder, *args)


_vector_operator(operator.add, lambda builder, a, b: builder.fadd(a, b))
_vector_operator(operator.sub, lambda builder, a, b: builder.fsub(a, b))
_vector_operator(operator.mul, lambda builder, a, b: builder.fmul(a, b))
_vector_operator(operator.truediv, lambda builder, a, b: builder.fdiv(a, b))


@infer_global(operator.add)
class _PointerPlusCount(ConcreteTemplate):
    cases = [signature(pointer, pointer, types.int64)]


@lower_builtin(operator.add, pointer, types.int64)
def _pointer_plus_count(context, builder, sig, args):
    return builder.gep(args[0], [args[1]])


# ---- memory ----------------------------------------------------------------------------------------------------------


@intrinsic
def address(typingctx, array):
    def codegen(context, builder, sig, args):
        return cgutils.create_struct_proxy(sig.args[0])(context, builder, args[0]).data

    if isinstance(array, types.Array) and array.dtype == types.float32 and array.layout == "C":
        return pointer(array), codegen


@intrinsic
def floats_at(typingctx, location, shape):
    """The C-contiguous float32 array of this shape (a tuple of int64) that begins at a location (int64)."""
    return _array_at(types.float32, location, shape)


@intrinsic
def ints_at(typingctx, location, shape):
    """The same, of int64."""
    return _array_at(types.int64, location, shape)


def _array_at(dtype, location, shape):
    array_type = types.Array(dtype, len(shape), "C")

    def codegen(context, builder, sig, args):
        location, shape = args
        array = arrayobj.make_array(array_type)(context, builder)
        data = builder.inttoptr(location, array.data.type)
        lengths = cgutils.unpack_tuple(builder, shape)
        itemsize = stride = ir.Constant(_I64, context.get_abi_sizeof(context.get_data_type(dtype)))
        strides = []
        for length in reversed(lengths):
            strides.insert(0, stride)
            stride = builder.mul(stride, length)
        arrayobj.populate_array(array, data, lengths, strides, itemsize, None)
        return array._getvalue()

    return array_type(location, shape), codegen


def _vector_pointer(builder, p, vector_type=_VECTOR):
    return builder.bitcast(p, vector_type.as_pointer())


@_instruction(float32x16, pointer)
def load(builder, p):
    return builder.load(_vector_pointer(builder, p), align=4)


@_instruction(types.void, pointer, float32x16)
def store(builder, p, v):
    builder.store(v, _vector_pointer(builder, p), align=4)


def _first_lanes(builder, n):
    numbers = ir.Constant(_INTS, list(range(LANES)))
    return builder.icmp_signed("<", numbers, _splat(builder, builder.trunc(n, _I32), _INTS))


def _masked_load(builder, p, mask, fill):
    # The old form of the intrinsic, with its alignment as an argument: every LLVM reads it.
    arguments = _vector_pointer(builder, p), ir.Constant(_I32, 4), mask, fill
    return _call(builder, "llvm.masked.load.v16f32.p0", _VECTOR, *arguments)


@_instruction(float32x16, pointer, types.int64, types.float32)
def load_part(builder, p, n, fill):
    result = cgutils.alloca_once(builder, _VECTOR)
    with builder.if_else(builder.icmp_signed(">=", n, ir.Constant(_I64, LANES)), likely=True) as (whole, part):
        with whole:
            builder.store(load.emit(builder, p), result)
        with part:
            builder.store(_masked_load(builder, p, _first_lanes(builder, n), _splat(builder, fill)), result)
    return builder.load(result)


@_instruction(types.void, pointer, types.int64, float32x16)
def store_part(builder, p, n, v):
    with builder.if_else(builder.icmp_signed(">=", n, ir.Constant(_I64, LANES)), likely=True) as (whole, part):
        with whole:
            store.emit(builder, p, v)
        with part:
            arguments = _vector_pointer(builder, p), ir.Constant(_I32, 4), _first_lanes(builder, n)
            _call(builder, "llvm.masked.store.v16f32.p0", ir.VoidType(), v, *arguments)


@_instruction(types.void, pointer, types.int64, types.int64, types.int64, pointer, types.int64)
def transpose(builder, p, stride, rows, columns, out, out_stride):
    """out[c * out_stride + r] = p[r * stride + c] for r and c < 16. All of out's 256 floats are written; of p at most
    `rows` rows and `columns` columns are read: rows past the last one repeat it, columns past the last one are 0."""
    mask, last_row = _first_lanes(builder, columns), builder.sub(rows, ir.Constant(_I64, 1))
    block = []
    for r in range(LANES):
        row = ir.Constant(_I64, r)
        row = builder.select(builder.icmp_signed("<", row, rows), row, last_row)
        block.append(_masked_load(builder, builder.gep(p, [builder.mul(row, stride)]), mask, _constant(0.0)))
    for step in (8, 4, 2, 1):  # swap the off-diagonal quarters of ever smaller squares
        upper = ir.Constant(_INTS, [j if j & step == 0 else LANES + j - step for j in range(LANES)])
        lower = ir.Constant(_INTS, [j + step if j & step == 0 else LANES + j for j in range(LANES)])
        for r in range(LANES):
            if r & step == 0:
                a, b = block[r], block[r + step]
                block[r], block[r + step] = builder.shuffle_vector(a, b, upper), builder.shuffle_vector(a, b, lower)
    for c, column in enumerate(block):
        store.emit(builder, builder.gep(out, [builder.mul(out_stride, ir.Constant(_I64, c))]), column)


def local_floats(size):
    """Make a function that gives a pointer to `size` floats on its caller's stack, aligned to a cache line."""

    @intrinsic
    def local(typingctx):
        def codegen(context, builder, sig, args):
            memory = cgutils.alloca_once(builder, ir.ArrayType(_FLOAT, size))
            memory.align = 64
            return builder.bitcast(memory, _FLOAT.as_pointer())

        return pointer(), codegen

    return local


# ---- arithmetic ------------------------------------------------------------------------------------------------------


@_instruction(float32x16, types.float32)
def splat(builder, x):
    return _splat(builder, x)


@_instruction(float32x16, float32x16, float32x16, float32x16)
def fma(builder, a, b, c):
    """a * b + c in each lane, rounded once."""
    if TARGET != "none":
        return _call(builder, "llvm.fma.v16f32", _VECTOR, a, b, c)
    # In float64 the product is exact. The sum is rounded to odd: where it is inexact (its error is known from TwoSum)
    # and its last bit is even, the neighbour on the error's side is taken. Rounding that to float32 is then right.
    product = builder.fmul(builder.fpext(a, _DOUBLES), builder.fpext(b, _DOUBLES))
    addend = builder.fpext(c, _DOUBLES)
    total = builder.fadd(product, addend)
    addend_part = builder.fsub(total, product)
    product_part = builder.fsub(total, addend_part)
    error = builder.fadd(builder.fsub(product, product_part), builder.fsub(addend, addend_part))
    inexact = builder.fcmp_ordered("!=", error, _constant(0.0, _DOUBLES))
    bits, error_bits = builder.bitcast(total, _LONGS), builder.bitcast(error, _LONGS)
    even = builder.icmp_signed("==", builder.and_(bits, _constant(1, _LONGS)), _constant(0, _LONGS))
    opposite = builder.icmp_signed("<", builder.xor(bits, error_bits), _constant(0, _LONGS))
    step = builder.select(opposite, _constant(-1, _LONGS), _constant(1, _LONGS))
    step = builder.select(builder.and_(inexact, even), step, _constant(0, _LONGS))
    return builder.fptrunc(builder.bitcast(builder.add(bits, step), _DOUBLES), _VECTOR)


@_instruction(float32x16, float32x16)
def sqrt(builder, v):
    return _call(builder, "llvm.sqrt.v16f32", _VECTOR, v)


@_instruction(float32x16, float32x16, float32x16)
def maximum(builder, a, b):
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@_instruction(float32x16, float32x16, float32x16)
def maximum_or_nan(builder, a, b):
    return builder.select(builder.fcmp_unordered("uno", a, a), a, maximum.emit(builder, a, b))


@_instruction(float32x16, float32x16, float32x16, float32x16, float32x16)
def select_greater(builder, a, b, x, y):
    return builder.select(builder.fcmp_ordered(">", a, b), x, y)


@_instruction(float32x16, float32x16)
def power_of_two(builder, v):
    exponent = builder.add(builder.fptosi(v, _INTS), _constant(127, _INTS))
    return builder.bitcast(builder.shl(exponent, _constant(23, _INTS)), _VECTOR)


def _fold_lanes(builder, combine, v):
    for half in (8, 4, 2, 1):
        indices = ir.VectorType(_I32, half)
        low = builder.shuffle_vector(v, v, ir.Constant(indices, list(range(half))))
        high = builder.shuffle_vector(v, v, ir.Constant(indices, list(range(half, 2 * half))))
        v = combine(low, high)
    return builder.extract_element(v, ir.Constant(_I32, 0))


@_instruction(types.float32, float32x16)
def lane_sum(builder, v):
    return _fold_lanes(builder, builder.fadd, v)


@_instruction(types.float32, float32x16)
def lane_max(builder, v):
    return _fold_lanes(builder, functools.partial(maximum.emit, builder), v)


# ---- the register tile -----------------------------------------------------------------------------------------------


def fma_block(max_rows, vectors, panel_width):
    """Make the inner loop of a matrix product: one block of k, a few rows of x times 16 * vectors columns of a panel.

        block(rows, x, x_stride, panel, count, tile, tile_stride, add, ahead)

        for each row r < rows, for each column c < 16 * vectors:
            acc = 0
            for k in range(count):
                acc = fma(x[r * x_stride + k], panel[k * panel_width + c], acc)
            tile[r * tile_stride + c] = tile[r * tile_stride + c] + acc if add else acc

    It is one loop over k whose body keeps all rows * vectors accumulators in registers, written out for each number
    of rows from 1 to max_rows. With each k of the panel that is read, the one `ahead` further on is prefetched into the
    second-level cache: a hint, which reads nothing and may point beyond the panel; with 0 it does nothing.
    """

    @intrinsic
    def block(typingctx, rows, x, x_stride, panel, count, tile, tile_stride, add, ahead):
        def codegen(context, builder, sig, args):
            rows, x, x_stride, panel, count, tile, tile_stride, add, ahead = args
            ahead = builder.mul(ahead, ir.Constant(_I64, panel_width))
            done = builder.append_basic_block("tile.done")
            switch = builder.switch(rows, done)
            for r in range(1, max_rows + 1):
                case = builder.append_basic_block(f"tile.{r}x{vectors}")
                switch.add_case(r, case)
                builder.position_at_end(case)
                x_rows = [builder.gep(x, [builder.mul(x_stride, ir.Constant(_I64, i))]) for i in range(r)]
                tile_rows = [builder.gep(tile, [builder.mul(tile_stride, ir.Constant(_I64, i))]) for i in range(r)]
                _emit_tile(builder, x_rows, panel, count, tile_rows, add, ahead, vectors, panel_width, done)
            builder.position_at_end(done)

        integer = types.int64
        arguments = integer, pointer, integer, pointer, integer, pointer, integer, types.boolean, integer
        return types.void(*arguments), codegen

    return block


def _never_unrolled(module):
    """Loop metadata; unrolled, the accumulators of a full tile no longer fit the registers and are spilled."""
    loop = module.add_metadata([module.add_metadata(["llvm.loop.unroll.disable"])])
    if loop.operands[0] is not loop:
        loop.operands = (loop, *loop.operands)  # the first operand of a loop's metadata is itself
    return loop


def _prefetch(builder, p):
    for_reading, second_level, data = (ir.Constant(_I32, number) for number in (0, 2, 1))
    _call(builder, "llvm.prefetch.p0", ir.VoidType(), p, for_reading, second_level, data)


def _emit_tile(builder, x_rows, panel, count, tile_rows, add, ahead, vectors, panel_width, done):
    start = builder.block
    loop = builder.append_basic_block("tile.k")
    builder.branch(loop)

    builder.position_at_end(loop)
    k = builder.phi(_I64)
    k.add_incoming(ir.Constant(_I64, 0), start)
    accumulators = [[builder.phi(_VECTOR) for _ in range(vectors)] for _ in x_rows]
    panel_row = builder.gep(panel, [builder.mul(k, ir.Constant(_I64, panel_width))])
    columns = [load.emit(builder, builder.gep(panel_row, [ir.Constant(_I64, LANES * v)])) for v in range(vectors)]
    for v in range(vectors):  # sixteen floats are a cache line
        _prefetch(builder, builder.gep(panel_row, [builder.add(ahead, ir.Constant(_I64, LANES * v))]))
    for x_row, row_accumulators in zip(x_rows, accumulators, strict=True):
        x_value = _splat(builder, builder.load(builder.gep(x_row, [k])))
        for column, accumulator in zip(columns, row_accumulators, strict=True):
            accumulator.add_incoming(_constant(0.0), start)
            accumulator.add_incoming(fma.emit(builder, x_value, column, accumulator), loop)
    k_next = builder.add(k, ir.Constant(_I64, 1))
    k.add_incoming(k_next, loop)
    stop = builder.append_basic_block("tile.stop")
    back = builder.cbranch(builder.icmp_signed("<", k_next, count), loop, stop)
    back.set_metadata("llvm.loop", _never_unrolled(builder.module))

    builder.position_at_end(stop)
    sums = [[accumulator.incomings[1][0] for accumulator in row] for row in accumulators]
    first, following = builder.append_basic_block("tile.first"), builder.append_basic_block("tile.add")
    builder.cbranch(add, following, first)
    for block, adds in ((first, False), (following, True)):
        builder.position_at_end(block)
        for tile_row, row_sums in zip(tile_rows, sums, strict=True):
            for v, total in enumerate(row_sums):
                p = builder.gep(tile_row, [ir.Constant(_I64, LANES * v)])
                store.emit(builder, p, builder.fadd(load.emit(builder, p), total) if adds else total)
        builder.branch(done)


# ---- the CPU's float mode, and what threads need ---------------------------------------------------------------------

_IS_POSIX = os.name == "posix"
_IS_X86 = cpu_target.target_context.codegen()._tm.triple.split("-")[0] in ("x86_64", "i386", "i686")


@_instruction(types.int64)
def get_float_mode(builder):
    """MXCSR or FPCR of the calling thread."""
    if not _IS_X86:
        return _call(builder, "llvm.aarch64.get.fpcr", _I64)
    slot = cgutils.alloca_once(builder, _I32)
    _call(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), builder.bitcast(slot, ir.IntType(8).as_pointer()))
    return builder.zext(builder.load(slot), _I64)


@_instruction(types.void, types.int64)
def set_float_mode(builder, mode):
    """Set MXCSR or FPCR. A function of its own must call this: LLVM may move arithmetic across it in the same one."""
    if not _IS_X86:
        _call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), mode)
        return
    slot = cgutils.alloca_once(builder, _I32)
    builder.store(builder.trunc(mode, _I32), slot)
    _call(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), builder.bitcast(slot, ir.IntType(8).as_pointer()))


def _counter(context, builder, array_type, array, index):
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def _is_counters(array):
    return isinstance(array, types.Array) and array.dtype == types.int64 and array.layout == "C"


@intrinsic
def atomic_add(typingctx, array, index, value):
    """array[index] += value in one step; gives the value before. Acquires and releases."""

    def codegen(context, builder, sig, args):
        array, index, value = args
        return builder.atomic_rmw("add", _counter(context, builder, sig.args[0], array, index), value, "acq_rel")

    if _is_counters(array):
        return types.int64(array, types.int64, types.int64), codegen


@intrinsic
def atomic_load(typingctx, array, index):
    """array[index]; what its storer wrote before is seen after (acquire)."""

    def codegen(context, builder, sig, args):
        return builder.load_atomic(_counter(context, builder, sig.args[0], *args), "acquire", 8)

    if _is_counters(array):
        return types.int64(array, types.int64), codegen


@intrinsic
def atomic_store(typingctx, array, index, value):
    """array[index] = value; what was written before is seen by whoever loads it (release)."""

    def codegen(context, builder, sig, args):
        array, index, value = args
        builder.store_atomic(value, _counter(context, builder, sig.args[0], array, index), "release", 8)

    if _is_counters(array):
        return types.void(array, types.int64, types.int64), codegen


@_instruction(types.void)
def pause(builder):
    """Tell the core that this is a spinning loop."""
    if _IS_X86:
        _call(builder, "llvm.x86.sse2.pause", ir.VoidType())
    else:
        _call(builder, "llvm.aarch64.hint", ir.VoidType(), ir.Constant(_I32, 1))  # yield


@intrinsic
def yield_processor(typingctx):
    """Offer the processor to another thread that waits for one; goes on at once if there is none."""

    def codegen(context, builder, sig, args):
        if _IS_POSIX:
            _call(builder, "sched_yield", _I32)

    return types.void(), codegen
