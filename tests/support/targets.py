"""The CPUs that tests compile for, and the libraries of kernels, as environment variables of a child process.

On x86-64 the older CPUs are emulated.
"""

import re

import llvmlite.binding as llvm

from minilm_np.engine.runtime import targets
from minilm_np.engine.runtime.libraries import FOLDER, file_name, obstacle

TARGETS: dict[str, dict[str, str]] = {
    "native": {},
    "avx2": {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": ""},
    "none": {
        "NUMBA_CPU_NAME": "x86-64-v2",
        "NUMBA_CPU_FEATURES": "",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-AVX2,-FMA4",
    },
}


def forced_libraries(package: str) -> dict[str, dict[str, str]]:
    """The libraries of a package of kernels that this machine can run: target -> environment variables that force it.

    There are none while the libraries cannot be used, as after a change of the kernels: `tests/engine/prebuilt` fails
    then, and more is compiled.
    """
    if obstacle(package):
        return {}
    names = (one.name for one in targets.TARGETS if one.fits() and (FOLDER / file_name(package, one)).exists())
    return {name: {targets.VARIABLE: name} for name in names}


def _keeps(body):
    return not re.search(r"@Py|@NRT|@llvm\.x86", body)


def aarch64_assembly(ir):
    """Assembly of the kernels in a module, without Numba's wrappers for Python, which hold x86 intrinsics."""
    ir = re.sub(r"^define .*?^}$", lambda body: body[0] if _keeps(body[0]) else "", ir, flags=re.MULTILINE | re.DOTALL)
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine(cpu="neoverse-n1", opt=3)
    module = llvm.parse_assembly(ir)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    return machine.emit_assembly(module)
