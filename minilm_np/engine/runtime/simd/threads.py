"""What threads need of the processor: its float mode, atomic counters, a pause in a spin loop, a yield."""

import os

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minilm_np.engine.runtime.simd.emit import I32, I64, call, instruction
from minilm_np.engine.runtime.simd.target import IS_X86

_IS_POSIX = os.name == "posix"


# ---- the float mode --------------------------------------------------------------------------------------------------


@instruction(types.int64)
def get_float_mode(builder):
    """MXCSR or FPCR of the calling thread."""
    if not IS_X86:
        return call(builder, "llvm.aarch64.get.fpcr", I64)
    slot = cgutils.alloca_once(builder, I32)
    call(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), builder.bitcast(slot, ir.IntType(8).as_pointer()))
    return builder.zext(builder.load(slot), I64)


@instruction(types.void, types.int64)
def set_float_mode(builder, mode):
    """Set MXCSR or FPCR. Call it in a separate function: within one function LLVM may move arithmetic across it."""
    if not IS_X86:
        call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), mode)
        return
    slot = cgutils.alloca_once(builder, I32)
    builder.store(builder.trunc(mode, I32), slot)
    call(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), builder.bitcast(slot, ir.IntType(8).as_pointer()))


# ---- counters that threads share -------------------------------------------------------------------------------------


def _counter(context, builder, array_type, array, index):
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def _is_counters(array):
    return isinstance(array, types.Array) and array.dtype == types.int64 and array.layout == "C"


@intrinsic
def atomic_add(typingctx, array, index, value):
    """Add to array[index] atomically, and return the value before. Memory order: acquire and release."""

    def codegen(context, builder, sig, args):
        array, index, value = args
        return builder.atomic_rmw("add", _counter(context, builder, sig.args[0], array, index), value, "acq_rel")

    if _is_counters(array):
        return types.int64(array, types.int64, types.int64), codegen


@intrinsic
def atomic_load(typingctx, array, index):
    """Read array[index] atomically. Memory order: acquire."""

    def codegen(context, builder, sig, args):
        return builder.load_atomic(_counter(context, builder, sig.args[0], *args), "acquire", 8)

    if _is_counters(array):
        return types.int64(array, types.int64), codegen


# ---- waiting ---------------------------------------------------------------------------------------------------------


@instruction(types.void)
def pause(builder):
    """Tell the core that this is a spin loop."""
    if IS_X86:
        call(builder, "llvm.x86.sse2.pause", ir.VoidType())
    else:
        call(builder, "llvm.aarch64.hint", ir.VoidType(), ir.Constant(I32, 1))  # yield


@intrinsic
def yield_processor(typingctx):
    """Offer the processor to another runnable thread; return at once if there is none. Does nothing outside POSIX."""

    def codegen(context, builder, sig, args):
        if _IS_POSIX:
            call(builder, "sched_yield", I32)

    return types.void(), codegen
