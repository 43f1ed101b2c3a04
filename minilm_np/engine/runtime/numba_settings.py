"""The settings of Numba that change the code of kernels. Needs no Numba."""

import os
from contextlib import suppress
from pathlib import Path

# Environment variables, without "NUMBA_". Others, such as NUMBA_NUM_THREADS, change no code.
_VARIABLES = (
    "BOUNDSCHECK", "CPU_FEATURES", "CPU_NAME", "DEBUGINFO", "DISABLE_INTEL_SVML", "ENABLE_AVX", "ENABLE_PROFILING",
    "EXTEND_VARIABLE_LIFETIMES", "LLVM_REFPRUNE_FLAGS", "LLVM_REFPRUNE_PASS", "LOOP_VECTORIZE", "OPT", "SLP_VECTORIZE",
)  # fmt: skip
_FILE = ".numba_config.yaml"  # in the working folder


def code_settings() -> dict[str, str | bytes]:
    """The environment variables that are set, with their values, and the file of settings with its content."""
    names = (f"NUMBA_{name}" for name in _VARIABLES)
    found: dict[str, str | bytes] = {name: os.environ[name] for name in names if name in os.environ}
    if os.path.isfile(_FILE):
        with suppress(OSError):  # Numba cannot read it either
            found[_FILE] = Path(_FILE).read_bytes()
    return found
