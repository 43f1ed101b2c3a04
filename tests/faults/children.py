"""Child processes with a time limit, for experiments that kill them or that may hang."""

import os
import signal
import subprocess
import sys
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
