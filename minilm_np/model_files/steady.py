"""Read a model's folder as one model, although another process may replace the folder at the same time.

A model is several files, each opened by its path. `saving.py` replaces the whole folder, so a reader that began with
the old folder may open files of the new one, or find none. `read_steadily` detects this, and reads again.
"""

import glob
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from minilm_np.errors import HubError

ATTEMPTS = 50  # per read; the pauses between them add up to 1.2 s

Result = TypeVar("Result")
Identity = tuple[int, int, int]


def identity(folder: str | os.PathLike[str]) -> Identity | None:
    """Values that change when the folder at a path, or a file in it, is replaced; None if there is no folder."""
    try:
        return _identity(os.stat(folder))
    except (OSError, ValueError):  # ValueError: NUL in the path
        return None


def read_steadily(folder: str | os.PathLike[str], read: Callable[[], Result]) -> Result:
    """Return `read()`. If the folder was replaced during the call, drop its result or its error, and call it again.

    A file that `read` has opened stays readable after the folder was replaced, so its content may be read later.

    Raises what `read` raises, and HubError: the folder was replaced during each of many calls.
    """
    folder = Path(folder)
    for attempt in range(ATTEMPTS):
        with _held(folder) as before:
            try:
                result = read()
            except Exception as error:
                if identity(folder) == before and (before is not None or not _moved_aside(folder)):
                    raise
                last: Exception | None = error
            else:
                if identity(folder) == before:
                    return result
                last = None
        time.sleep(0.001 * attempt)  # each pause is longer, so as not to stay in step with a writer of a fixed rate
    if left := _moved_aside(folder):
        raise HubError(
            f"{folder}: the folder is missing, because a process was killed while it replaced the model: the previous "
            f"model is {left}: rename it to {folder}, or save the model again"
        ) from last
    raise HubError(
        f"{folder}: the folder was replaced during each of {ATTEMPTS} attempts to read it: load the model while no "
        "process saves to this folder"
    ) from last


@contextmanager
def _held(folder: Path) -> Iterator[Identity | None]:
    """Yield the identity of a folder, and keep the folder open, so that no other folder can get its inode number."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except (OSError, ValueError):  # no such folder, one that may not be listed, or Windows
        yield identity(folder)
        return
    try:
        yield _identity(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _identity(status: os.stat_result) -> Identity:
    """The identity of a folder: its inode, and the time when it was last renamed, or a name in it changed."""
    return status.st_dev, status.st_ino, status.st_ctime_ns


def _moved_aside(folder: Path) -> Path | None:
    """The old folder, if `_files.replace_folder` has done the first of its two renames, so that none is at the path."""
    try:
        folder = Path(os.path.realpath(folder))
    except ValueError:  # NUL in the path
        return None
    return next(folder.parent.glob(f"{glob.escape(f'.{folder.name}.saving-')}*/old"), None)
