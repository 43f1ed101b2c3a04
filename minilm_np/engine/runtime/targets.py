"""The processors for which kernels are compiled in advance, and which of them this processor can stand for.

Needs neither Numba nor LLVM. The features of the processor are those in /proc/cpuinfo, which lacks what the system has
switched off. An emulator that passes the file of its host through needs MINILM_NP_KERNELS=compile, and so does
Valgrind.

The environment variable MINILM_NP_KERNELS is "compile" (the kernels are compiled on this machine, as if there were no
libraries) or the name of a target (its libraries are used, also on a better processor, and nothing else is).
"""

import functools
import os
import platform
import sys
from typing import NamedTuple

from minilm_np.errors import InputValueError

VARIABLE = "MINILM_NP_KERNELS"
COMPILE = "compile"


class Target(NamedTuple):
    """A class of processors that share a library."""

    name: str
    machine: str  # as `platform.machine()` names it
    features: frozenset[str]  # that the code needs, as /proc/cpuinfo names them
    cpu: str  # LLVM's name of the processor that is compiled for,
    added: str  # and LLVM's names of the features that it lacks
    integers: str  # the instructions that multiply integers, as `integer_target.py` names them
    description: str

    def fits(self) -> bool:
        """Whether this process can run its code."""
        here = sys.platform == "linux" and sys.maxsize > 2**32 and platform.machine() == self.machine
        return here and self.features <= host_features()


_V3 = frozenset(
    "pni ssse3 sse4_1 sse4_2 popcnt cx16 lahf_lm xsave avx avx2 bmi1 bmi2 f16c fma abm movbe".split()
)  # fmt: skip
_V4 = _V3 | frozenset("avx512f avx512bw avx512cd avx512dq avx512vl".split())
_VNNI = _V4 | {"avx512_vnni"}

# From the fastest to the slowest. Processors without fma have no target: they compute it in float64, so slowly that
# the backend "numpy" serves them better.
TARGETS = (
    Target(
        "x86-64-v4-amx", "x86_64", _VNNI | {"amx_tile", "amx_int8"}, "x86-64-v4", "+avx512vnni,+amx-tile,+amx-int8",
        "amx", "x86-64-v4 with AMX",
    ),
    Target(
        "x86-64-v4-avx512vnni", "x86_64", _VNNI, "x86-64-v4", "+avx512vnni", "avx512vnni", "x86-64-v4 with AVX-512 VNNI"
    ),
    Target("x86-64-v4", "x86_64", _V4, "x86-64-v4", "", "avx512", "x86-64-v4 (AVX-512)"),
    Target(
        "x86-64-v3-avxvnni", "x86_64", _V3 | {"avx_vnni"}, "x86-64-v3", "+avxvnni", "avxvnni", "x86-64-v3 with AVX-VNNI"
    ),
    Target("x86-64-v3", "x86_64", _V3, "x86-64-v3", "", "avx2", "x86-64-v3 (AVX2)"),
    # a core of ARMv8.0, the oldest with 64 bits: NEON and fma, which every AArch64 processor has
    Target("aarch64", "aarch64", frozenset(), "cortex-a72", "", "neon", "AArch64 (NEON)"),
)  # fmt: skip


@functools.cache
def host_features() -> frozenset[str]:
    """The features of this processor, as Linux names them on x86-64. Empty where the system does not list them."""
    try:
        with open("/proc/cpuinfo", "rb") as file:  # only its beginning is read: many processors make a long file
            return frozenset(next(line for line in file if line.startswith(b"flags")).decode().split())
    except (OSError, StopIteration):
        return frozenset()


def forced_target() -> Target | None:
    """The target that MINILM_NP_KERNELS names, or None.

    Raises InputValueError: there is no such target, or this processor cannot run its code.
    """
    name = os.environ.get(VARIABLE, "")
    if name in ("", COMPILE):
        return None
    possible = {target.name: target for target in TARGETS if target.fits()}
    if name not in possible:
        expected = ", ".join(map(repr, (COMPILE, *possible)))
        raise InputValueError(
            f"{VARIABLE} is {name!r}: expected one of {expected} on this processor. Without the variable, the best is "
            "used"
        )
    return possible[name]


def features() -> frozenset[str]:
    """The features that kernels may use: `host_features()`, or those of the target that MINILM_NP_KERNELS names."""
    forced = forced_target()
    return host_features() if forced is None else forced.features
