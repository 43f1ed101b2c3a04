"""Files: where the package and its cache are, bounded reading, strict JSON, files and folders written atomically.

Standard library only: nothing here slows down the start-up, and tests copy this file to run it alone.
"""

import errno
import glob
import io
import itertools
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

PACKAGE = Path(__file__).resolve().parent

# Limits in bytes, of files that anybody may have written. The largest honest files are far smaller.
MAX_JSON = 10_000_000  # honest: 1 MB. A parsed value can take 30 times the memory of its text
MAX_LINE = 10_000_000  # of a file of texts or vectors
MAX_ARRAYS = 2**34  # of a file of arrays. Honest: 4 GB, for a trace of 512 tokens in BERT large

_LFS = b"version https://git-lfs.github.com/spec/"  # the beginning of a Git LFS pointer, which has less than 1024 bytes
STALE_S = 24 * 3600.0  # an unfinished folder of this age was left by a killed process


def package_cache() -> Path:
    """The cache folder of this package: MINILM_NP_CACHE, or minilm-np in XDG_CACHE_HOME or ~/.cache."""
    if folder := os.environ.get("MINILM_NP_CACHE"):
        return Path(os.path.expanduser(folder))
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "minilm-np"


# ---- reading: regular files only, never more than a limit ------------------------------------------------------------


@contextmanager
def open_regular(path: str | os.PathLike[str], most: int | None = None) -> Iterator[io.FileIO]:
    """Open a regular file for reading bytes, unbuffered, if it has at most `most` bytes (None: any number).

    Pipes and devices are refused: they may block, or never end. A Git LFS pointer is refused, too. The checks are made
    on the open descriptor, so that the file cannot be exchanged after them. Raises OSError, whatever the reason.
    """
    with _open_without_waiting(path) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            kind = "a FIFO" if stat.S_ISFIFO(found.st_mode) else "a device"
            raise OSError(errno.EINVAL, f"expected a regular file, found {kind}", str(path))
        if most is not None and found.st_size > most:
            raise OSError(errno.EFBIG, f"expected at most {most} bytes, found {found.st_size}", str(path))
        if found.st_size < 1024 and file.read(len(_LFS)) == _LFS:
            raise OSError(
                errno.EINVAL, "expected the file itself, found a Git LFS pointer to it: run `git lfs pull`", str(path)
            )
        file.seek(0)
        yield file


def _open_without_waiting(path: str | os.PathLike[str]) -> io.FileIO:
    """Open any file for reading bytes, a FIFO without waiting for its writer. Raises OSError."""
    flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    try:
        return io.FileIO(path, "rb", opener=lambda name, more: os.open(name, flags | more))
    except ValueError as error:  # the path contains NUL or a lone surrogate
        raise OSError(errno.EINVAL, str(error), str(path)) from None


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """The content of a regular file of at most `most` bytes. Raises OSError as `open_regular` does."""
    with open_regular(path, most) as unbuffered, io.BufferedReader(unbuffered) as file:
        return file.read(os.fstat(file.fileno()).st_size)  # and no more, if the file grows


def bounded_lines(readline: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield the lines of an open file, with their ends. Raises OSError for a line of more than MAX_LINE bytes."""
    for number in itertools.count(1):
        line = readline(MAX_LINE + 1)
        if not line:
            return
        if len(line) > MAX_LINE:
            raise OSError(errno.EFBIG, f"line {number}: expected at most {MAX_LINE} bytes, found more")
        yield line


# ---- JSON ------------------------------------------------------------------------------------------------------------


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value in a JSON file of at most MAX_JSON bytes.

    Raises OSError as `open_regular` does, and ValueError as `parse_json` does.
    """
    return parse_json(read_regular(path, MAX_JSON))


def parse_json(raw: bytes) -> Any:
    """The value of a JSON text. Raises ValueError: not UTF-8, not JSON, too deep, or a key that an object has twice."""
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except _DuplicateKeyError:
        raise
    except (ValueError, RecursionError) as error:  # ValueError also for an integer of 5,000 digits
        raise ValueError(f"expected JSON in UTF-8: {error}") from None


class _DuplicateKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        key.encode()  # an escaped half of a surrogate pair is valid JSON, but not Unicode text
        if key in values:
            raise _DuplicateKeyError(f"the key {key[:200]!r} occurs twice in one object")
        values[key] = value
    return values


def shown(value: object) -> str:
    """A value for an error message: as JSON, at most 80 characters. Does not visit more of the value than it shows."""
    text = ""
    try:
        for part in _encoder.iterencode(value):
            text += part
            if len(text) > 80:
                text = text[:77] + "..."
                break
    except ValueError:  # an integer of more digits than Python converts
        return f"a {type(value).__name__} too large to show"
    return text.encode("utf-8", "backslashreplace").decode()  # a lone surrogate cannot be printed


_encoder = json.JSONEncoder(ensure_ascii=False, default=repr)


# ---- files and folders that other processes see complete or not at all -----------------------------------------------
# Nothing is flushed to the disk (fsync): a killed process leaves the old or the new file, a power failure may not.


@contextmanager
def atomic_file(path: str | os.PathLike[str], *, private: bool = False) -> Iterator[IO[bytes]]:
    """Yield a temporary file, open for writing bytes; after the block it replaces `path`. As `atomic_path` otherwise.

    A device or a pipe, such as /dev/null, is written directly.
    """
    if not private and os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as device:
            yield device
        return
    with atomic_path(path, private=private) as temporary, open(temporary, "wb") as file:
        yield file


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, private: bool = False) -> Iterator[Path]:
    """Yield the path of an empty temporary file in the same folder; after the block that file replaces `path`.

    If the block fails, the temporary file is removed and `path` stays as it was. The block may replace the temporary
    file. The permissions are those that `open(path, "w")` would leave: those of the existing file, else the umask's.
    A link stays a link, and its target is replaced.

    private: permissions 0600. A link is replaced and not followed: another user may have created it.

    Raises OSError with the file name `path`.
    """
    target = Path(path if private else os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.urandom(4).hex()}.tmp")
    try:
        if target.is_dir():
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if target.exists() and not target.is_file():  # a rename would replace /dev/null itself
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
        os.close(descriptor)
        mode = (target if target.exists() and not private else temporary).stat().st_mode & 0o777
        yield temporary
        temporary.chmod(mode)
        temporary.replace(target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def staging_folder(parent: Path, prefix: str, *, stale_s: float = STALE_S) -> Iterator[Path]:
    """Yield an empty folder to fill, `new` in a hidden folder in `parent`; the block moves it to its place by a rename.

    Its permissions are the umask's; the hidden folder is private. After the block the hidden folder is removed with
    everything left in it. Before the block, folders with the same prefix that are older than `stale_s` are removed:
    killed processes left them. One that contains `old` stays: it may be the only copy of a model (`saving.py`).
    """
    for left in parent.glob(f"{glob.escape(prefix)}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime >= stale_s and not (left / "old").exists():
                shutil.rmtree(left)
    staging = parent / f"{prefix}{os.urandom(4).hex()}"
    staging.mkdir(mode=0o700)
    try:
        new = staging / "new"
        new.mkdir()
        yield new
    finally:
        shutil.rmtree(staging, ignore_errors=True)
