"""Child processes with a time limit, for experiments that kill them or that may hang."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.support.places import CHECKOUT


class Ended(NamedTuple):
    """How a child ended: `code` is -9 if it was killed, None if it was killed because its time was over."""

    code: int | None
    out: str
    errors: str


def environment(cache: Path | None = None, **others: str) -> dict[str, str]:
    """An environment for children: the checkout's modules, one BLAS thread, and a kernel cache if one is given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "OMP_"))}
    paths = os.pathsep.join(path for path in (str(CHECKOUT), kept.get("PYTHONPATH", "")) if path)
    caches = {} if cache is None else {"MINILM_NP_CACHE": str(cache)}
    return kept | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"} | caches | others


def program(
    source: str, *arguments: str, limit_s: float = 120.0, env: Mapping[str, str] | None = None, input_: str = ""
) -> Ended:
    """Run a Python program in a new process; kill it when its time is over."""
    command = [sys.executable, "-c", source, *arguments]
    started = subprocess.Popen(
        command, env=env or environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        out, errors = started.communicate(input_, timeout=limit_s)
    except subprocess.TimeoutExpired:
        started.kill()
        out, errors = started.communicate()
        return Ended(None, out, errors)
    return Ended(started.returncode, out, errors)


def forked(function: Callable[[], object], limit_s: float = 60.0) -> Ended:
    """Call a function in a forked process, which needs no new imports. `out` is what it returned, as a str."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            signal.alarm(int(limit_s) + 1)  # kills it
            os.write(write, str(function()).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe, suppress(OSError):
        out = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return Ended(None if status == -signal.SIGALRM else status, out.decode(), "")


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
