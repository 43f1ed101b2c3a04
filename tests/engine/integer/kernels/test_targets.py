"""The integer kernels give the same bits by every set of instructions, each shown by its assembly to be what it says.

Each target is a process of its own, compiled without a cache (`inspect_asm` of cached code is empty).
"""

import functools
import json
import os
import subprocess
import sys

import llvmlite.binding as llvm
import pytest

from minilm_np.engine.runtime.integer_target import VARIABLE, integer_target, probed_target, vector_target
from tests.support.places import CHECKOUT
from tests.support.targets import TARGETS

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="these targets are x86-64's")

CHILDREN: dict[str, dict[str, str]] = {
    "amx": {VARIABLE: "amx"},
    "amx-twin": {VARIABLE: "amx-twin"},
    "avx512vnni": {VARIABLE: "avx512vnni"},
    "avxvnni": {"NUMBA_CPU_NAME": "alderlake", "NUMBA_CPU_FEATURES": ""},
    "avx512": {"NUMBA_CPU_NAME": "x86-64-v4", "NUMBA_CPU_FEATURES": ""},
    "avx2": TARGETS["avx2"],
    "neon": {VARIABLE: "neon"},
    "generic": TARGETS["none"],
}
NEEDS = {"avx512vnni": "avx512vnni", "avxvnni": "avxvnni", "avx512": "avx512bw", "avx2": "avx2"}
TILE_INSTRUCTIONS = ("tileloadd", "tilestored", "ldtilecfg", "tilerelease", "tdpbssd", "tdpbsud", "tdpbusd", "tdpbuud")
USES = {
    "amx": TILE_INSTRUCTIONS,
    "avx512vnni": ("vpdpwssd", "vpdpbusd"),
    "avxvnni": ("vpdpwssd", "vpdpbusd"),
    "avx512": ("vpmaddwd",),
    "avx2": ("vpmaddwd",),
    "generic": ("pmaddwd",),
}


@functools.cache
def facts(name):
    if name == "amx" and integer_target() != "amx":
        pytest.skip("this machine has no AMX, or does not permit it")
    if name in NEEDS and not llvm.get_host_cpu_features().get(NEEDS[name]):
        pytest.skip(f"this processor has no {NEEDS[name]}")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_") and key != VARIABLE}
    paths = [str(CHECKOUT), environment.get("PYTHONPATH", "")]
    environment |= CHILDREN[name] | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    child = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.support.integer_kernels"],
        env=environment, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


# Of all targets on all processors.
SHA256 = "b238428c14235558c9ede99e862e53a9be8dbad3ac804839c6fc6e14761c8b5c"


@pytest.mark.parametrize("name", CHILDREN)
def test_same_bits(name):
    assert facts(name)["target"] == name
    assert facts(name)["sha256"] == SHA256


@pytest.mark.parametrize("name", USES)
def test_uses_its_instructions_and_no_others(name):
    counts = {instruction: count for instruction, count in facts(name)["counts"].items() if count}
    assert tuple(sorted(counts)) == tuple(sorted(USES[name]))
    assert facts(name)["fast"] == facts(name)["libm"] == [] and facts(name)["versions"] == 1
    if name in ("avx512vnni", "avx512"):
        assert facts(name)["zmm"] > 100 and facts(name)["ymm"] == 0
    if name in ("avxvnni", "avx2"):
        assert facts(name)["ymm"] > 50 and facts(name)["zmm"] == 0


def test_aarch64_multiplies_16_bits_at_a_time():
    """By construction: the kernels that run on NEON, which gave the same bits here, as assembly for AArch64."""
    counts = facts("neon")["aarch64"]
    assert counts["smlal"] > 100 and counts["smlal2"] > 100
    assert counts["mul"] < 20 and counts["calls to libm"] == 0


@pytest.mark.skipif("NUMBA_CPU_NAME" in os.environ, reason="asks for the host")
def test_the_features_say_what_the_assembly_says():
    assert vector_target() == probed_target()
