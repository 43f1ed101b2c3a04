"""The compiled kernels on disk: made once, checked before they are used, made afresh on any trouble.

Compiling takes seconds, so it is done once, by two processes at the same time; the other tests have Numba's part
played by a function that hands out what those made.
"""

import hashlib
import importlib.machinery
import importlib.metadata
import os
import shutil
import stat
import subprocess
import sys
import threading

import llvmlite.binding as llvm
import pytest

from minilm_np import SentenceEncoder
from minilm_np.engine.float32.kernels import entry
from minilm_np.engine.runtime import code_cache
from minilm_np.errors import MissingExtraError
from tests.support.places import CHECKOUT

PACKAGE = CHECKOUT / "minilm_np"
SAYS = "minilm-np: compiling the kernels for this machine, once (some 10 s)\n"
ORDER = ("run_pass.o", "exchange_float_mode.o")  # as they are loaded
NAMES = set(ORDER)
PROGRAM = """
import hashlib, sys
from minilm_np import SentenceEncoder
from minilm_np.engine.runtime import code_cache
vectors = SentenceEncoder.random(threads=1).encode(["a", "some text", "x" * 100])
print(code_cache._identity(), hashlib.sha256(vectors.tobytes()).hexdigest(), "numba" in sys.modules)
"""


def start(program, cache, package=PACKAGE, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    paths = os.pathsep.join(path for path in (str(package.parent), kept.get("PYTHONPATH", "")) if path)
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program],
        cwd=package.parent,  # which comes before PYTHONPATH
        env=kept | {"PYTHONPATH": paths, "MINILM_NP_CACHE": str(cache)} | environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def answer(process):
    try:
        out, errors = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return out.split(), errors


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cache that two processes filled at the same time, and what they printed."""
    cache = tmp_path_factory.mktemp("cache")
    processes = [start(PROGRAM, cache) for _ in range(2)]
    return cache, [answer(process) for process in processes]


@pytest.fixture(scope="module")
def code(made):
    """name -> object code, as `entry.object_code` makes it."""
    cache, _ = made
    return {path.stem: path.read_bytes()[32:] for path in cache.glob("kernels/*/*.o")}


@pytest.fixture
def world(tmp_path, monkeypatch, code):
    """This process as if it had just started, with a cache in tmp_path; says what it compiles."""
    for name in os.environ:
        if name.startswith("NUMBA_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MINILM_NP_CACHE", str(tmp_path))
    asked = []

    def object_code(name):
        asked.append(name)
        return code[name]

    monkeypatch.setattr(entry, "object_code", object_code)
    monkeypatch.setattr(code_cache, "_loaded", None)

    def begin_again():
        asked.clear()
        monkeypatch.setattr(code_cache, "_loaded", None)
        return asked

    return begin_again


@pytest.fixture
def filled(world, made, tmp_path):
    """The identity's folder in tmp_path, with sound files."""
    shutil.copytree(made[0] / "kernels", tmp_path / "kernels")
    os.chmod(tmp_path / "kernels", 0o700)
    return tmp_path / "kernels" / code_cache._identity()


def right(made):
    """Whether the kernels that this process now has compute the right bits."""
    vectors = SentenceEncoder.random(threads=1).encode(["a", "some text", "x" * 100])
    return hashlib.sha256(vectors.tobytes()).hexdigest() == made[1][0][0][1]


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.name == code_cache.__name__]


# ---- once on a machine -----------------------------------------------------------------------------------------------


def test_two_processes_at_once_fill_the_cache_and_each_says_so_once(made):
    cache, ((first, first_says), (second, second_says)) = made
    assert first == second and first[2] == "True"
    assert first_says == second_says == SAYS
    assert [folder.name for folder in (cache / "kernels").iterdir()] == [first[0]]
    assert {path.name for path in (cache / "kernels" / first[0]).iterdir()} == NAMES, "something was left behind"


def test_the_next_process_says_nothing_and_does_without_numba(made):
    answers, says = answer(start(PROGRAM, made[0]))
    assert says == ""
    assert answers == [*made[1][0][0][:2], "False"]


def test_sound_files_are_loaded_and_nothing_is_compiled(world, filled, made, capsys, caplog):
    asked = world()
    assert right(made) and asked == []
    assert capsys.readouterr().err == "" and warnings_of(caplog) == []


def test_kernels_are_compiled_once_in_a_process_however_many_threads_ask(world, made, capsys):
    asked, gate, results = world(), threading.Barrier(8), []

    def load():
        gate.wait(60)
        results.append(code_cache.load())

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 8 and len({id(result) for result in results}) == 1
    assert sorted(asked) == ["exchange_float_mode", "run_pass"]
    assert capsys.readouterr().err == SAYS
    assert right(made)


# ---- files that are not as they were written -------------------------------------------------------------------------


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
    "something added": lambda content: content + b"\0",
    "another file": lambda content: b"#!/bin/sh\necho hello\n" * 100,
}


@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_never_shown_to_llvm_and_is_made_afresh(
    world, filled, made, capsys, caplog, monkeypatch, name, damage
):
    path = filled / name
    sound = path.read_bytes()
    path.write_bytes(DAMAGE[damage](sound))
    seen, from_data = [], llvm.ObjectFileRef.from_data
    monkeypatch.setattr(llvm.ObjectFileRef, "from_data", lambda data: seen.append(data) or from_data(data))
    asked = world()
    assert right(made)
    assert sorted(asked) == ["exchange_float_mode", "run_pass"]
    assert capsys.readouterr().err == SAYS
    (warning,) = warnings_of(caplog)
    assert f"{path} is damaged" in warning
    assert len(seen) == 2 and all(
        data in (filled / other).read_bytes() for data, other in zip(seen, ORDER, strict=True)
    )
    assert path.read_bytes() == sound, "the sound code was not kept"
    assert world() == [] and right(made)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_missing_file_is_made_without_a_warning(world, filled, made, caplog, name):
    filled.joinpath(name).unlink()
    asked = world()
    assert right(made) and len(asked) == 2
    assert warnings_of(caplog) == []
    assert {path.name for path in filled.iterdir()} == NAMES


# ---- folders that others have a hand in ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o022, 0o002, 0o020])
@pytest.mark.parametrize("place", ["kernels", "the identity's folder", "a file"])
def test_what_others_can_write_is_not_read(world, filled, made, caplog, place, mode):
    path = {"kernels": filled.parent, "the identity's folder": filled, "a file": filled / "run_pass.o"}[place]
    path.chmod(path.stat().st_mode | mode)
    asked = world()
    assert right(made) and len(asked) == 2
    (warning,) = warnings_of(caplog)
    assert f"{path} belongs to, or can be written by, somebody else" in warning


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs POSIX")
def test_what_belongs_to_somebody_else_is_not_read(world, filled, made, caplog, monkeypatch):
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    asked = world()
    assert right(made) and len(asked) == 2
    (warning,) = warnings_of(caplog)
    assert "belongs to, or can be written by, somebody else" in warning


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o077])
def test_files_are_the_users_alone_whatever_the_umask(world, made, tmp_path, mask):
    before = os.umask(mask)
    try:
        assert right(made)
    finally:
        os.umask(before)
    folder = tmp_path / "kernels" / code_cache._identity()
    assert {path.name for path in folder.iterdir()} == NAMES
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder, *folder.iterdir())}
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items()), modes
    assert world() == [] and right(made)


# ---- folders that cannot be written ----------------------------------------------------------------------------------


def test_a_cache_that_cannot_be_made_costs_time_and_nothing_else(world, made, tmp_path, caplog, capsys, monkeypatch):
    tmp_path.joinpath("file").write_text("in the way")
    monkeypatch.setenv("MINILM_NP_CACHE", str(tmp_path / "file"))
    asked = world()
    assert right(made) and len(asked) == 2
    assert capsys.readouterr().err == SAYS
    assert "cannot be kept, so every process compiles them" in warnings_of(caplog)[-1]


def test_a_full_disk_costs_time_and_leaves_no_half_of_a_file(world, made, tmp_path, caplog, capsys):
    resource = pytest.importorskip("resource", reason="needs a limit on the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    asked = world()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        code_cache.load()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert right(made) and len(asked) == 2
    (warning,) = warnings_of(caplog)
    assert "cannot be kept, so every process compiles them" in warning
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# ---- what decides the code -------------------------------------------------------------------------------------------

IDENTITY = "from minilm_np.engine.runtime import code_cache; print(code_cache._identity())"


def test_the_identity_changes_with_every_source_and_setting_and_with_nothing_else(made, tmp_path):
    identities = {"here": made[1][0][0][0]}
    copy = tmp_path / "copy" / "minilm_np"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    elsewhere = start(IDENTITY, tmp_path, copy, OMP_NUM_THREADS="1")
    processes = {
        "avx2": start(IDENTITY, tmp_path, NUMBA_CPU_NAME="x86-64-v3", NUMBA_CPU_FEATURES=""),
        "no features": start(IDENTITY, tmp_path, NUMBA_CPU_FEATURES=""),
    }
    for name in ("kernels/simd.py", "kernels/layout.py", "code_cache.py"):
        edited = tmp_path / name.replace("/", "-") / "minilm_np"
        shutil.copytree(copy, edited)
        with edited.joinpath(name).open("a") as file:
            file.write("# a comment\n")
        processes[name] = start(IDENTITY, tmp_path, edited)
    assert answer(elsewhere)[0] == [identities["here"]], "the place, or the number of threads, decides no code"
    identities |= {name: answer(process)[0][0] for name, process in processes.items()}
    assert len(set(identities.values())) == len(identities) == 6


def test_code_of_another_identity_is_not_looked_at(world, filled, made, caplog, monkeypatch):
    monkeypatch.setenv("NUMBA_OPT", "2")
    asked = world()
    assert right(made) and len(asked) == 2
    assert warnings_of(caplog) == []
    assert len(list(filled.parent.iterdir())) == 2


# ---- the code itself -------------------------------------------------------------------------------------------------


def test_a_status_that_kernels_never_return_is_an_error():
    function = code_cache.ctypes.CFUNCTYPE(code_cache.ctypes.c_int32, *[code_cache.ctypes.c_void_p] * 3)(lambda *_: 1)
    address = code_cache.ctypes.cast(function, code_cache.ctypes.c_void_p).value
    with pytest.raises(SystemError, match="run_pass returned status 1"):
        code_cache._callable(address, "run_pass", (code_cache.ctypes.c_void_p,))(0)


LIBM = {b"fmaf", b"fma", b"expf", b"exp", b"erff", b"erf", b"sqrtf", b"sqrt", b"floorf", b"rintf", b"roundevenf"}


def test_the_code_calls_nothing_but_the_c_library(code):
    """Nothing of Python or Numba, which a process that loads it does not have; nothing of libm."""
    wanted = set()
    for content in code.values():
        names = set(content.partition(b"\0")[2].split(b"\0"))
        wanted |= {name for name in names if name.startswith((b"Py", b"NRT", b"numba", b"nrt")) or name in LIBM}
    assert wanted == set()


def test_without_numba_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(code_cache.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"needs Numba, which is not installed: `pip install numba`"):
        code_cache._numba_version()


def test_a_numba_that_is_packed_without_its_version_file_is_told_by_its_metadata(monkeypatch, tmp_path):
    place = importlib.machinery.ModuleSpec("numba", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(code_cache.importlib.util, "find_spec", lambda name: place)
    assert code_cache._numba_version() == importlib.metadata.version("numba")
