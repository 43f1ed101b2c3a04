"""Files: where the package and its cache are, bounded reading, strict JSON, files and folders written atomically.

Standard library only: nothing here slows down the start-up, and tests copy this file to run it alone.
"""

import errno
import io
import itertools
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

PACKAGE = Path(__file__).resolve().parent

# Limits in bytes, of files that anybody may have written. The largest honest files are far smaller.
MAX_JSON = 10_000_000  # honest: 1 MB. A parsed value can take 30 times the memory of its text
MAX_LINE = 10_000_000  # of a file of texts or vectors
MAX_ARRAYS = 2**34  # of a file of arrays. Honest: 4 GB, for a trace of 512 tokens in BERT large

_LFS = b"version https://git-lfs.github.com/spec/"  # the beginning of a Git LFS pointer, which has less than 1024 bytes
STALE_S = 24 * 3600.0  # where folders cannot be locked: one of this age was left by a killed process


def package_cache() -> Path:
    """The cache folder of this package: MINILM_NP_CACHE, or minilm-np in XDG_CACHE_HOME or ~/.cache.

    For a user without a home, such as an unknown user id in a container, it is a folder of their own in the system's
    folder of temporary files.
    """
    if folder := os.environ.get("MINILM_NP_CACHE"):
        return Path(os.path.expanduser(folder))
    above = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    if above.startswith("~"):
        import tempfile  # its import takes 5 ms

        return Path(tempfile.gettempdir(), f"minilm-np-{os.getuid()}")
    return Path(above, "minilm-np")


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
# New content is completed in a hidden staging folder next to its place, and flushed to the disk (fsync). A rename moves
# it to its place, and the rename is flushed too. A killed process and a power failure leave the old content or the new.
# Flushing takes 5 to 20 ms per file on an SSD.
#
# A process holds a lock (flock) on its staging folder. A folder without a lock was left by a killed process: the next
# writer of the same file or folder removes it.


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Yield a temporary file, open for writing bytes; after the block it replaces `path`. As `atomic_path` otherwise.

    A device or a pipe, such as /dev/null, is written directly.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as device:
            yield device
        return
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        yield file


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the path of an empty temporary file on the same file system; after the block that file replaces `path`.

    If the block fails, the temporary file is removed and `path` stays as it was. The block may replace the temporary
    file. The permissions are those that `open(path, "w")` would leave: those of the existing file, else the umask's.
    A link stays a link, and its target is replaced.

    Raises OSError with the file name `path`.
    """
    target = Path(os.path.realpath(path))
    prefix = f".{target.name}.tmp-"
    try:
        if target.is_dir():
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if target.exists() and not target.is_file():  # a rename would replace /dev/null itself
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with _locked_folder(target.parent, prefix) as staging:
            temporary = staging / target.name
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            os.close(descriptor)
            mode = (target if target.exists() else temporary).stat().st_mode & 0o777
            yield temporary
            sync(temporary)
            temporary.chmod(mode)
            temporary.replace(target)
            sync(target.parent)
    except OSError as error:
        if error.errno and (error.filename is None or str(error.filename).startswith(str(target.parent / prefix))):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def staging_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield an empty folder to fill, `new` in a hidden folder in `parent`; the block moves it to its place by a rename.

    Its permissions are the umask's; the hidden folder is private. After the block the hidden folder is removed with
    everything left in it. Before the block, the folders of killed processes with the same prefix are removed, as
    `remove_left` does.
    """
    with _locked_folder(parent, prefix) as staging:
        new = staging / "new"
        new.mkdir()
        yield new


def replace_folder(target: Path, new: Path) -> None:
    """Move the folder `new`, from `staging_folder`, to `target`, in place of the folder at `target`, if there is one.

    The two are exchanged in one step where the system can do that (Linux, on most file systems). Elsewhere there are
    two renames, and for a moment there is no folder at `target`: the old one moves to `old` next to `new`, then the new
    one to `target`. If the second rename fails, the first is undone. A process killed between them leaves both folders
    complete in the staging folder. Raises OSError.
    """
    sync_folder(new)
    if not _exchange(target, new):
        old = new.with_name("old")
        try:
            with suppress(FileNotFoundError):
                target.rename(old)
            new.rename(target)
        except BaseException:  # Ctrl-C too, because the staging folder is removed next
            with suppress(OSError):
                old.rename(target)
            raise
    sync(target.parent)


def remove_left(parent: Path, prefix: str, *, with_old: bool = False) -> None:
    """Remove the staging folders that killed processes left in `parent`, as far as that is possible.

    with_old: also those that contain `old`, which may be the only copy of a folder (see `replace_folder`).
    Where folders cannot be locked (Windows, some network file systems), a folder must be a day old.
    """
    pattern = re.compile(re.escape(prefix) + "[0-9a-f]{8}")
    found: list[str] = []
    with suppress(OSError):  # no such folder, or one whose names may not be read
        found = [name for name in os.listdir(parent) if pattern.fullmatch(name)]
    for left in (parent / name for name in found):
        if left.is_symlink() or ((left / "old").exists() and not with_old):
            continue
        # BlockingIOError: its process is alive; any other error: it is gone, or belongs to another user
        with suppress(OSError), locked(left, wait=False) as is_locked:
            if is_locked or time.time() - left.stat().st_mtime >= STALE_S:
                discard_folder(left, prefix)


def discard_folder(folder: Path, prefix: str) -> None:
    """Remove a folder. It is renamed first, so that nobody finds it half removed, or can still write to it.

    The new name is that of a staging folder, so that `remove_left` removes it if this process is killed.
    """
    discarded = folder.with_name(_staging_name(prefix))
    folder.rename(discarded)
    shutil.rmtree(discarded, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder with everything in it to the disk. Raises OSError."""
    for at, _, files in os.walk(folder):
        for name in files:
            sync(Path(at, name))
        sync(Path(at))


def sync(path: Path) -> None:
    """Flush the bytes of a file, or the names in a folder, to the disk. Raises OSError.

    Nothing is done where the system cannot do it: Windows opens no folders, some file systems flush nothing.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(descriptor)


def reason(error: BaseException) -> str:
    """Why reading or writing failed: the system's words for the error's first cause, which name no path."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(getattr(error, "strerror", None) or error)


@contextmanager
def _locked_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new, private, locked folder. It is removed after the block, those of killed processes before it."""
    remove_left(parent, prefix)
    with ExitStack() as lock:
        while True:
            folder = parent / _staging_name(prefix)
            folder.mkdir(mode=0o700)
            try:
                lock.enter_context(locked(folder, wait=True))
                break
            except FileNotFoundError:  # before it was locked, another process took it for that of a killed process
                pass
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(path: Path, *, wait: bool, shared: bool = False) -> Iterator[bool]:
    """Hold the lock of a file or a folder during the block. Yields whether it can be locked at all.

    shared: several holders may have the lock at the same time, if it is shared for each of them.
    Raises BlockingIOError if another process, or another thread, has the lock and `wait` is False; FileNotFoundError if
    the file is not at its path any more when the lock is there.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield False
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
            is_locked = True
        except BlockingIOError:
            raise
        except OSError:  # a network file system
            is_locked = False
        if not os.path.samestat(os.fstat(descriptor), os.stat(path)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        yield is_locked
    finally:
        os.close(descriptor)


def _staging_name(prefix: str) -> str:
    return f"{prefix}{os.urandom(4).hex()}"


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step, and return whether that was possible."""
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None).renameat2  # Linux, in glibc since 2.28
    except (AttributeError, OSError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(renameat2(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0)
