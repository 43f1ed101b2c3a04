"""What kernels are compiled for, and how: the instruction set of Numba's target, and the two decorators."""

import re

import llvmlite.binding as llvm
from numba import njit
from numba.core.registry import cpu_target

# Every kernel is compiled with the same options: serial, without the GIL, no checks of division by zero, no fastmath.
kernel = njit(nogil=True, error_model="numpy")
# A small function that is always inlined into its callers.
inlined = njit(nogil=True, error_model="numpy", forceinline=True)


def _target_machine():
    return cpu_target.target_context.codegen()._tm


def _probe_target():
    """Return the kind of vector fma of the target that Numba compiles for: "avx512", "avx2", "neon" or "none".

    It is read from the assembly of a small function, because NUMBA_CPU_NAME and NUMBA_CPU_FEATURES may select a target
    other than the host's CPU.
    """
    module = llvm.parse_assembly("""
        declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
        define void @probe(ptr %p, <16 x float> %a, <16 x float> %b) {
            %c = load <16 x float>, ptr %p
            %d = call <16 x float> @llvm.fma.v16f32(<16 x float> %a, <16 x float> %b, <16 x float> %c)
            store <16 x float> %d, ptr %p
            ret void
        }""")
    machine = _target_machine()
    module.triple = machine.triple
    assembly = machine.emit_assembly(module)
    for name, pattern in (("avx512", r"\bvfn?madd\w+ps\b.*zmm"), ("avx2", r"\bvfn?madd\w+ps\b"), ("neon", r"\bfmla\b")):
        if re.search(pattern, assembly):
            return name
    return "none"


TARGET = _probe_target()
IS_X86 = _target_machine().triple.split("-")[0] in ("x86_64", "i386", "i686")
