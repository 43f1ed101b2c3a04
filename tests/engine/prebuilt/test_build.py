"""The libraries that were compiled in advance: made of the sources of this checkout, and nothing in them surprises."""

import hashlib
import importlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from minilm_np.engine.float32 import loading
from minilm_np.engine.prebuilt.build import PACKAGES, targets_of
from minilm_np.engine.prebuilt.elf import faults
from minilm_np.engine.runtime.libraries import FOLDER, MANIFEST, file_name
from minilm_np.engine.runtime.sources import digest
from minilm_np.engine.runtime.targets import TARGETS, Target
from minilm_np.train.kernels.layout import ENTRIES

ALL = [(package, target) for package in PACKAGES for target in targets_of(package)]
EXPORTS = {
    PACKAGES[0]: {*loading.ENTRIES, "run_linear"},
    PACKAGES[1]: {"run_pass_16", "run_pass_8", "quantise_weight", "exchange_float_mode"},
    PACKAGES[2]: {*ENTRIES},
}


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(MANIFEST.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_the_libraries_are_made_of_the_sources_of_this_checkout(manifest: dict[str, Any], package: str) -> None:
    assert manifest["sources"][package] == digest(f"{package}.entry"), (
        "the kernels have changed since their libraries were built, so every user compiles them: "
        "run `python -m minilm_np.engine.prebuilt build`, and commit the result"
    )


def test_every_library_is_the_one_in_the_manifest(manifest: dict[str, Any]) -> None:
    found = {path.name: path.read_bytes() for path in FOLDER.glob("*.so")}
    assert set(found) == set(manifest["libraries"]) == {file_name(package, target) for package, target in ALL}
    for name, content in found.items():
        library = manifest["libraries"][name]
        assert (len(content), hashlib.sha256(content).hexdigest()) == (library["bytes"], library["sha256"])


def test_every_target_has_a_library_for_integers_and_those_without_special_ones_for_floats() -> None:
    assert [target for package, target in ALL if package == PACKAGES[1]] == list(TARGETS)
    floats = ["x86-64-v4", "x86-64-v3", "aarch64"]
    assert [target.name for package, target in ALL if package == PACKAGES[0]] == floats
    assert [target.name for package, target in ALL if package == PACKAGES[2]] == floats


@pytest.mark.parametrize("package", PACKAGES)
def test_every_entry_is_exported(package: str) -> None:
    assert set(importlib.import_module(f"{package}.entry").NAMES) == EXPORTS[package]


@pytest.mark.parametrize(("package", "target"), ALL, ids=lambda value: getattr(value, "name", value))
def test_a_library_calls_nothing_but_the_c_library_and_has_no_surprises(package: str, target: Target) -> None:
    assert faults(FOLDER / file_name(package, target), target.machine, EXPORTS[package]) == []


# ---- the check itself finds faults -----------------------------------------------------------------------------------


@pytest.fixture
def library() -> Path:
    return FOLDER / file_name(PACKAGES[0], TARGETS[2])


def test_another_machine_and_other_functions_are_faults(library: Path) -> None:
    machine, functions = faults(library, "aarch64", {"run_pass"})
    assert machine == "expected a shared library for aarch64, found ET_DYN for EM_X86_64"
    assert functions.startswith("expected the functions ['run_pass'], found ['exchange_float_mode', 'run_linear', ")


def test_calls_and_needed_libraries_are_faults() -> None:
    found = " ".join(
        faults(Path(str(importlib.import_module("numpy._core._multiarray_umath").__file__)), "x86_64", set())
    )
    assert "which are outside of it" in found and "'DT_NEEDED'" in found


@pytest.mark.parametrize(
    ("segment", "message"),
    [(0x6474E551, "it asks for an executable stack"), (1, "it has memory that is writable and executable")],
    ids=["stack", "memory"],
)
def test_an_executable_stack_and_writable_code_are_faults(
    library: Path, tmp_path: Path, segment: int, message: str
) -> None:
    content = bytearray(library.read_bytes())
    (start,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    for place in range(start, start + size * count, size):
        if struct.unpack_from("<I", content, place)[0] == segment:
            struct.pack_into("<I", content, place + 4, 7)  # readable, writable, executable
    changed = tmp_path / "changed.so"
    changed.write_bytes(content)
    assert message in faults(changed, "x86_64", EXPORTS[PACKAGES[0]])
