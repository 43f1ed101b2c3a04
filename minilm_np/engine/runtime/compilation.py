"""A kernel to object code, with Numba. Imported only where no library fits and the code cache has no usable copy."""

from typing import Any

from numba import types
from numba.core import compiler
from numba.core.registry import CPUDispatcher, cpu_target

CompileResult = Any  # compiler.CompileResult, whose fields mypy cannot see


def compile_function(dispatcher: CPUDispatcher, arguments: tuple[types.Type, ...], result: types.Type) -> CompileResult:
    """Compile a kernel: the function and all that it calls, without wrappers for Python."""
    flags: Any = compiler.Flags()
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.release_gil = True
    flags.error_model = "numpy"
    context = cpu_target.typing_context, cpu_target.target_context
    return compiler.compile_extra(*context, dispatcher.py_func, arguments, result, flags, {})


def symbol_and_object(compiled: CompileResult) -> bytes:
    """A compiled function in bytes: its symbol, a zero byte, the object file. `code_cache` stores them."""
    _, kind, (binary, _) = compiled.library.serialize_using_object_code()
    assert kind == "object"
    symbol: str = compiled.fndesc.llvm_func_name
    return symbol.encode() + b"\0" + binary
