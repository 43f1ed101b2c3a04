"""The cache of compiled kernels in tests: child processes that use it, and a world in which nothing is compiled.

Neither uses the kernels that were compiled in advance.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from minilm_np.engine.float32 import loading
from minilm_np.engine.float32.kernels import entry
from minilm_np.engine.runtime import code_cache
from minilm_np.engine.runtime.targets import COMPILE, VARIABLE
from tests.faults.children import forked
from tests.support.places import CHECKOUT

PACKAGE = CHECKOUT / "minilm_np"
KERNELS = "minilm_np.engine.float32.kernels"
ORDER = ("run_pass.o", "exchange_float_mode.o")  # as they are loaded
NAMES = set(ORDER)
COMPILES = "minilm-np: compiling the kernels for this machine; this happens once and takes about 10 s\n"
COMPILES_EACH_TIME = "minilm-np: compiling the kernels for this machine; this takes about 10 s\n"
WAITS = "minilm-np: waiting for another process that compiles the kernels\n"
TEXTS = ["a", "some text", "x" * 100]
# A program that forks while another thread raises the audit event EVENT, whose first argument contains PART. It prints
# a digest of the vectors of TEXTS, of the child and of the thread.
FORK = """
import hashlib, os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, since Python 3.12
event_name, part = sys.argv[1:]
reached, forking = threading.Event(), threading.Event()

def hook(event, arguments):
    if event == event_name and part in str(arguments[0]) and threading.current_thread() is thread:
        reached.set()  # the main thread forks now, or waits until it may
        forking.wait(60)

def work():
    from minilm_np import SentenceEncoder
    vectors = SentenceEncoder.random(threads=2).encode(["a", "some text", "x" * 100])
    return hashlib.sha256(vectors.tobytes()).hexdigest()

import minilm_np
thread = threading.Thread(target=lambda: digest.append(work()))
digest = []
sys.addaudithook(hook)
thread.start()
assert reached.wait(60)
import logging, concurrent.futures.thread  # whose hooks take locks before a fork, too
os.register_at_fork(before=forking.set)  # called before the hook that waits
child = os.fork()
if not child:
    import signal
    signal.alarm(60)  # kills it
    print(work(), flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0, "the child hangs"
thread.join()
print(*digest)
"""


def start(
    program: str, cache: Path, package: Path = PACKAGE, arguments: Sequence[str] = (), **environment: str
) -> "subprocess.Popen[str]":
    """Start a Python program, or a file of one, with a cache folder, and with no settings of Numba but these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    paths = os.pathsep.join(path for path in (str(package.parent), kept.get("PYTHONPATH", "")) if path)
    return subprocess.Popen(
        [sys.executable, "-W", "error", *([] if program.endswith(".py") else ["-c"]), program, *arguments],
        cwd=package.parent,  # which comes before PYTHONPATH
        env=kept | {"PYTHONPATH": paths, "MINILM_NP_CACHE": str(cache), VARIABLE: COMPILE} | environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def answer(process: "subprocess.Popen[str]") -> tuple[list[str], str]:
    """The words that a program printed on stdout, and its stderr."""
    try:
        out, errors = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return out.split(), errors


class World:
    """This process as if it had just started, with a cache in `cache`; `compiled` lists what it compiles.

    code: name -> object code. A function that returns it takes the place of Numba.
    """

    def __init__(self, cache: Path, code: dict[str, bytes], patch: pytest.MonkeyPatch) -> None:
        self.cache, self.compiled, self._patch = cache, list[str](), patch
        for name in os.environ:
            if name.startswith("NUMBA_"):
                patch.delenv(name)
        patch.setenv("MINILM_NP_CACHE", str(cache))
        patch.setenv(VARIABLE, COMPILE)

        def object_code(name: str) -> bytes:
            self.compiled.append(name)
            return code[name]

        patch.setattr(entry, "object_code", object_code)
        self.begin_again()

    @property
    def folder(self) -> Path:
        """The folder of the code for this process."""
        return self.cache / "kernels" / code_cache.identity(KERNELS)

    def begin_again(self) -> list[str]:
        """Forget the kernels, as a new process; returns `compiled`, which is empty."""
        self.compiled.clear()
        self._patch.setattr(loading, "_loaded", None)
        return self.compiled


def as_nobody(function: Callable[[], object]) -> str:
    """The `repr` of what a function returns in a forked process without the rights of root; its error if it fails."""

    def without_rights() -> str:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        return repr(function())

    ended = forked(without_rights, limit_s=300)
    return ended.out or ended.errors


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages that the cache logged."""
    return [record.getMessage() for record in caplog.records if record.name == code_cache.__name__]


def listener() -> list[str]:
    """A list that gets the messages that the cache logs from now on; for a forked process, where `caplog` is far."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    code_cache.logger.addHandler(handler)
    return messages
