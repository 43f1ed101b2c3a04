"""A cache of real compiled kernels, filled once per test run, and a process that seems to have just started."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.code_cache import World, answer, start

# Compiles the kernels in a thread, beside another such process. The process forks while it does so.
FILL = """
import hashlib, os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, since Python 3.12
started, forking = threading.Event(), threading.Event()

def hook(event, arguments):  # in the thread: Numba is imported, and the main thread forks
    if event == "import" and arguments[0] == "numba.core.compiler" and not forking.is_set():
        started.set()
        forking.wait(60)

sys.addaudithook(hook)
from minilm_np import SentenceEncoder
from minilm_np.engine.runtime import code_cache

def work():
    vectors = SentenceEncoder.random(threads=1).encode(["a", "some text", "x" * 100])
    digest.append(hashlib.sha256(vectors.tobytes()).hexdigest())
    started.set()

digest = []
thread = threading.Thread(target=work)
thread.start()
started.wait(600)
os.register_at_fork(before=forking.set)  # called before the hook that waits
child = os.fork()
if not child:
    digest.clear()
    work()
    print(*digest, flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
thread.join()
print(code_cache.identity("minilm_np.engine.float32.kernels"), *digest, "numba" in sys.modules)
"""


class Filled(NamedTuple):
    """A cache that two processes filled at the same time."""

    cache: Path
    identity: str
    digest: str  # of the vectors
    answers: list[tuple[list[str], str]]  # (words on stdout, stderr) of the processes


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    cache = tmp_path_factory.mktemp("cache")
    processes = [start(FILL, cache) for _ in range(2)]
    answers = [answer(process) for process in processes]
    _, identity, digest, _ = answers[0][0]
    return Filled(cache, identity, digest, answers)


@pytest.fixture(scope="session")
def code(made: Filled) -> dict[str, bytes]:
    """name -> object code, as `entry.object_code` returns it."""
    return {path.stem: path.read_bytes()[32:] for path in made.cache.glob("kernels/*/*.o")}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: dict[str, bytes]) -> World:
    """A world with an empty cache."""
    return World(tmp_path, code, monkeypatch)


@pytest.fixture
def filled(world: World, made: Filled) -> Path:
    """The folder of the code of `world`, with undamaged files."""
    shutil.copytree(made.cache / "kernels", world.cache / "kernels")
    os.chmod(world.cache / "kernels", 0o700)
    return world.folder
