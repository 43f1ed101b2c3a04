"""The servers that `benchmarks.serve` compares, and their processes."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.common import CHECKOUT, installed_version, thread_variables
from benchmarks.serve_load import ask, post

MODEL = "all-MiniLM-L6-v2"  # the name by which every server offers it
START_SECONDS, STOP_SECONDS = 180.0, 20.0
OURS, FASTAPI, CEILING = "minilm-np serve", "FastAPI + sentence-transformers", "ceiling of the client"


class NotRunError(Exception):
    """A server is not installed, or it did not start."""


@dataclass(frozen=True)
class Peer:
    """One server: the command that starts it, and the path of its endpoint."""

    title: str
    command: tuple[str, ...]
    path: str = "/v1/embeddings"
    far: float = 1e-4  # a larger difference of a number in a vector is another model
    own_threads: bool = True  # the command has an option for the number of threads; otherwise the environment sets it

    def request(self, text: str) -> bytes:
        return post(self.path, {"model": MODEL, "input": text})


def peers(
    folder: Path, threads: int, infinity: str | None, onnx: Path | None, compute_types: Sequence[str] = ()
) -> tuple[dict[str, Peer], dict[str, str]]:
    """Return the servers by their short names, and why others are left out. PORT in a command stands for the port.

    infinity: the program `infinity_emb`. onnx: a folder with the model and `onnx/model.onnx`, for its engine optimum.
    compute_types: of more servers of ours, beside float32: "int16", "int8".
    """
    python, number = sys.executable, str(threads)
    ours = (python, "-m", "minilm_np", "serve", "--model", str(folder), "--port", "PORT", "--threads", number)
    found = {"minilm_np": Peer(OURS, (*ours, "--log-format", "none"))}
    for name in compute_types:
        command = (*ours, "--log-format", "none", "--compute-type", name)
        found[f"minilm_np-{name}"] = Peer(f"{OURS}, {name}", command, far=0.1)
    left_out = {}
    if missing := [name for name in ("fastapi", "sentence-transformers", "torch") if not installed_version(name)]:
        left_out["fastapi"] = f"not installed: {', '.join(missing)}"
    else:
        service = (python, "-m", "benchmarks.serve_fastapi", str(folder), "--port", "PORT", "--threads", number)
        found["fastapi"] = Peer(FASTAPI, service)
    if infinity is None:
        left_out["infinity"] = "not installed: no program infinity_emb; --infinity names it"
        return found, left_out
    v2 = (
        infinity, "v2", "--device", "cpu", "--dtype", "float32", "--port", "PORT", "--host", "127.0.0.1",
        "--served-model-name", MODEL, "--log-level", "warning",
    )  # fmt: skip
    for engine, place in (("torch", folder), ("optimum", onnx)):
        if place is None:
            left_out[f"infinity-{engine}"] = "--onnx names no folder with onnx/model.onnx"
            continue
        start = (*v2, "--model-id", str(place), "--engine", engine)
        found[f"infinity-{engine}"] = Peer(f"infinity-emb, {engine}", start, "/embeddings", own_threads=False)
    return found, left_out


CEILING_PEER = Peer(CEILING, (sys.executable, "-m", "benchmarks.serve_ceiling", "--port", "PORT"))


class Process:
    """A server in a process, which is stopped (SIGSTOP) while others are measured. Raises NotRunError."""

    def __init__(self, peer: Peer, threads: int) -> None:
        self.peer, self.port = peer, free_port()
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `__exit__`)
        variables = {} if peer.own_threads else thread_variables(threads)
        try:
            self._process = subprocess.Popen(
                [str(self.port) if argument == "PORT" else argument for argument in peer.command],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=os.environ | {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"} | variables,
                cwd=CHECKOUT,
            )
        except OSError as error:
            raise NotRunError(str(error)) from None
        self.pid = self._process.pid
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def pause(self) -> None:
        """Stop the process, so that it takes no time from others."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def cpu_seconds(self) -> float:
        """Return the CPU time of the process until now."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, name: str = "VmRSS") -> int:
        """Return the memory in bytes: now (VmRSS), or at most (VmHWM)."""
        found = re.search(rf"{name}:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) * 1024 if found else 0

    def _wait_until_it_answers(self) -> None:
        stop, request = time.monotonic() + START_SECONDS, self.peer.request("A text")
        while True:
            with contextlib.suppress(OSError):
                if ask(self.port, request)[0] == "200":
                    return
            if self._process.poll() is not None or time.monotonic() > stop:
                self._log.seek(0)
                last = (self._log.read().strip().splitlines() or ["(no message)"])[-1]
                status = self._process.poll()
                how = "no answer" if status is None else f"ended with status {status}"
                raise NotRunError(f"{how}: {last:.300}")
            time.sleep(0.1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
