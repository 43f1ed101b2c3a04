"""A cache folder that only this user, or root, can write to.

A path that was checked may name another object when it is opened. So each folder and each file is opened first,
relative to the descriptor of the folder above it and without following links. Then the owner and the permissions of
what was opened are checked. The folder above the first one that is checked may belong to anybody.

Needs POSIX.
"""

import errno
import fcntl
import io
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO would block until somebody writes to it
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_LOCK = "lock"  # name of the lock file
_TEMPORARY = ".tmp"  # suffix of a file that is being written
_POLL_S = 0.05


class TrustedFolder:
    """An open folder, checked: only this user or root can write to it, and to the folder that contains it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def read(self, name: str) -> bytes:
        """Return the content of a file. Raises as `open`."""
        with self.open(name) as unbuffered, io.BufferedReader(unbuffered) as file:
            return file.read()

    def open(self, name: str) -> io.FileIO:
        """Open a file for reading. Raises OSError; ValueError: not a regular file, or others can write to it."""
        path = self.path / name
        with _named(path):
            file = io.FileIO(os.open(name, _FILE, dir_fd=self._descriptor))
        try:
            _check(file.fileno(), path)
        except ValueError:
            file.close()
            raise
        return file

    def write(self, name: str, content: bytes | Iterable[bytes | memoryview]) -> None:
        """Write a file atomically. Its permissions are 0644 without the bits of the umask. Raises OSError."""
        temporary = f".{name}.{os.urandom(4).hex()}{_TEMPORARY}"
        with _named(self.path / name):
            try:
                with open(os.open(temporary, _NEW_FILE, 0o644, dir_fd=self._descriptor), "wb") as file:
                    file.writelines([content] if isinstance(content, bytes) else content)
                os.replace(temporary, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
            except BaseException:
                self._remove(temporary)
                raise

    def remove_old(self, prefix: str, age_s: float) -> None:
        """Remove the files with names that begin with `prefix`, if they were written at least `age_s` seconds ago."""
        for name in os.listdir(self._descriptor):
            with suppress(OSError):
                status = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
                if name.startswith(prefix) and time.time() - status.st_mtime >= age_s:
                    self._remove(name)

    @contextmanager
    def locked(self, limit_s: float, waiting: Callable[[], None]) -> Iterator[None]:
        """Run the block with the folder's lock; or without it, after `limit_s` seconds of waiting for its holder.

        The system releases the lock of a process that dies. The lock only avoids double work: it is not held after the
        limit, or on a file system without locks. waiting: called once if another process holds it.

        Raises OSError: the folder cannot be written to.
        """
        with _named(self.path / _LOCK):
            descriptor = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=self._descriptor)
        try:
            holds = _lock(descriptor, limit_s, waiting)
            if holds:
                self._remove_temporary_files()
            yield
            if holds:  # a process that still waits for the removed file gets the lock and finds the work done
                self._remove(_LOCK)
        finally:
            os.close(descriptor)

    def _remove_temporary_files(self) -> None:
        """Remove the unfinished files of processes that were killed."""
        for name in os.listdir(self._descriptor):
            if name.endswith(_TEMPORARY):
                self._remove(name)

    def _remove(self, name: str) -> None:
        with suppress(OSError):
            os.unlink(name, dir_fd=self._descriptor)


@contextmanager
def trusted_folder(above: Path, *names: str, create: bool = False) -> Iterator[TrustedFolder]:
    """Open the folder `above/name/name/...` and check the folders with these names. Links are not followed.

    create: create missing folders, with the permissions 0755 without the bits of the umask.
    Raises OSError; FileNotFoundError: there is no such folder; ValueError: others can write to one of the folders.
    """
    if create:
        above.mkdir(parents=True, exist_ok=True)
    with _named(above):
        descriptor = os.open(above, os.O_RDONLY | os.O_DIRECTORY)
    path = above
    try:
        for name in names:
            path /= name
            with _named(path):
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o755, dir_fd=descriptor)
                inner = os.open(name, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
            _check(descriptor, path)
        yield TrustedFolder(path, descriptor)
    finally:
        os.close(descriptor)


def _check(descriptor: int, path: Path) -> None:
    """Raise ValueError unless this is a regular file or a folder to which only this user or root can write."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{path} is not a regular file: remove it")
    if status.st_uid not in (0, os.geteuid()):
        raise ValueError(f"{path} belongs to the user {status.st_uid}; expected this user ({os.geteuid()}) or root")
    if status.st_mode & 0o022:
        raise ValueError(
            f"other users can write to {path} (permissions {stat.S_IMODE(status.st_mode):04o}): run `chmod go-w` on it"
        )


def _lock(descriptor: int, limit_s: float, waiting: Callable[[], None]) -> bool:
    """Lock a file, or return False after `limit_s` seconds, or at once if the file system has no locks."""
    end, waits = time.monotonic() + limit_s, False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if not waits:
                waiting()
            waits = True
        except OSError:
            return False
        if time.monotonic() >= end:
            return False
        time.sleep(_POLL_S)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Give an OSError the whole path; a call relative to a descriptor reports the last name only."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and path.is_symlink():
            raise OSError(error.errno, "a link, which is not followed", str(path)) from None
        raise OSError(error.errno, error.strerror, str(path)) from error
