"""The cache of compiled kernels: compiled once, verified before use, compiled again if anything is wrong.

Compiling takes seconds, so it is done once, by one of two processes at the same time (`conftest.py`). In the other
tests a function that returns their code takes the place of Numba.
"""

import ast
import contextlib
import ctypes
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import io
import os
import re
import shutil
import stat
import sys
import tempfile
import threading
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from minilm_np import SentenceEncoder
from minilm_np.engine.float32 import loading
from minilm_np.engine.runtime import code_cache, entries
from minilm_np.engine.runtime.sources import sources
from minilm_np.errors import MissingExtraError
from tests.support.code_cache import (
    COMPILES,
    COMPILES_EACH_TIME,
    KERNELS,
    NAMES,
    ORDER,
    PACKAGE,
    TEXTS,
    answer,
    as_nobody,
    listener,
    start,
    warnings_of,
)
from tests.support.places import CHECKOUT


def right(made):
    """Whether the kernels that this process now uses compute the right bits."""
    vectors = SentenceEncoder.random(threads=1).encode(TEXTS)
    return hashlib.sha256(vectors.tobytes()).hexdigest() == made.digest


# ---- once on a machine -----------------------------------------------------------------------------------------------


def test_undamaged_files_are_loaded_and_nothing_is_compiled(world, filled, made, capsys, caplog):
    asked = world.begin_again()
    assert right(made) and asked == []
    assert capsys.readouterr().err == "" and warnings_of(caplog) == []


def test_kernels_are_compiled_once_per_process_when_many_threads_load_them(world, made, capsys):
    asked, gate, results = world.begin_again(), threading.Barrier(8), []

    def load():
        gate.wait(60)
        results.append(loading.load())

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 8 and len({id(result) for result in results}) == 1
    assert sorted(asked) == ["exchange_float_mode", "run_pass"]
    assert capsys.readouterr().err == COMPILES
    assert right(made)


# ---- damaged files ---------------------------------------------------------------------------------------------------


def flipped(content):
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGE = {
    "empty": lambda content: b"",
    "digest only": lambda content: content[:32],
    "cut short": lambda content: content[:-1],
    "cut in the middle": lambda content: content[: len(content) // 2],
    "one bit flipped": flipped,
    "one bit of the digest flipped": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "a byte added": lambda content: content + b"\0",
    "another file": lambda content: b"#!/bin/sh\necho hello\n" * 100,
}


@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_never_reaches_llvm_and_is_compiled_again(
    world, filled, made, capsys, caplog, monkeypatch, name, damage
):
    path = filled / name
    sound = path.read_bytes()
    path.write_bytes(DAMAGE[damage](sound))
    seen, from_data = [], llvm.ObjectFileRef.from_data

    def record(data):
        seen.append(data)
        return from_data(data)

    monkeypatch.setattr(llvm.ObjectFileRef, "from_data", record)
    asked = world.begin_again()
    assert right(made)
    assert sorted(asked) == ["exchange_float_mode", "run_pass"]
    assert capsys.readouterr().err == COMPILES
    (warning,) = warnings_of(caplog)
    assert f"{path} is damaged" in warning
    assert len(seen) == 2 and all(
        data in (filled / other).read_bytes() for data, other in zip(seen, ORDER, strict=True)
    )
    assert path.read_bytes() == sound, "the undamaged code was not cached"
    assert world.begin_again() == [] and right(made)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_missing_file_is_compiled_without_a_warning(world, filled, made, caplog, name):
    filled.joinpath(name).unlink()
    asked = world.begin_again()
    assert right(made) and len(asked) == 2
    assert warnings_of(caplog) == []
    assert {path.name for path in filled.iterdir()} == NAMES


# ---- files and folders of other users --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o022, 0o002, 0o020])
@pytest.mark.parametrize("place", ["kernels", "the identity's folder", "a file"])
def test_a_file_that_others_can_write_is_not_read(world, filled, made, caplog, place, mode):
    path = {"kernels": filled.parent, "the identity's folder": filled, "a file": filled / "run_pass.o"}[place]
    before = path.stat().st_mode
    path.chmod(before | mode)
    asked = world.begin_again()
    assert right(made) and len(asked) == 2
    (warning,) = warnings_of(caplog)
    assert f"other users can write to {path} (permissions 0{stat.S_IMODE(before | mode):o})" in warning
    assert place == "a file" or "Set MINILM_NP_CACHE to a folder that only you can write to" in warning


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("place", ["kernels", "the identity's folder", "a file"])
def test_a_file_of_another_user_is_not_read(world, filled, made, caplog, place):
    path = {"kernels": filled.parent, "the identity's folder": filled, "a file": filled / "run_pass.o"}[place]
    os.chown(path, 12345, -1)
    asked = world.begin_again()
    assert right(made) and len(asked) == 2
    (warning,) = warnings_of(caplog)
    assert f"{path} belongs to the user 12345; expected this user (0) or root" in warning


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o077])
def test_only_the_user_can_write_the_files_whatever_the_umask(world, made, tmp_path, mask):
    before = os.umask(mask)
    try:
        assert right(made)
    finally:
        os.umask(before)
    folder = tmp_path / "kernels" / code_cache.identity(KERNELS)
    assert {path.name for path in folder.iterdir()} == NAMES
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder, *folder.iterdir())}
    expected = {path: (0o755 if path.is_dir() else 0o644) & ~mask for path in modes}
    assert modes == expected, "others may read them, so that root can compile for everybody"
    assert world.begin_again() == [] and right(made)


# ---- caches of root, and folders that cannot be written --------------------------------------------------------------


@pytest.fixture
def open_place(world, monkeypatch):
    """A cache folder to which every user can go; pytest's own are private."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        monkeypatch.setenv("MINILM_NP_CACHE", name)
        yield place


def others_can_read(path):
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


for_another_user = pytest.mark.skipif(
    os.geteuid() != 0 or not others_can_read(Path(sys.prefix)) or not others_can_read(CHECKOUT),
    reason="needs root, and another user who can read the virtual environment and the checkout",
)


def encoded(world):
    """What a process compiles, whether it gets the code, and what it logs and prints; to be called in a child."""
    messages, printed = listener(), io.StringIO()
    compiled = world.begin_again()
    with contextlib.redirect_stderr(printed):
        loading.load()
    return compiled, messages, printed.getvalue()


@for_another_user
@pytest.mark.parametrize("sealed", [True, False], ids=["read-only", "as root left it"])
def test_a_cache_that_root_filled_is_used_by_every_user(world, made, open_place, sealed):
    assert right(made) and len(world.compiled) == 2
    if sealed:
        for path in (*open_place.rglob("*"), open_place):
            path.chmod(path.stat().st_mode & ~0o222)
    assert as_nobody(lambda: encoded(world)) == repr(([], [], ""))


@for_another_user
def test_what_a_read_only_cache_lacks_is_compiled_with_one_message(world, made, open_place, monkeypatch):
    assert right(made)
    monkeypatch.setenv("NUMBA_OPT", "2")
    compiled, (warning,), printed = ast.literal_eval(as_nobody(lambda: encoded(world)))
    assert len(compiled) == 2
    assert printed == COMPILES_EACH_TIME, "not once, if every process does"
    assert re.fullmatch(
        "the compiled kernels cannot be cached, so every process compiles them: .* Permission denied: '.*/kernels/.*'. "
        "Set MINILM_NP_CACHE to a folder that only you can write to",
        warning,
    )


def test_a_cache_that_cannot_be_created_costs_time_and_nothing_else(world, made, tmp_path, caplog, capsys, monkeypatch):
    tmp_path.joinpath("file").write_text("in the way")
    monkeypatch.setenv("MINILM_NP_CACHE", str(tmp_path / "file"))
    asked = world.begin_again()
    assert right(made) and len(asked) == 2
    assert capsys.readouterr().err == COMPILES_EACH_TIME
    assert "cannot be cached, so every process compiles them" in warnings_of(caplog)[-1]


def test_a_full_disk_costs_time_and_leaves_no_partial_file(world, made, tmp_path, caplog, capsys):
    resource = pytest.importorskip("resource", reason="needs a limit on the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    asked = world.begin_again()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        loading.load()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert right(made) and len(asked) == 2
    (warning,) = warnings_of(caplog)
    assert "cannot be cached, so every process compiles them" in warning
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# ---- what decides the code -------------------------------------------------------------------------------------------

IDENTITY = f"from minilm_np.engine.runtime import code_cache; print(code_cache.identity({KERNELS!r}))"
# files that decide the code
EDITED = (
    "engine/runtime/simd/lanes.py", "engine/runtime/compilation.py", "engine/runtime/code_cache.py",
    "engine/float32/kernels/layout.py",
)  # fmt: skip


def test_the_identity_changes_with_every_source_and_setting_and_with_nothing_else(made, tmp_path):
    identities = {"here": made.identity}
    copy = tmp_path / "copy" / "minilm_np"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    elsewhere = start(IDENTITY, tmp_path, copy, OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1", NUMBA_CACHE_DIR="/x")
    processes = {
        "avx2": start(IDENTITY, tmp_path, NUMBA_CPU_NAME="x86-64-v3", NUMBA_CPU_FEATURES=""),
        "no features": start(IDENTITY, tmp_path, NUMBA_CPU_FEATURES=""),
    }
    unrelated = "engine/float32/engine.py"
    for name in (*EDITED, unrelated):
        edited = tmp_path / name.replace("/", "-") / "minilm_np"
        shutil.copytree(copy, edited)
        with edited.joinpath(name).open("a") as file:
            file.write("# a comment\n")
        processes[name] = start(IDENTITY, tmp_path, edited)
    assert answer(elsewhere)[0] == [identities["here"]], "neither the folder nor the number of threads decides the code"
    assert answer(processes.pop(unrelated))[0] == [identities["here"]], "no kernel imports the engine"
    identities |= {name: answer(process)[0][0] for name, process in processes.items()}
    assert len(set(identities.values())) == len(identities) == 3 + len(EDITED)


@pytest.mark.parametrize("name", ["OPT", "CPU_NAME", "CPU_FEATURES", "BOUNDSCHECK", "SLP_VECTORIZE", "DEBUGINFO"])
def test_a_setting_of_numba_that_changes_code_changes_the_identity(world, monkeypatch, name):
    before = code_cache.identity(KERNELS)
    monkeypatch.setenv(f"NUMBA_{name}", "1")
    assert code_cache.identity(KERNELS) != before


def test_numbas_file_of_settings_changes_the_identity(world, monkeypatch, tmp_path):
    before = code_cache.identity(KERNELS)
    monkeypatch.chdir(tmp_path)
    assert code_cache.identity(KERNELS) == before
    Path(".numba_config.yaml").write_text("opt: 0")
    assert code_cache.identity(KERNELS) != before


IMPORTED = """
import sys
import {package}
before = set(sys.modules)
import {package}.entry
new = sys.modules.keys() - before
print(*(name for name in new if name.startswith("minilm_np") and not hasattr(sys.modules[name], "__path__")))
"""


@pytest.mark.parametrize("package", [KERNELS, "minilm_np.train.kernels"])
def test_the_identity_covers_the_modules_that_an_entry_imports_and_no_others(package, tmp_path):
    imported, _ = answer(start(IMPORTED.format(package=package), tmp_path))
    covered = sources(f"{package}.entry").keys()
    assert len(imported) > 10 and covered >= set(imported)
    assert all(name.startswith(("minilm_np.engine.runtime", KERNELS, package)) for name in covered)


def test_code_of_another_identity_is_not_read(world, filled, made, caplog, monkeypatch):
    monkeypatch.setenv("NUMBA_OPT", "2")
    asked = world.begin_again()
    assert right(made) and len(asked) == 2
    assert warnings_of(caplog) == []
    assert len(list(filled.parent.iterdir())) == 2


# ---- the code itself -------------------------------------------------------------------------------------------------


def test_a_status_that_kernels_never_return_is_an_error():
    function = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 3)(lambda *_: 1)
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    with pytest.raises(SystemError, match="run_pass returned status 1"):
        entries._callable(address, "run_pass", (ctypes.c_void_p,))(0)


LIBM = {b"fmaf", b"fma", b"expf", b"exp", b"erff", b"erf", b"sqrtf", b"sqrt", b"floorf", b"rintf", b"roundevenf"}


def test_the_code_calls_nothing_but_the_c_library(code):
    """It calls nothing of Python or Numba, which are not loaded with it, and nothing of libm."""
    wanted = set()
    for content in code.values():
        names = set(content.partition(b"\0")[2].split(b"\0"))
        wanted |= {name for name in names if name.startswith((b"Py", b"NRT", b"numba", b"nrt")) or name in LIBM}
    assert wanted == set()


def test_without_numba_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"needs Numba here, which is not installed: `pip install numba`"):
        code_cache._numba_version()


def test_a_numba_without_its_version_file_is_identified_by_its_metadata(monkeypatch, tmp_path):
    place = importlib.machinery.ModuleSpec("numba", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: place)
    assert code_cache._numba_version() == importlib.metadata.version("numba")
