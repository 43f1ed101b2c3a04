"""Shared by the benchmarks: a description of the machine, worker processes with pipes, figures and files."""

import json
import os
import platform
import re
import select
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from minilm_np._files import package_cache

CHECKOUT = Path(__file__).parent.parent
PACKAGES = (
    "numpy", "numba", "llvmlite", "tokenizers", "sentence-transformers", "transformers", "torch",
    "onnxruntime", "onnx", "openvino", "nncf", "ctranslate2",
)  # fmt: skip


def processor() -> str:
    """Return the name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """Return the facts about machine and software that a reader needs to judge a figure."""
    return {
        "processor": processor(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := installed_version(name))},
        "load_average_at_start": os.getloadavg()[0],
    }


def describe(facts: Mapping[str, Any]) -> str:
    """Return the facts of `machine()` in two lines."""
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    return (
        f"{facts['processor']}, {facts['processors']} processors, {facts['memory_bytes'] / 2**30:.0f} GiB, "
        f"{facts['system']}, Python {facts['python']}, load average {facts['load_average_at_start']:.1f}\n{packages}"
    )


def installed_version(distribution: str) -> str | None:
    import importlib.metadata  # here, because it takes 20 ms, and the start of engines is measured

    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def peak_memory() -> int:
    """Return the peak memory of this process in bytes (VmHWM), shared pages of files included."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def thread_variables(threads: int) -> dict[str, str]:
    """Return the environment variables that limit every library to `threads` threads."""
    names = ("OMP", "OPENBLAS", "MKL", "RAYON", "NUMBA")
    return {f"{name}_NUM_THREADS": str(threads) for name in names}


def bytecode_variables() -> dict[str, str]:
    """Return the environment variables with which a child process stores its bytecode, and finds it at later starts.

    A package that pip has installed has its bytecode beside it; a checkout has none where PYTHONDONTWRITEBYTECODE is
    set. Then each start would compile our source again, and only ours.
    """
    if not sys.dont_write_bytecode:
        return {}
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(package_cache() / "benchmarks" / "bytecode")}


class Worker:
    """A Python process that answers each line of JSON with another line.

    arguments: of the interpreter, such as "-m", "benchmarks.contestants". environment: variables to add. Its standard
    error is stored for `fate`.
    """

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `close`)
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | bytecode_variables() | environment,
            cwd=CHECKOUT,
        )

    def ask(self, **request: Any) -> Any:
        """Send a request and return the answer. Raises WorkerError if the process has ended."""
        self.tell(**request)
        return self.answer()

    def tell(self, **request: Any) -> None:
        """Send a request. Raises WorkerError if the process has ended."""
        try:
            assert self._process.stdin
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self.fate()) from None

    def answer(self) -> Any:
        """Return the next line that the process writes. Raises WorkerError if it has ended."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(self.fate())
        return json.loads(line)

    def answers_within(self, seconds: float) -> bool:
        """Wait at most `seconds` for an answer, or for the end of the process."""
        assert self._process.stdout
        return bool(select.select([self._process.stdout], [], [], seconds)[0])

    def pause(self) -> None:
        """Stop the process until `resume`."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def fate(self) -> str:
        """Return how the process ended, and its last line on stderr."""
        status = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().strip().splitlines() or ["(no message)"]
        return f"ended with status {status}: {lines[-1]}"

    def close(self) -> None:
        self._process.communicate()
        self._log.close()


class WorkerError(Exception):
    """A worker process ended before it answered."""


def say(text: str) -> None:
    """Print progress on stderr."""
    print(text, file=sys.stderr, flush=True)


def take_stdout() -> Any:
    """Return a file that writes to the parent's pipe; from now on, stdout goes to stderr, as libraries may print."""
    pipe = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return pipe


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def percentile(values: Sequence[float], percent: int) -> float:
    return values[0] if len(values) == 1 else statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns, readable as plain text, too."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def row(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * width if column == 0 else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([row(header), row(rule), *map(row, lines[1:])])


def on_one_thread() -> None:
    """Restart the program with every library limited to one thread, unless it is already."""
    if any(os.environ.get(name) != value for name, value in thread_variables(1).items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | thread_variables(1))
