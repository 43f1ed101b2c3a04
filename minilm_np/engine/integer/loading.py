"""The compiled kernels of the integer engine as Python functions."""

import ctypes

from minilm_np._forks import no_fork
from minilm_np.engine.runtime.entries import Code, Entries, load_entries

_loaded: "dict[int, Kernels]" = {}


class Kernels:
    """The entry points of `kernels/entry.py` for one width."""

    def __init__(self, code: Code, bits: int) -> None:
        self._code = code  # owns the memory of the functions
        self.run_pass = code.functions[f"run_pass_{bits}"]  # takes the address of a `passes.Pass`
        self.quantise_weight = code.functions["quantise_weight"]
        self.exchange_float_mode = code.functions["exchange_float_mode"]


def load(bits: int) -> Kernels:
    """The kernels for integers of 16 or 8 bits. They are loaded, or compiled, once per process."""
    with no_fork:
        if bits not in _loaded:
            entries: Entries = {
                f"run_pass_{bits}": (ctypes.c_void_p,),
                "quantise_weight": (ctypes.c_int64,) * 8,
                "exchange_float_mode": (ctypes.c_int64,),
            }
            _loaded[bits] = Kernels(load_entries("minilm_np.engine.integer.kernels", entries), bits)
        return _loaded[bits]
