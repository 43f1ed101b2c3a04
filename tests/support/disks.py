"""A disk that can be filled, for tests of writers."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILLING = "filling"  # the file that `fill` writes


@contextmanager
def mounted(place: Path, size: int) -> Iterator[Path]:
    """Mount an empty file system of `size` bytes at an empty folder, which takes root's rights."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path, leave: int = 0) -> None:
    """Write a file that leaves about `leave` bytes of a disk."""
    free = os.statvfs(disk)
    with open(disk / FILLING, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - leave)
