"""The instructions that multiply integers on this machine, found without Numba, and on Linux without LLVM.

`integer_target()` names them. The names, from fast to slow:

    amx         tiles of 16 rows of 64 bytes, with AVX-512 VNNI (Intel Xeon since 2023)
    avx512vnni  vpdpwssd, vpdpbusd on 512 bits
    avxvnni     the same on 256 bits
    avx512      vpmaddwd, vpaddd on 512 bits
    avx2        the same on 256 bits
    neon        smlal on AArch64
    generic     what LLVM makes of the same multiplications (pmaddwd on older x86)
    amx-twin    the AMX kernels with loops instead of the tile instructions; only if forced

The environment variable MINILM_NP_INTEGER_TARGET forces "amx" or the best target without tiles, and for tests, on every
processor, "amx-twin", "neon" or "generic", which need no special instruction. Targets for older processors are forced
as Numba's are, by NUMBA_CPU_NAME and NUMBA_CPU_FEATURES; AMX is then not used. Kernels that are compiled in advance for
older processors are forced by MINILM_NP_KERNELS (`targets.py`).
"""

import ctypes
import functools
import os
import platform
import re
import sys

from minilm_np.engine.runtime import targets
from minilm_np.errors import InputValueError

VARIABLE = "MINILM_NP_INTEGER_TARGET"
_ANYWHERE = ("amx-twin", "neon", "generic")

_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18  # Linux on x86-64: system call, request, state component

# c[i] += a[2i] * b[2i] + a[2i + 1] * b[2i + 1] in int32: LLVM makes the instruction of it that the processor has.
_EVEN, _ODD = (", ".join(f"i32 {i}" for i in range(first, 32, 2)) for first in (0, 1))
_PROBE = f"""
    define void @probe(ptr %c, ptr %a, ptr %b) {{
        %a_short = load <32 x i16>, ptr %a
        %b_short = load <32 x i16>, ptr %b
        %a_long = sext <32 x i16> %a_short to <32 x i32>
        %b_long = sext <32 x i16> %b_short to <32 x i32>
        %products = mul <32 x i32> %a_long, %b_long
        %even = shufflevector <32 x i32> %products, <32 x i32> poison, <16 x i32> <{_EVEN}>
        %odd = shufflevector <32 x i32> %products, <32 x i32> poison, <16 x i32> <{_ODD}>
        %pairs = add <16 x i32> %even, %odd
        %before = load <16 x i32>, ptr %c
        %after = add <16 x i32> %pairs, %before
        store <16 x i32> %after, ptr %c
        ret void
    }}"""
_PATTERNS = (
    ("avx512vnni", r"\bvpdpwssd\b.*zmm"),
    ("avxvnni", r"\bvpdpwssd\b"),
    ("avx512", r"\bvpmaddwd\b.*zmm"),
    ("avx2", r"\bvpmaddwd\b.*ymm"),
    ("neon", r"\bsm(?:ul|la)l2?\b"),
)
# The names of features are those of Linux.
_FEATURES = (
    ("avx512vnni", {"avx512_vnni", "avx512bw"}),
    ("avxvnni", {"avx_vnni", "avx2"}),
    ("avx512", {"avx512bw"}),
    ("avx2", {"avx2"}),
)
_TILES = {"amx_tile", "amx_int8"}
_NAMES = {"avx512vnni": "avx512_vnni", "avxvnni": "avx_vnni", "amx-tile": "amx_tile", "amx-int8": "amx_int8"}  # LLVM's


@functools.cache
def integer_target() -> str:
    """Return the name of the instructions. Requests the system's permission to use AMX, once per process.

    Raises InputValueError: MINILM_NP_INTEGER_TARGET names a target that this machine does not have.
    """
    return _choice()[0]


def target_of(package: str) -> str | None:
    """Return `integer_target()` for a package of kernels that multiply integers; None for one of float32 only."""
    return integer_target() if ".engine.integer." in package else None


def target_reason() -> str:
    """Return, in words, why this target was chosen. Raises as `integer_target`."""
    return _choice()[1]


@functools.cache
def _choice() -> tuple[str, str]:
    best = vector_target()
    forced = os.environ.get(VARIABLE, "")
    if forced in (best, *_ANYWHERE):
        return forced, f"forced by {VARIABLE}"
    if forced not in ("", "amx"):
        raise InputValueError(
            f"{VARIABLE} is {forced!r}: expected 'amx', {best!r} (the best without tiles here), or, for tests, "
            f"{', '.join(map(repr, _ANYWHERE))}. NUMBA_CPU_NAME and NUMBA_CPU_FEATURES force older processors"
        )
    obstacle = _obstacle_to_amx(best)
    if not obstacle:
        return "amx", f"forced by {VARIABLE}" if forced else "the processor has AMX, and the system permits it"
    if forced:
        raise InputValueError(f"{VARIABLE} is 'amx', but {obstacle}")
    return best, f"not AMX: {obstacle}"


def _obstacle_to_amx(best: str) -> str:
    """Why AMX cannot be used; "" if it can."""
    if best != "avx512vnni" or not _features() >= _TILES:
        forced = targets.forced_target()
        return f"{targets.VARIABLE} selects {forced.description}" if forced else "the processor has none"
    if _emulated():
        return "NUMBA_CPU_NAME or NUMBA_CPU_FEATURES describes another processor"
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"the permission for it is requested on 64-bit Linux only, not on {sys.platform}"
    # Without the permission the first tile instruction would end the process. Threads and forks inherit it.
    if ctypes.CDLL(None, use_errno=True).syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA):
        return f"the system refuses the permission: {os.strerror(ctypes.get_errno())}"
    return ""


def _emulated() -> bool:
    return any(os.environ.get(name) is not None for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"))


def _features() -> frozenset[str]:
    """Features of the processor, by Linux's names; from LLVM where the system is not Linux."""
    if targets.host_features():
        return targets.features()
    from minilm_np.engine.runtime.llvm import llvm

    return frozenset(_NAMES.get(name, name) for name, present in llvm.get_host_cpu_features().items() if present)


@functools.cache
def vector_target() -> str:
    """The best target without tiles, of the processor that kernels run on, or that Numba compiles for."""
    if _emulated():
        return probed_target()
    if platform.machine().lower() in ("aarch64", "arm64"):
        return "neon"
    found = _features()
    return next((name for name, needed in _FEATURES if needed <= found), "generic")


def probed_target() -> str:
    """The same, from the assembly that LLVM makes for that processor. Takes 15 ms longer."""
    from minilm_np.engine.runtime.llvm import llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu = os.environ.get("NUMBA_CPU_NAME", llvm.get_host_cpu_name())
    features = os.environ.get("NUMBA_CPU_FEATURES", llvm.get_host_cpu_features().flatten())
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=cpu, features=features, opt=3)
    module = llvm.parse_assembly(_PROBE)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    assembly = machine.emit_assembly(module)
    return next((name for name, pattern in _PATTERNS if re.search(pattern, assembly)), "generic")
