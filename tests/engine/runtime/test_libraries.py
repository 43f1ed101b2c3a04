"""Which library of kernels is used, and that the kernels are compiled where none can be."""

import ast
import hashlib
import json
import logging
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minilm_np import InputValueError, MissingExtraError
from minilm_np.engine.float32.loading import ENTRIES
from minilm_np.engine.runtime import code_cache, entries, integer_target, libraries, targets
from minilm_np.engine.runtime.numba_settings import code_settings
from minilm_np.engine.runtime.sources import digest
from minilm_np.engine.runtime.targets import COMPILE, TARGETS, VARIABLE, Target
from tests.support.code_cache import answer, start

FLOAT32, INTEGER, TRAIN = (
    "minilm_np.engine.float32.kernels", "minilm_np.engine.integer.kernels", "minilm_np.train.kernels"
)  # fmt: skip
HERE = [target for target in TARGETS if target.fits()]
here = pytest.mark.skipif(not HERE, reason="there is no library for this machine")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("NUMBA_") or name == VARIABLE:
            monkeypatch.delenv(name)


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the folder of libraries, which takes its place."""
    folder = tmp_path / "prebuilt"
    shutil.copytree(libraries.FOLDER, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.setattr(libraries, "FOLDER", folder)
    monkeypatch.setattr(libraries, "MANIFEST", folder / "manifest.json")
    libraries._manifest.cache_clear()
    yield folder
    libraries._manifest.cache_clear()


# ---- processors ------------------------------------------------------------------------------------------------------

HASWELL = "fpu sse2 pni ssse3 sse4_1 sse4_2 popcnt cx16 lahf_lm xsave avx avx2 bmi1 bmi2 f16c fma abm movbe".split()
SKYLAKE = [*HASWELL, *"avx512f avx512bw avx512cd avx512dq avx512vl".split()]
SAPPHIRE_RAPIDS = [*SKYLAKE, "avx512_vnni", "avx_vnni", "amx_tile", "amx_int8"]
PROCESSORS: dict[str, tuple[str, list[str], str | None, str | None]] = {
    # machine, features; the libraries for float32, and for integers
    "Sapphire Rapids": ("x86_64", SAPPHIRE_RAPIDS, "x86-64-v4", "x86-64-v4-amx"),
    "Zen 4": ("x86_64", [*SKYLAKE, "avx512_vnni"], "x86-64-v4", "x86-64-v4-avx512vnni"),
    "Skylake": ("x86_64", SKYLAKE, "x86-64-v4", "x86-64-v4"),
    "Alder Lake": ("x86_64", [*HASWELL, "avx_vnni"], "x86-64-v3", "x86-64-v3-avxvnni"),
    "Haswell": ("x86_64", HASWELL, "x86-64-v3", "x86-64-v3"),
    "Haswell, AVX switched off": ("x86_64", [one for one in HASWELL if "avx" not in one], None, None),
    "features unknown": ("x86_64", [], None, None),
    "Cortex-A72": ("aarch64", [], "aarch64", "aarch64"),
    "another machine": ("riscv64", [], None, None),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_every_processor_gets_the_best_library(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, features, float32, integer = PROCESSORS[name]
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(targets, "host_features", lambda: frozenset(features))
    vectors = "neon" if machine == "aarch64" else integer_target.vector_target.__wrapped__() if features else "generic"
    wanted = "amx" if "amx_tile" in features else vectors
    monkeypatch.setattr(libraries, "target_of", lambda package: wanted if package == INTEGER else None)
    manifest = libraries._manifest()
    found = {package: libraries._target(package, manifest) for package in (FLOAT32, TRAIN, INTEGER)}
    assert {package: target and target.name for package, target in found.items()} == {
        FLOAT32: float32, TRAIN: float32, INTEGER: integer
    }  # fmt: skip


def test_another_system_has_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not any(target.fits() for target in TARGETS)


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="reads Linux's list for x86-64")
def test_the_features_are_those_that_linux_lists() -> None:
    assert {"fpu", "sse2", "syscall"} <= targets.host_features()


# ---- the environment -------------------------------------------------------------------------------------------------


@here
def test_a_library_is_found_and_what_it_is_for_is_said() -> None:
    found = libraries.find(FLOAT32)
    assert found is not None and found.target.fits()
    assert entries.origin(FLOAT32) == f"compiled in advance for {found.target.description}"
    assert entries.identity(FLOAT32) == found.sha256 != code_cache.identity(FLOAT32)


@here
@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
def test_a_target_can_be_forced(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, target.name)
    found = libraries.find(FLOAT32)
    assert found is not None
    assert found.target.features <= target.features and found.target.name == target.name[: len("x86-64-v4")]


def test_a_target_that_this_processor_lacks_is_an_error_that_lists_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    other = "x86-64-v3" if platform.machine() == "aarch64" else "aarch64"
    monkeypatch.setenv(VARIABLE, other)
    with pytest.raises(InputValueError) as caught:
        libraries.find(FLOAT32)
    expected = ", ".join(map(repr, (COMPILE, *(target.name for target in HERE))))
    assert str(caught.value).startswith(f"{VARIABLE} is {other!r}: expected one of {expected} on this processor")


def test_compilation_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, COMPILE)
    assert libraries.find(FLOAT32) is None
    assert entries.origin(FLOAT32) == f"compiled on this machine ({VARIABLE} is 'compile')"
    assert entries.identity(FLOAT32) == code_cache.identity(FLOAT32)


@here
@pytest.mark.parametrize(
    ("name", "value"), [("NUMBA_OPT", "2"), ("NUMBA_CPU_NAME", "x86-64-v2"), ("NUMBA_CPU_FEATURES", "")]
)
def test_a_setting_of_numba_that_changes_code_asks_for_compilation(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert libraries.find(FLOAT32) is None
    assert libraries.obstacle(FLOAT32) == f"a setting of Numba may change the code of kernels: {name}"
    monkeypatch.setenv(VARIABLE, HERE[-1].name)
    with pytest.raises(InputValueError, match=rf"{VARIABLE} is .*, but its library cannot be used: .*{name}\. Remove"):
        libraries.find(FLOAT32)


@here
def test_other_settings_of_numba_ask_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    assert libraries.find(FLOAT32) is not None
    Path(".numba_config.yaml").write_text("opt: 0")
    assert libraries.obstacle(FLOAT32).endswith(": .numba_config.yaml")


def test_a_file_of_settings_that_cannot_be_read_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as that of another user, in a folder that everybody works in."""
    monkeypatch.chdir(tmp_path)
    Path(".numba_config.yaml").write_text("opt: 0")
    assert code_settings() == {".numba_config.yaml": b"opt: 0"}

    def refuse(path: Path) -> bytes:
        raise PermissionError

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert code_settings() == {}


INSTRUCTIONS = f"""
from minilm_np.engine.runtime import libraries
found = libraries.find({INTEGER!r})
print(repr(found and found.target.name), repr(libraries.obstacle({INTEGER!r})).replace(" ", "_"))
"""


@here
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="these instructions are x86-64's")
@pytest.mark.parametrize("forced", ["native", "generic", "amx-twin"])
def test_instructions_that_no_library_has_are_compiled(forced: str, tmp_path: Path) -> None:
    forced = integer_target.vector_target() if forced == "native" else forced
    words, _ = answer(start(INSTRUCTIONS, tmp_path, MINILM_NP_KERNELS="", MINILM_NP_INTEGER_TARGET=forced))
    found, obstacle = map(ast.literal_eval, words)
    if forced in ("generic", "amx-twin"):
        assert (found, obstacle) == (None, "there_is_no_library_for_this_processor")
    else:
        assert next(target for target in TARGETS if target.name == found).integers == forced


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="elsewhere no features are needed")
def test_a_system_that_hides_the_features_is_not_called_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (targets, libraries):
        monkeypatch.setattr(module, "host_features", frozenset)
    assert libraries.find(FLOAT32) is None
    assert libraries.obstacle(FLOAT32) == "/proc/cpuinfo does not list the features of this processor"


# ---- libraries that cannot be used -----------------------------------------------------------------------------------


@here
def test_libraries_of_other_sources_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "digest", lambda module: digest(module)[::-1])
    assert libraries.find(FLOAT32) is None
    assert libraries.obstacle(FLOAT32) == "the libraries were made of other sources than the installed ones"
    monkeypatch.setenv(VARIABLE, HERE[-1].name)
    with pytest.raises(InputValueError, match="its library cannot be used: the libraries were made of other sources"):
        libraries.find(FLOAT32)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[:-1],
    "one bit flipped": lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
    "another file": lambda content: b"#!/bin/sh\n",
}


@here
@pytest.mark.parametrize("name", ["missing", *DAMAGE])
def test_a_damaged_library_is_not_used_and_a_warning_names_it(
    copy: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    for path in copy.glob("float32-*.so"):
        content = path.read_bytes()
        path.unlink()
        if name != "missing":
            path.write_bytes(DAMAGE[name](content))
    assert libraries.find(FLOAT32) is None
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    expected = "No such file" if name == "missing" else "is damaged: its content does not have the SHA-256 in manifest"
    assert warning.startswith("the kernels that were compiled in advance cannot be used: ") and expected in warning
    assert str(copy) in warning and warning.endswith(libraries.obstacle(FLOAT32))
    assert libraries.find(TRAIN) is not None, "the others are sound"


@here
def test_a_library_that_the_system_does_not_load_is_not_used(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    for path in copy.glob("float32-*.so"):
        path.write_bytes(b"not a library")
        manifest["libraries"][path.name]["sha256"] = hashlib.sha256(b"not a library").hexdigest()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert libraries.find(FLOAT32) is None
    assert "float32-" in libraries.obstacle(FLOAT32)


@pytest.mark.parametrize("content", [None, b"", b"{"], ids=["missing", "empty", "cut"])
def test_without_a_manifest_there_is_no_library(copy: Path, content: bytes | None) -> None:
    (copy / "manifest.json").unlink()
    if content is not None:
        (copy / "manifest.json").write_bytes(content)
    assert libraries.find(FLOAT32) is None
    assert libraries.obstacle(FLOAT32).startswith("the installation has no manifest of libraries: ")


@here
def test_without_a_library_the_kernels_are_compiled(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "manifest.json").unlink()
    asked: list[str] = []

    def load(package: str, names: object) -> tuple[dict[str, int], object]:
        asked.append(package)
        return dict.fromkeys(ENTRIES, 1), None

    monkeypatch.setattr(code_cache, "load", load)
    assert set(entries.load_entries(FLOAT32, ENTRIES).functions) == set(ENTRIES)
    assert asked == [FLOAT32]


def test_without_a_library_and_without_numba_the_error_names_both(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "manifest.json").unlink()
    for name in ("numba", "llvmlite"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("code_cache", "llvm"):
        monkeypatch.delitem(sys.modules, f"minilm_np.engine.runtime.{name}")
        monkeypatch.delattr(f"minilm_np.engine.runtime.{name}")
    needs = r"^backend 'numba' needs Numba here, which is not installed: `pip install numba`, or use backend 'numpy'\. "
    for function in (lambda: entries.load_entries(FLOAT32, ENTRIES), lambda: entries.identity(FLOAT32)):
        with pytest.raises(MissingExtraError, match=f"{needs}Kernels compiled in advance are not used: the install"):
            function()
