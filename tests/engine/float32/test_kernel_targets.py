"""The kernels give the same bits with AVX-512, AVX2 and without FMA. The assembly is checked to be of that target.

Each target is a child process that compiles without a cache (`inspect_asm` of cached code is empty). Emulation needs
NUMBA_CPU_FEATURES too, set but empty: with NUMBA_CPU_NAME alone the host's features stay on.
"""

import functools
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import kernel
from tests.support.kernel_bits import KERNELS, outputs
from tests.support.places import CHECKOUT
from tests.support.targets import TARGETS, aarch64_assembly


@functools.cache
def facts(name):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_")}
    paths = [str(CHECKOUT), environment.get("PYTHONPATH", "")]
    environment |= TARGETS[name] | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    child = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.support.kernel_bits"],
        env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="these targets are x86-64's")


@x86
@pytest.mark.parametrize("name", TARGETS)
def test_same_bits(name):
    assert facts(name)["sha256"] == facts("native")["sha256"]


@x86
def test_native_uses_what_the_cpu_has():
    native = facts("native")
    assert native["libm"] == native["fast"] == []
    assert {"avx512": native["zmm"], "avx2": native["ymm"], "none": 1}[native["target"]] > 100 or native["fma"] == 0
    assert native["target"] != "avx512" or native["ymm"] == 0
    assert native["target"] == "none" or native["double"] == 0


@x86
def test_avx2_is_avx2():
    avx2 = facts("avx2")
    assert avx2["target"] == "avx2" and avx2["zmm"] == avx2["double"] == 0 and avx2["ymm"] > 100
    assert avx2["libm"] == avx2["fast"] == []


@x86
def test_none_has_no_fma_and_calls_no_libm():
    none = facts("none")
    assert none["target"] == "none" and none["fma"] == none["zmm"] == none["ymm"] == 0
    assert none["libm"] == none["fast"] == []
    assert none["double"] > 0


# ---- AArch64: by construction, shown on emitted assembly, not run ----------------------------------------------------


@kernel
def fused_and_unfused(x, fused, unfused):
    value = simd.load(simd.address(x))
    simd.store(simd.address(fused), simd.fma(value, value, value))
    simd.store(simd.address(unfused), value * value + value)


@pytest.mark.skipif(simd.TARGET == "none", reason="fma is spelled out in float64 here")
def test_aarch64_fuses_fma_and_nothing_else():
    x = np.ones(16, np.float32)
    fused_and_unfused(x, np.empty_like(x), np.empty_like(x))
    ir = next(iter(fused_and_unfused.inspect_llvm().values()))
    assembly = aarch64_assembly(ir)
    assert len(re.findall(r"\bfmla\s+v\d+\.4s", assembly)) == 4  # sixteen lanes are four registers
    assert len(re.findall(r"\bfmul\s+v\d+\.4s", assembly)) == 4
    assert len(re.findall(r"\bfadd\s+v\d+\.4s", assembly)) == 4
    assert not re.search(r"\bfn?m(add|sub)\b|\bbl\s+\w*fma", assembly)


@pytest.mark.skipif(simd.TARGET == "none", reason="fma is spelled out in float64 here")
def test_all_kernels_can_be_emitted_for_aarch64():
    for out in outputs():
        del out
    for dispatcher in KERNELS:
        for ir in dispatcher.inspect_llvm().values():
            assembly = aarch64_assembly(ir)
            assert not re.search(r"\bbl\s+(expf?|erff?|fmaf?|fmaxf|fminf|roundevenf?|sqrtf?)\b", assembly)
