"""The standard float mode for arithmetic of NumPy. Kernels set their own float mode. Needs no Numba."""

import ctypes
import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def standard_float_mode() -> Iterator[None]:
    """Put this thread's float mode to the standard during the block. Does nothing on other systems than Linux.

    A host program may have set another rounding, or subnormals to zero. A model loaded there would have other bits.
    """
    library, before = _c_library(), ctypes.create_string_buffer(256)  # fenv_t has 8 or 32 bytes
    if library is None or library.fegetenv(before):
        yield
        return
    library.fesetenv(ctypes.c_void_p(-1))  # FE_DFL_ENV
    try:
        yield
    finally:
        library.fesetenv(before)


@functools.cache
def _c_library() -> Any:
    """The library with fegetenv and fesetenv, which Python itself is linked with; None if it has none."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "fesetenv") else None
