"""Child processes with a time limit, for experiments that kill them or that may hang."""

import ctypes
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from minilm_np.engine.runtime.targets import COMPILE, VARIABLE
from tests.support.places import CHECKOUT


class Ended(NamedTuple):
    """How a child ended: `code` is -9 if it was killed, None if it was killed because its time was over."""

    code: int | None
    out: str
    errors: str


def environment(cache: Path | None = None, **others: str) -> dict[str, str]:
    """An environment for children: the checkout's modules, one BLAS thread, and a cache for kernels if one is given.

    With such a cache the kernels are compiled, even if there is a library of them.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "OMP_"))}
    paths = os.pathsep.join(path for path in (str(CHECKOUT), kept.get("PYTHONPATH", "")) if path)
    caches = {} if cache is None else {"MINILM_NP_CACHE": str(cache), VARIABLE: COMPILE}
    return kept | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"} | caches | others


def program(
    source: str, *arguments: str, limit_s: float = 120.0, env: Mapping[str, str] | None = None, script: bool = False
) -> Ended:
    """Run a Python program in a new process; kill it and its group when its time is over.

    script: `source` is the path of a file.
    """
    command = [sys.executable, *([] if script else ["-c"]), source, *arguments]
    with started(command, env or environment()) as process:
        try:
            out, errors = process.communicate(timeout=limit_s)
            code: int | None = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, errors = process.communicate()
            code = None
    return Ended(code, out, errors)


@contextmanager
def started(command: Sequence[str], env: Mapping[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """A process with pipes, in its own group, which is killed after the block."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, env=env, start_new_session=True, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def forked(function: Callable[[], object], limit_s: float = 60.0) -> Ended:
    """Call a function in a forked process, which needs no new imports.

    `out` is what it returned, as a str of at most 64 KB; `errors` is what it wrote to stderr, a traceback included.
    """
    read, write = os.pipe()  # not a file, whose size the process may have limited
    with tempfile.TemporaryFile() as errors:
        pid = os.fork()
        if not pid:
            code = 1
            try:
                os.dup2(errors.fileno(), 2)
                signal.alarm(math.ceil(limit_s))  # kills it
                os.write(write, str(function()).encode())
                code = 0
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(code)
        os.close(write)
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.set_blocking(read, False)  # a child of it may hold the other end
        with os.fdopen(read, "rb") as pipe:
            out = pipe.read(1 << 16) or b""
        code_or_none = None if ended == -signal.SIGALRM else ended
        return Ended(code_or_none, out.decode(), os.pread(errors.fileno(), 1 << 20, 0).decode())


def kill_with_descendants(pid: int) -> None:
    """Kill a process and all that it has started."""
    for each in [pid, *_descendants(pid)]:
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    found = []
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split()):
                found += [child, *_descendants(child)]
    return found


# ---- children that outlive their parents -----------------------------------------------------------------------------


def adopt() -> set[int]:
    """Make this process the parent of its descendants whose parents end. Returns its present children."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    return _children()


def orphans(own: set[int], patience: float = 0.3) -> list[str]:
    """Kill the adopted children that are alive after `patience` seconds; return their command lines.

    own: the children that were not adopted.
    """
    end = time.monotonic() + patience
    while (left := _living(_children() - own)) and time.monotonic() < end:
        time.sleep(0.02)
    found = [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:80] for pid in left]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return found


def _children() -> set[int]:
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


def _living(children: set[int]) -> set[int]:
    """Those that have not ended; the others are reaped."""
    return {pid for pid in children if os.waitpid(pid, os.WNOHANG) == (0, 0)}
