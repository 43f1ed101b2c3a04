"""The host's CPU, and the float mode in which kernels run. Needs no Numba."""

import platform

import llvmlite.binding as llvm

# Round to nearest even, subnormals kept, exceptions masked: MXCSR (x86) or FPCR (AArch64) as a process starts with it.
STANDARD_FLOAT_MODE = 0x1F80 if platform.machine().lower() in ("x86_64", "amd64", "i386", "i686") else 0


def host() -> tuple[str, str, str]:
    """LLVM's names of this process's target triple, the CPU, and its features ("+avx2,-avx512f,...").

    Numba compiles for them, unless NUMBA_CPU_NAME or NUMBA_CPU_FEATURES select another target.
    """
    return llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
