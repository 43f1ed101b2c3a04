"""The types of Numba and LLVM that the other modules share, and the functions with which they emit LLVM IR."""

import inspect

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 16

FLOAT, DOUBLE, I1, I32, I64 = ir.FloatType(), ir.DoubleType(), ir.IntType(1), ir.IntType(32), ir.IntType(64)
VECTOR, MASK, INTS = (ir.VectorType(element, LANES) for element in (FLOAT, I1, I32))
DOUBLES, LONGS = ir.VectorType(DOUBLE, LANES), ir.VectorType(I64, LANES)


class Float32x16(types.Type):
    """Numba's type of sixteen float32 lanes."""

    def __init__(self):
        super().__init__(name="float32x16")


@register_model(Float32x16)
class _Float32x16Model(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, VECTOR)


float32x16 = Float32x16()
pointer = types.CPointer(types.float32)


def instruction(result, *arguments):
    """Decorator: turn a function `emit(builder, *values)` into a function that kernels can call.

    result, arguments: the Numba types. The function that emits stays available as `.emit`, for other emitters.
    """

    def decorate(emit):
        def template(typingctx, *_):
            return result(*arguments), lambda context, builder, sig, args: emit(builder, *args)

        template.__name__, template.__doc__ = emit.__name__, emit.__doc__
        template.__signature__ = inspect.signature(emit)  # `builder` takes the place of `typingctx`
        function = intrinsic(template)
        function.emit = emit
        return function

    return decorate


def broadcast(builder, value, vector_type=VECTOR):
    """A vector with `value` in every lane."""
    first = builder.insert_element(ir.Constant(vector_type, ir.Undefined), value, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, first, ir.Constant(INTS, [0] * LANES))


def constant(value, vector_type=VECTOR):
    """A constant vector with `value` in every lane."""
    return ir.Constant(vector_type, [value] * LANES)


def call(builder, name, result, *arguments):
    """Call an LLVM intrinsic or a C function. It is declared here: llvmlite's `declare_intrinsic` rejects vectors."""
    function_type = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), arguments)
