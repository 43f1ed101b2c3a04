"""LLVM's Python binding, which Numba brings, for the modules that need it. If it is missing, the error names Numba."""

from minilm_np.errors import MissingExtraError

NEEDS_NUMBA = "backend 'numba' needs Numba here, which is not installed: `pip install numba`, or use backend 'numpy'"

try:
    import llvmlite
    import llvmlite.binding as llvm
except ModuleNotFoundError as error:
    raise MissingExtraError(NEEDS_NUMBA) from error

__all__ = ["NEEDS_NUMBA", "llvm", "llvmlite"]
