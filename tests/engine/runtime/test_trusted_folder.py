"""A folder that only the user or root can write to: what was checked is what is read; one process writes at a time."""

import fcntl
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from minilm_np.engine.runtime import trusted_folder as module
from minilm_np.engine.runtime.trusted_folder import trusted_folder

HOLD = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder `outer/inner` with a file."""
    with trusted_folder(tmp_path, "outer", "inner", create=True) as folder:
        folder.write("name", b"content")
    return tmp_path / "outer" / "inner"


def read(place: Path, name: str = "name") -> bytes:
    with trusted_folder(place.parents[1], "outer", "inner") as folder:
        return folder.read(name)


def test_what_was_written_is_read(place: Path) -> None:
    assert read(place) == b"content"
    with trusted_folder(place.parents[1], "outer", "inner") as folder:
        assert folder.path == place
        folder.write("name", b"new")
    assert read(place) == b"new"
    assert os.listdir(place) == ["name"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (place.parent, place, place / "name")] == [
        0o755,
        0o755,
        0o644,
    ]


def test_what_is_missing_is_reported_with_its_path(place: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(str(place / "other"))):
        read(place, "other")
    with pytest.raises(FileNotFoundError, match="nowhere"), trusted_folder(place.parents[1], "nowhere", "inner"):
        pass


@pytest.mark.parametrize("part", ["outer", "inner", "name"])
def test_a_link_is_not_followed(place: Path, part: str) -> None:
    path = {"outer": place.parent, "inner": place, "name": place / "name"}[part]
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")
    with pytest.raises(OSError, match=re.escape(f"a link, which is not followed: {str(path)!r}")):
        read(place)


def test_a_fifo_is_refused_and_not_waited_for(place: Path) -> None:
    os.mkfifo(place / "fifo")
    with pytest.raises(ValueError, match="fifo is not a regular file: remove it"):
        read(place, "fifo")


@pytest.mark.parametrize("moment", ["outer", "inner", "name"])
def test_an_object_that_takes_the_place_of_a_checked_one_is_not_read(
    place: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can write to the folder above may exchange the folder at any moment."""
    above, check = place.parents[1], module._check
    evil = above / "evil" / "inner"
    evil.mkdir(parents=True)
    (evil / "name").write_bytes(b"evil")

    def checked(descriptor: int, path: Path) -> None:
        check(descriptor, path)
        if path.name == moment and evil.exists():
            (above / "outer").rename(above / "gone")
            (above / "evil").rename(above / "outer")

    monkeypatch.setattr(module, "_check", checked)
    assert read(place) == b"content"
    assert read(place) == b"evil", "the exchange did take place"


# ---- the lock --------------------------------------------------------------------------------------------------------


def test_a_process_waits_for_the_one_that_holds_the_lock_and_not_for_a_dead_one(place: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, place / "lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"locked\n"
        waits: list[str] = []
        with trusted_folder(place.parents[1], "outer", "inner") as folder:

            def waiting() -> None:
                waits.append("waits")
                process.kill()  # the system releases its lock

            with folder.locked(600.0, waiting):
                assert waits == ["waits"]
                assert is_locked(place / "lock")
        assert os.listdir(place) == ["name"]
    finally:
        process.kill()
        process.communicate()


def test_the_wait_has_a_limit_after_which_nothing_of_the_holder_is_removed(place: Path) -> None:
    with trusted_folder(place.parents[1], "outer", "inner") as folder, folder.locked(600.0, lambda: None):
        (place / ".name.0.tmp").touch()
        waits: list[str] = []
        with folder.locked(0.0, lambda: waits.append("waits")):
            assert waits == ["waits"]
        assert set(os.listdir(place)) == {"name", "lock", ".name.0.tmp"}


def test_a_file_system_without_locks_does_not_matter(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    opened = trusted_folder(place.parents[1], "outer", "inner")
    with opened as folder, folder.locked(600.0, lambda: pytest.fail("waits")):
        folder.write("name", b"new")
    assert read(place) == b"new"


def test_unfinished_files_of_killed_processes_are_removed(place: Path) -> None:
    (place / ".name.0123abcd.tmp").write_bytes(b"half")
    with trusted_folder(place.parents[1], "outer", "inner") as folder, folder.locked(600.0, lambda: None):
        pass
    assert os.listdir(place) == ["name"]


def is_locked(path: Path) -> bool:
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
