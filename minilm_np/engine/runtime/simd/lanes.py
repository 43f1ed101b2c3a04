"""Arithmetic of sixteen float32 lanes. Each lane is computed with IEEE rounding, independently of the others.

`llvm.fma` is the only fused operation. Where the target has no such instruction, LLVM would call libm's `fmaf`, so
`fma` is computed in float64 there, with the same bits.
"""

import functools
import operator

from llvmlite import ir
from numba import types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import lower_builtin

from minilm_np.engine.runtime.simd.emit import (
    DOUBLES,
    I32,
    INTS,
    LONGS,
    VECTOR,
    broadcast,
    call,
    constant,
    float32x16,
    instruction,
)
from minilm_np.engine.runtime.simd.target import TARGET


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


@instruction(float32x16, types.float32)
def splat(builder, x):
    return broadcast(builder, x)


@instruction(float32x16, float32x16, float32x16, float32x16)
def fma(builder, a, b, c):
    """a * b + c in each lane, rounded once."""
    if TARGET != "none":
        return call(builder, "llvm.fma.v16f32", VECTOR, a, b, c)
    # In float64 the product is exact. The sum is rounded to odd: if it is inexact (TwoSum gives its error) and its
    # last bit is even, it is replaced by its neighbour on the side of the error. Rounding that to float32 is correct.
    product = builder.fmul(builder.fpext(a, DOUBLES), builder.fpext(b, DOUBLES))
    addend = builder.fpext(c, DOUBLES)
    total = builder.fadd(product, addend)
    addend_part = builder.fsub(total, product)
    product_part = builder.fsub(total, addend_part)
    error = builder.fadd(builder.fsub(product, product_part), builder.fsub(addend, addend_part))
    inexact = builder.fcmp_ordered("!=", error, constant(0.0, DOUBLES))
    bits, error_bits = builder.bitcast(total, LONGS), builder.bitcast(error, LONGS)
    even = builder.icmp_signed("==", builder.and_(bits, constant(1, LONGS)), constant(0, LONGS))
    opposite = builder.icmp_signed("<", builder.xor(bits, error_bits), constant(0, LONGS))
    step = builder.select(opposite, constant(-1, LONGS), constant(1, LONGS))
    step = builder.select(builder.and_(inexact, even), step, constant(0, LONGS))
    return builder.fptrunc(builder.bitcast(builder.add(bits, step), DOUBLES), VECTOR)


@instruction(float32x16, float32x16)
def sqrt(builder, v):
    return call(builder, "llvm.sqrt.v16f32", VECTOR, v)


@instruction(float32x16, float32x16, float32x16)
def maximum(builder, a, b):
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@instruction(float32x16, float32x16, float32x16)
def maximum_or_nan(builder, a, b):
    return builder.select(builder.fcmp_unordered("uno", a, a), a, maximum.emit(builder, a, b))


@instruction(float32x16, float32x16, float32x16, float32x16, float32x16)
def select_greater(builder, a, b, x, y):
    return builder.select(builder.fcmp_ordered(">", a, b), x, y)


@instruction(float32x16, float32x16)
def power_of_two(builder, v):
    exponent = builder.add(builder.fptosi(v, INTS), constant(127, INTS))
    return builder.bitcast(builder.shl(exponent, constant(23, INTS)), VECTOR)


def fold_lanes(builder, combine, v):
    for half in (8, 4, 2, 1):
        indices = ir.VectorType(I32, half)
        low = builder.shuffle_vector(v, v, ir.Constant(indices, list(range(half))))
        high = builder.shuffle_vector(v, v, ir.Constant(indices, list(range(half, 2 * half))))
        v = combine(low, high)
    return builder.extract_element(v, ir.Constant(I32, 0))


@instruction(types.float32, float32x16)
def lane_sum(builder, v):
    return fold_lanes(builder, builder.fadd, v)


@instruction(types.float32, float32x16)
def lane_max(builder, v):
    return fold_lanes(builder, functools.partial(maximum.emit, builder), v)
