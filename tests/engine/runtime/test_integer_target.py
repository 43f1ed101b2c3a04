"""The choice of the instructions for integers, in processes of its own: it is made once per process."""

import os
import subprocess
import sys

import pytest

from minilm_np.engine.runtime import targets
from minilm_np.engine.runtime.integer_target import VARIABLE, vector_target
from tests.support.places import CHECKOUT

PROGRAM = """
import sys
from minilm_np.engine.runtime.integer_target import integer_target, target_reason
print(integer_target())
print(target_reason())
print(*(name for name in ("numba", "llvmlite") if name in sys.modules))
"""
REFUSES = """
import ctypes
import llvmlite.binding  # which needs the true CDLL
class Refusing:
    def __init__(self, *arguments, **options): pass
    def syscall(self, *arguments):
        ctypes.set_errno(95)
        return -1
ctypes.CDLL = Refusing
"""


def choice(program=PROGRAM, **environment):
    others = (VARIABLE, targets.VARIABLE)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_") and name not in others}
    paths = os.pathsep.join(path for path in (str(CHECKOUT), kept.get("PYTHONPATH", "")) if path)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=kept | {"PYTHONPATH": paths} | environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="these are x86-64's")


def test_needs_neither_numba_nor_on_linux_llvm():
    target, _, imported = choice().stdout.splitlines()
    assert target in ("amx", vector_target())
    assert imported == ("" if sys.platform == "linux" else "llvmlite")


@pytest.mark.parametrize("name", ["amx-twin", "neon", "generic"])
def test_forced(name):
    target, reason, _ = choice(**{VARIABLE: name}).stdout.splitlines()
    assert (target, reason) == (name, f"forced by {VARIABLE}")


def test_what_cannot_be_forced():
    child = choice(**{VARIABLE: "altivec"})
    assert child.returncode == 1 and f"ValueError: {VARIABLE} is 'altivec': expected 'amx', '" in child.stderr
    child = choice(**{VARIABLE: "amx"}, NUMBA_CPU_NAME="x86-64-v2", NUMBA_CPU_FEATURES="")
    assert child.returncode == 1 and f"ValueError: {VARIABLE} is 'amx', but the processor has none" in child.stderr


@x86
@pytest.mark.parametrize(("version", "expected"), [(2, "generic"), (3, "avx2"), (4, "avx512")])
def test_an_emulated_processor_has_no_tiles(version, expected):
    child = choice(NUMBA_CPU_NAME=f"x86-64-v{version}", NUMBA_CPU_FEATURES="")
    assert child.stdout.splitlines()[0] == expected


@x86
@pytest.mark.parametrize("target", [one for one in targets.TARGETS if one.fits()], ids=lambda target: target.name)
def test_kernels_that_are_compiled_in_advance_have_the_instructions_of_their_target(target):
    found, reason, _ = choice(**{targets.VARIABLE: target.name}).stdout.splitlines()
    assert found == target.integers or (target.integers == "amx" and "the system refuses" in reason)
    assert found == "amx" or reason.startswith(f"not AMX: {targets.VARIABLE} selects {target.description}")


@pytest.mark.skipif(choice().stdout.splitlines()[0] != "amx", reason="this machine has no AMX, or does not permit it")
def test_a_refused_permission_is_a_reason():
    target, reason, _ = choice(REFUSES + PROGRAM).stdout.splitlines()
    assert (target, reason) == (vector_target(), "not AMX: the system refuses the permission: Operation not supported")
    child = choice(REFUSES + PROGRAM, **{VARIABLE: "amx"})
    assert "but the system refuses the permission" in child.stderr
