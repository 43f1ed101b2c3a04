"""Pointers to float32, arrays at given addresses, whole and partial loads and stores, transposition, stack memory."""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin
from numba.np import arrayobj

from minilm_np.engine.runtime.simd.emit import (
    FLOAT,
    I32,
    I64,
    INTS,
    LANES,
    VECTOR,
    broadcast,
    call,
    constant,
    float32x16,
    instruction,
    pointer,
)


@infer_global(operator.add)
class _PointerPlusCount(ConcreteTemplate):
    cases = [signature(pointer, pointer, types.int64)]


@lower_builtin(operator.add, pointer, types.int64)
def _pointer_plus_count(context, builder, sig, args):
    return builder.gep(args[0], [args[1]])


# ---- arrays ----------------------------------------------------------------------------------------------------------


@intrinsic
def address(typingctx, array):
    def codegen(context, builder, sig, args):
        return cgutils.create_struct_proxy(sig.args[0])(context, builder, args[0]).data

    if isinstance(array, types.Array) and array.dtype == types.float32 and array.layout == "C":
        return pointer(array), codegen


@intrinsic
def floats_at(typingctx, location, shape):
    """The C-contiguous float32 array of this shape (a tuple of int64) that begins at an address (int64)."""
    return array_at(types.float32, location, shape)


@intrinsic
def ints_at(typingctx, location, shape):
    """The same for int64."""
    return array_at(types.int64, location, shape)


def array_at(dtype, location, shape):
    array_type = types.Array(dtype, len(shape), "C")

    def codegen(context, builder, sig, args):
        location, shape = args
        array = arrayobj.make_array(array_type)(context, builder)
        data = builder.inttoptr(location, array.data.type)
        lengths = cgutils.unpack_tuple(builder, shape)
        itemsize = stride = ir.Constant(I64, context.get_abi_sizeof(context.get_data_type(dtype)))
        strides = []
        for length in reversed(lengths):
            strides.insert(0, stride)
            stride = builder.mul(stride, length)
        arrayobj.populate_array(array, data, lengths, strides, itemsize, None)
        return array._getvalue()

    return array_type(location, shape), codegen


def local_floats(size):
    """Make a function that returns a pointer to `size` floats on its caller's stack, aligned to a cache line."""

    @intrinsic
    def local(typingctx):
        def codegen(context, builder, sig, args):
            memory = cgutils.alloca_once(builder, ir.ArrayType(FLOAT, size))
            memory.align = 64
            return builder.bitcast(memory, FLOAT.as_pointer())

        return pointer(), codegen

    return local


# ---- loads and stores ------------------------------------------------------------------------------------------------


def _vector_pointer(builder, p, vector_type=VECTOR):
    return builder.bitcast(p, vector_type.as_pointer())


@instruction(float32x16, pointer)
def load(builder, p):
    return builder.load(_vector_pointer(builder, p), align=4)


@instruction(types.void, pointer, float32x16)
def store(builder, p, v):
    builder.store(v, _vector_pointer(builder, p), align=4)


def first_lanes(builder, n):
    numbers = ir.Constant(INTS, list(range(LANES)))
    return builder.icmp_signed("<", numbers, broadcast(builder, builder.trunc(n, I32), INTS))


def _masked_load(builder, p, mask, fill):
    # The older form of the intrinsic, which takes the alignment as an argument: every version of LLVM accepts it.
    arguments = _vector_pointer(builder, p), ir.Constant(I32, 4), mask, fill
    return call(builder, "llvm.masked.load.v16f32.p0", VECTOR, *arguments)


@instruction(float32x16, pointer, types.int64, types.float32)
def load_part(builder, p, n, fill):
    result = cgutils.alloca_once(builder, VECTOR)
    with builder.if_else(builder.icmp_signed(">=", n, ir.Constant(I64, LANES)), likely=True) as (whole, part):
        with whole:
            builder.store(load.emit(builder, p), result)
        with part:
            builder.store(_masked_load(builder, p, first_lanes(builder, n), broadcast(builder, fill)), result)
    return builder.load(result)


@instruction(types.void, pointer, types.int64, float32x16)
def store_part(builder, p, n, v):
    with builder.if_else(builder.icmp_signed(">=", n, ir.Constant(I64, LANES)), likely=True) as (whole, part):
        with whole:
            store.emit(builder, p, v)
        with part:
            arguments = _vector_pointer(builder, p), ir.Constant(I32, 4), first_lanes(builder, n)
            call(builder, "llvm.masked.store.v16f32.p0", ir.VoidType(), v, *arguments)


@instruction(types.void, pointer, types.int64, types.int64, types.int64, pointer, types.int64)
def transpose(builder, p, stride, rows, columns, out, out_stride):
    """out[c * out_stride + r] = p[r * stride + c] for r and c < 16.

    All 256 floats of out are written. At most `rows` rows and `columns` columns of p are read: in place of missing
    rows the last row is repeated, and missing columns are 0.
    """
    mask, last_row = first_lanes(builder, columns), builder.sub(rows, ir.Constant(I64, 1))
    block = []
    for r in range(LANES):
        row = ir.Constant(I64, r)
        row = builder.select(builder.icmp_signed("<", row, rows), row, last_row)
        block.append(_masked_load(builder, builder.gep(p, [builder.mul(row, stride)]), mask, constant(0.0)))
    for step in (8, 4, 2, 1):  # swap the off-diagonal quarters of smaller and smaller squares
        upper = ir.Constant(INTS, [j if j & step == 0 else LANES + j - step for j in range(LANES)])
        lower = ir.Constant(INTS, [j + step if j & step == 0 else LANES + j for j in range(LANES)])
        for r in range(LANES):
            if r & step == 0:
                a, b = block[r], block[r + step]
                block[r], block[r + step] = builder.shuffle_vector(a, b, upper), builder.shuffle_vector(a, b, lower)
    for c, column in enumerate(block):
        store.emit(builder, builder.gep(out, [builder.mul(out_stride, ir.Constant(I64, c))]), column)
