"""A full disk under everything that writes: the package's own error, nothing half-written, and no temporary files."""

import ctypes
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from minilm_np import MiniLMError
from tests.faults import Outcome, children, experiment, writers
from tests.faults.writers import FailedError, Writer, WrongError

_CLONE_NEWNS, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x20000, 0x4000, 1 << 18, 2  # of Linux's headers
PAGE = 4096  # bytes: what a file on a tmpfs takes is a multiple of it


@contextmanager
def small_disk(size: int) -> Iterator[Path | None]:
    """A folder on a tmpfs of `size` bytes; None if this process may not mount one.

    Only this process and its descendants see the mount, so it ends with them.
    """
    libc = ctypes.CDLL(None)
    with TemporaryDirectory() as folder:
        own = libc.unshare(_CLONE_NEWNS) == 0 and libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None) == 0
        if not own or libc.mount(b"none", folder.encode(), b"tmpfs", 0, f"size={size},mode=755".encode()):
            yield None
            return
        try:
            yield Path(folder)
        finally:
            libc.umount2(folder.encode(), _MNT_DETACH)


def fill(disk: Path, free: int) -> Path:
    """Write a file that leaves `free` bytes of the disk."""
    ballast = disk / "ballast"
    space = os.statvfs(disk)
    with open(ballast, "wb") as file:
        file.write(bytes(max(0, space.f_bavail * space.f_frsize - free)))
    return ballast


def written(write: Callable[[], object], limit: int | None) -> str:
    """Write in a forked process -> "written", "refused: ..." with the package's error, or what else came of it.

    limit: the largest file that the process may write, in bytes.
    """

    def attempt() -> str:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            write()
        except (MiniLMError, FailedError) as error:
            return f"refused: {error}"
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
        return "written"

    ended = children.forked(attempt)
    return ended.out if ended.code == 0 else f"the process ended with {ended.code}: {ended.errors}"


def is_about_space(error: str) -> bool:
    """Whether an error gives the system's reason: ENOSPC or EFBIG."""
    return "No space left on device" in error or "File too large" in error


def full_disk_tries(writer: Writer, count: int, random: Random) -> Outcome:
    """Write on a disk that is too small (where this process may mount one), or with a limit on the size of files."""
    outcome = Outcome()
    with TemporaryDirectory() as scratch, small_disk(2 << 20) as disk:
        writer.write(Path(scratch))
        sizes = [path.stat().st_size for path in Path(scratch).rglob("*") if path.is_file()]
        taken, largest = sum(size + PAGE for size in sizes), max(sizes)
        for number in range(count):
            on_disk = disk is not None and random.random() < 0.5
            folder = (disk if on_disk and disk else Path(scratch)) / str(number)
            folder.mkdir()
            if random.random() < 0.5:
                writer.prepare(folder)
            before, names = writer.state(folder), set(os.listdir(folder))
            free = random.randrange(0, taken if on_disk else largest)
            ballast = fill(disk, free) if on_disk and disk else None
            how = written(lambda folder=folder: writer.write(folder), None if on_disk else free)  # type: ignore[misc]
            if ballast:
                ballast.unlink()
            try:
                left, more = writer.state(folder), set(os.listdir(folder)) - names - writer.owned
                if how.startswith("refused: "):
                    right = left == before and any(name in how for name in writer.owned) and is_about_space(how)
                else:
                    right = how == "written" and (left == "new" or writer.is_cache)
                if not right or more:
                    raise WrongError(f"{how}; left: {left}, and {sorted(more)}")
                writer.write(folder)
                if writer.state(folder) != "new":
                    raise WrongError("the next run did not write the new result")
                outcome.hold("refused" if how.startswith("refused: ") else how)
            except Exception as error:
                place = f"{free} bytes free" if on_disk else f"files of at most {free} bytes"
                outcome.fail(f"{place}, with {before} in the folder: {type(error).__name__}: {error}")
            shutil.rmtree(folder)
    return outcome


def _tries(make: Callable[[], AbstractContextManager[Writer]], count: int, random: Random) -> Outcome:
    with make() as writer:
        return full_disk_tries(writer, count, random)


@experiment("full disk: encode", count=200, quick=6)
def full_encode(count: int, random: Random) -> Outcome:
    """Fill the disk under `encode --output`: one line with the error, and the old file or none."""
    outcome = Outcome()
    for format_ in ("npy", "jsonl", "text"):
        outcome.add(_tries(lambda format_=format_: writers.encode(format_), count // 3, random))  # type: ignore[misc]
    return outcome


@experiment("full disk: save_pretrained", count=200, quick=10)
def full_save(count: int, random: Random) -> Outcome:
    """Fill the disk under `save_pretrained`: SaveError, and the old model or none."""
    return _tries(writers.save, count, random)


@experiment("full disk: fetch from a copy", count=200, quick=10)
def full_fetch(count: int, random: Random) -> Outcome:
    """Fill the disk under `fetch --to`: HubError, and nothing that looks like a model."""
    return _tries(lambda: writers.fetch("copy"), count, random)


@experiment("full disk: storing kernels", count=200, quick=10)
def full_kernels(count: int, random: Random) -> Outcome:
    """Fill the disk under the cache of the kernels: they are compiled and used, and none is stored in part."""
    return _tries(writers.kernels, count, random)


@experiment("full disk: trace --save", count=100, quick=4)
def full_trace(count: int, random: Random) -> Outcome:
    """Fill the disk under `trace --save`: one line with the error, and the old file or none."""
    return _tries(writers.trace, count, random)


@experiment("full disk: conformance write", count=100, quick=4)
def full_conformance(count: int, random: Random) -> Outcome:
    """Fill the disk under `conformance write`: one line with the error, and the old file or none."""
    return _tries(writers.conformance, count, random)
