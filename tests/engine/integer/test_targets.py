"""A whole pass has the same bits on every instruction set that this machine has or can pretend to lack.

Each instruction set has a separate process. Compiling both widths takes more than a minute, so only the code for this
processor is compiled, and the code for which there is no library. For the other instruction sets the process loads the
library, which Numba made of the same sources (`tests/engine/prebuilt` checks that). `kernels/test_targets.py` compiles
the single kernels for every instruction set.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minilm_np.engine.runtime import integer_target, targets
from tests.support.places import CHECKOUT
from tests.support.targets import TARGETS, forced_libraries

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="these targets are those of x86-64")

PATIENCE = 1200  # seconds to compile both widths, on a busy machine
NATIVE = integer_target.vector_target()
COMPILED = {"native": {}, "none": TARGETS["none"]}
if integer_target.integer_target() != "amx":  # else the native target runs the same code, and this compiles for minutes
    COMPILED["tiles by loops"] = {integer_target.VARIABLE: "amx-twin"}
LIBRARIES = forced_libraries("minilm_np.engine.integer.kernels")
WITHOUT_TILES = {integer_target.VARIABLE: NATIVE}
if LIBRARIES:
    LIBRARIES["without tiles"] = WITHOUT_TILES
else:
    COMPILED |= {"without tiles": WITHOUT_TILES, "avx2": TARGETS["avx2"]}
FORCED = COMPILED | LIBRARIES
EXPECTED = {"without tiles": NATIVE, "tiles by loops": "amx-twin", "avx2": "avx2", "none": "generic"}
EXPECTED |= {target.name: target.integers for target in targets.TARGETS if target.integers != "amx"}
# per target: instructions of int16 and of int8 that must be there
INSTRUCTIONS = {
    "amx": ({"tdpbuud"}, {"tdpbusd"}),
    "avx512vnni": ({"vpdpwssd", "zmm"}, {"vpdpbusd", "zmm"}),
    "avxvnni": ({"vpdpwssd", "ymm"}, {"vpdpbusd", "ymm"}),
    "avx512": ({"vpmaddwd", "zmm"}, {"vpmaddwd", "zmm"}),
    "avx2": ({"vpmaddwd", "ymm"}, {"vpmaddwd", "ymm"}),
    "generic": ({"pmaddwd"}, {"pmaddwd"}),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the child prints for each target; two run at a time."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "OMP_", "MINILM_NP"))}
    paths = os.pathsep.join(path for path in (str(CHECKOUT), kept.get("PYTHONPATH", "")) if path)

    def start(name: str) -> "subprocess.Popen[str]":
        cache: Path = tmp_path_factory.mktemp("cache")
        program, forced = ["tests.support.integer_children"], FORCED[name]
        if name in COMPILED:
            program, forced = [*program, "code"], forced | {targets.VARIABLE: targets.COMPILE}
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-m", *program],
            env=kept | {"PYTHONPATH": paths, "MINILM_NP_CACHE": str(cache)} | forced,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    answers: dict[str, Any] = {}
    waiting, running = list(FORCED), dict[str, "subprocess.Popen[str]"]()
    while waiting or running:
        while waiting and len(running) < 2:
            name = waiting.pop(0)
            running[name] = start(name)
        name, process = next(iter(running.items()))
        out, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, f"{name}: {errors}"
        answers[name] = json.loads(out)
        del running[name]
    return answers


@pytest.mark.parametrize("name", FORCED)
def test_every_target_gives_the_same_bits(found, name):
    digests = found[name]["sha256"]
    assert digests == found["native"]["sha256"]
    for family in ("bert", "mpnet"):
        int16, int8 = ([digests[f"{family}, {name}, {threads}"] for threads in (1, 2)] for name in ("int16", "int8"))
        assert int16[0] == int16[1] != int8[0] == int8[1]


@pytest.mark.parametrize("name", FORCED)
def test_the_kernels_are_those_that_are_asked_for(found, name):
    target = found[name]["target"]
    assert target == EXPECTED.get(name, target)
    origin = "compiled on this machine" if name in COMPILED else "compiled in advance"
    assert found[name]["origin"].startswith(origin)


@pytest.mark.parametrize("name", COMPILED)
def test_the_code_has_the_instructions_of_its_target(found, name):
    target = found[name]["target"]
    for width, expected in zip(("run_pass_16", "run_pass_8"), INSTRUCTIONS.get(target, (set(), set())), strict=True):
        there = set(found[name]["instructions"][width])
        assert expected <= there
        if name == "none":
            assert "fmaf" not in there
