"""The compiled kernels of the float32 engine as Python functions."""

import ctypes
from collections.abc import Callable

from minilm_np._forks import no_fork
from minilm_np.engine.runtime.entries import Code, Entries, load_entries

# kernels/entry.py: name -> the ctypes of its arguments
ENTRIES: Entries = {"run_pass": (ctypes.c_void_p,), "exchange_float_mode": (ctypes.c_int64,)}

_LINEAR: Entries = {"run_linear": (ctypes.c_int64,) * 7}

_loaded: "Kernels | None" = None
_linear: "Code | None" = None


class Kernels:
    """The entry points of `kernels/entry.py`."""

    def __init__(self, code: Code) -> None:
        self._code = code  # owns the memory of the functions
        self.run_pass = code.functions["run_pass"]  # takes the address of a `layout.Pass`
        self.exchange_float_mode = code.functions["exchange_float_mode"]


def load() -> Kernels:
    """Return the kernels for this machine. They are loaded, or compiled, once per process."""
    global _loaded
    with no_fork:
        if _loaded is None:
            _loaded = Kernels(load_entries("minilm_np.engine.float32.kernels", ENTRIES))
        return _loaded


def load_linear() -> Callable[..., int]:
    """Return `run_linear`, which a model with a Dense module needs. It is loaded, or compiled, separately and once."""
    global _linear
    with no_fork:
        if _linear is None:
            _linear = load_entries("minilm_np.engine.float32.kernels", _LINEAR)
        return _linear.functions["run_linear"]
