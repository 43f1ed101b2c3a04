"""The float mode in which kernels run. Needs no Numba."""

import platform

# Round to nearest even, subnormals kept, exceptions masked: MXCSR (x86) or FPCR (AArch64) as a process starts with it.
STANDARD_FLOAT_MODE = 0x1F80 if platform.machine().lower() in ("x86_64", "amd64", "i386", "i686") else 0
