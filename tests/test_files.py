"""_files.py: other processes see complete files or none, permissions and links stay, JSON is read strictly."""

import errno
import fcntl
import io
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from minilm_np import _files
from minilm_np._files import (
    atomic_file,
    atomic_path,
    bounded_lines,
    locked,
    package_cache,
    parse_json,
    read_json,
    read_regular,
    remove_left,
    replace_folder,
    shown,
    staging_folder,
)


def write_by_file(path: Path, content: bytes, **options: bool) -> None:
    with atomic_file(path, **options) as file:
        file.write(content)


def write_by_path(path: Path, content: bytes, **options: bool) -> None:
    with atomic_path(path, **options) as temporary:
        temporary.unlink()  # as libraries do that replace the file
        temporary.write_bytes(content)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


# ---- files -----------------------------------------------------------------------------------------------------------

both = pytest.mark.parametrize("write", [write_by_file, write_by_path], ids=["file", "path"])


@both
def test_a_file_is_written_and_replaced(tmp_path: Path, write: Callable[..., None]) -> None:
    for content in (b"new", b"newer", b""):
        write(tmp_path / "a", content)
        assert (tmp_path / "a").read_bytes() == content
        assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()], ids=["an error", "Ctrl-C"])
@pytest.mark.parametrize("writer", [atomic_file, atomic_path])
def test_a_failure_leaves_the_old_file(
    tmp_path: Path, writer: Callable[[Path], AbstractContextManager[Any]], error: BaseException
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(type(error)), writer(tmp_path / "a"):
        raise error
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@both
@pytest.mark.usefixtures("umask")
def test_permissions_are_those_that_open_would_leave(tmp_path: Path, write: Callable[..., None]) -> None:
    write(tmp_path / "new", b"")
    assert mode(tmp_path / "new") == 0o640
    (tmp_path / "old").touch()
    (tmp_path / "old").chmod(0o604)
    write(tmp_path / "old", b"")
    assert mode(tmp_path / "old") == 0o604


@both
def test_a_link_stays_a_link(tmp_path: Path, write: Callable[..., None]) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/target")
    for content in (b"created", b"replaced"):
        write(tmp_path / "link", content)
        assert os.readlink(tmp_path / "link") == "folder/target"
        assert (tmp_path / "folder/target").read_bytes() == content


@both
def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path: Path, write: Callable[..., None]) -> None:
    for path, number in ((tmp_path / "no" / "a", errno.ENOENT), (tmp_path, errno.EISDIR)):
        with pytest.raises(OSError, match=r".") as caught:
            write(path, b"")
        assert (caught.value.errno, caught.value.filename) == (number, str(path))
    assert os.listdir(tmp_path) == []


def test_an_error_of_another_file_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic_file(tmp_path / "a"):
        (tmp_path / "input").read_bytes()
    assert caught.value.filename == str(tmp_path / "input")


def test_a_pipe_is_written_directly_and_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_by_file(tmp_path / "pipe", b"text")
    assert os.read(reader, 10) == b"text"
    os.close(reader)
    with pytest.raises(OSError, match="not a regular file"):
        write_by_path(tmp_path / "pipe", b"text")
    assert (tmp_path / "pipe").is_fifo()


# ---- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("umask")
def test_a_staging_folder_is_private_and_removed_with_what_is_left_in_it(tmp_path: Path) -> None:
    with staging_folder(tmp_path, ".staging-") as new:
        assert list(new.iterdir()) == []
        assert (mode(new), mode(new.parent)) == (0o750, 0o700)
        assert new.parent.name.startswith(".staging-")
        (new / "file").touch()
        new.rename(tmp_path / "place")
        (new.parent / "more").touch()
    assert os.listdir(tmp_path) == ["place"]
    with pytest.raises(KeyboardInterrupt), staging_folder(tmp_path, ".staging-"):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["place"]


LIVING = """
import sys
from pathlib import Path
from minilm_np._files import atomic_file, staging_folder
folder = Path(sys.argv[1])
with atomic_file(folder / "a") as file, staging_folder(folder, ".staging-") as new:
    (new / "part").write_bytes(b"half")
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_the_next_writer_removes_what_a_killed_process_left_and_nothing_of_a_living_one(tmp_path: Path) -> None:
    (tmp_path / ".b.tmp-00000000").mkdir()  # of another file
    before = os.listdir(tmp_path)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", LIVING, tmp_path], stdin=pipe, stdout=pipe) as child:
        assert child.stdout
        assert child.stdout.readline() == b"writing\n"
        of_child = sorted(os.listdir(tmp_path))
        assert [name[:-8] for name in of_child] == [".a.tmp-", ".b.tmp-", ".staging-"]
        for path in (tmp_path / name for name in of_child):
            os.utime(path, (0, 0))  # its age does not matter
        write_by_file(tmp_path / "a", b"new")
        with staging_folder(tmp_path, ".staging-"):
            pass
        assert sorted(os.listdir(tmp_path)) == sorted([*of_child, "a"])
        child.kill()
    write_by_file(tmp_path / "a", b"newer")
    with staging_folder(tmp_path, ".staging-"):
        pass
    assert sorted(os.listdir(tmp_path)) == [*before, "a"]


def test_a_staging_folder_with_the_only_copy_of_a_model_stays(tmp_path: Path) -> None:
    for name in ("s-[a]-00000000", "s-[a]-00000001", "s-b-00000000", "s-[a]-mine"):
        (tmp_path / name / ("old" if name.endswith("1") else "new")).mkdir(parents=True)
    (tmp_path / "s-[a]-00000002").symlink_to("s-[a]-mine")
    with staging_folder(tmp_path, "s-[a]-"):
        pass
    others = ["s-[a]-00000002", "s-[a]-mine", "s-b-00000000"]
    assert sorted(os.listdir(tmp_path)) == sorted(["s-[a]-00000001", *others])
    remove_left(tmp_path, "s-[a]-", with_old=True)
    assert sorted(os.listdir(tmp_path)) == others


def test_where_nothing_can_be_locked_a_staging_folder_must_be_a_day_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    for name in ("s-00000000", "s-00000001"):
        (tmp_path / name / "new").mkdir(parents=True)
    os.utime(tmp_path / "s-00000000", (time.time() - _files.STALE_S - 1,) * 2)
    with staging_folder(tmp_path, "s-"):
        assert len(os.listdir(tmp_path)) == 2
    assert os.listdir(tmp_path) == ["s-00000001"]


@pytest.mark.parametrize("is_replaced", [True, False])
def test_a_file_that_goes_before_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_replaced: bool
) -> None:
    (tmp_path / "a").touch()
    flock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        (tmp_path / "a").unlink()
        if is_replaced:
            (tmp_path / "a").touch()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(FileNotFoundError), locked(tmp_path / "a", wait=False):
        pass


def test_a_shared_lock_has_several_holders(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    path = tmp_path / "a"
    with locked(path, wait=False, shared=True), locked(path, wait=False, shared=True):
        for shared, expected in ((False, pytest.raises(BlockingIOError)), (True, nullcontext())):
            with expected, locked(path, wait=False, shared=shared):
                pass
    with locked(path, wait=False), pytest.raises(BlockingIOError), locked(path, wait=False, shared=True):
        pass


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_replaces_another_one_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(_files, "_exchange", lambda first, second: False)
    for content in ("first", "second"):
        with staging_folder(tmp_path, ".staging-") as new:
            (new / content).touch()
            replace_folder(tmp_path / "place", new)
        assert os.listdir(tmp_path) == ["place"] and os.listdir(tmp_path / "place") == [content]


def test_a_folder_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Path, "rename")
    (tmp_path / "place").mkdir()
    with staging_folder(tmp_path, ".staging-") as new:
        (new / "file").touch()
        replace_folder(tmp_path / "place", new)
    assert os.listdir(tmp_path / "place") == ["file"]


# ---- what survives a loss of power -----------------------------------------------------------------------------------


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reaches the disk, in order: "sync NAME", by inode because files move; and "move"."""
    found: list[str] = []
    fsync, replace, exchange = os.fsync, Path.replace, _files._exchange

    def note_sync(descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        found.append("sync " + next(p.name for p in [tmp_path, *tmp_path.rglob("*")] if p.stat().st_ino == inode))
        fsync(descriptor)

    def note_move(move: Callable[[Path, Path], Any]) -> Callable[[Path, Path], Any]:
        def noted(first: Path, second: Path) -> Any:
            found.append("move")
            return move(first, second)

        return noted

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_move(replace))
    monkeypatch.setattr(_files, "_exchange", note_move(exchange))
    return found


def test_a_file_is_flushed_then_moved_then_its_folder_is_flushed(tmp_path: Path, events: list[str]) -> None:
    write_by_file(tmp_path / "a", b"text")
    assert events == ["sync a", "move", f"sync {tmp_path.name}"]


def test_a_folder_is_flushed_with_everything_in_it_then_moved(tmp_path: Path, events: list[str]) -> None:
    (tmp_path / "place").mkdir()
    with staging_folder(tmp_path, ".staging-") as new:
        (new / "inner").mkdir()
        for name in ("a", "inner/b"):
            (new / name).touch()
        replace_folder(tmp_path / "place", new)
    assert sorted(events[:4]) == ["sync a", "sync b", "sync inner", "sync new"]
    assert events[4:] == ["move", f"sync {tmp_path.name}"]


def test_a_disk_that_fails_to_flush_is_an_error_and_one_that_cannot_flush_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (errno.EIO, errno.EINVAL):

        def fails(descriptor: int, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fails)
        (tmp_path / "a").write_bytes(b"old")
        if number == errno.EIO:
            with pytest.raises(OSError, match="Input/output error") as caught:
                write_by_file(tmp_path / "a", b"new")
            assert caught.value.filename == str(tmp_path / "a")
        else:
            write_by_file(tmp_path / "a", b"new")
        assert (tmp_path / "a").read_bytes() == (b"old" if number == errno.EIO else b"new")


# ---- JSON ------------------------------------------------------------------------------------------------------------


def test_json_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"é": [1, 2.5, true, null, {"é": "\\ud83d\\ude00"}]}', encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"é": [1, 2.5, True, None, {"é": "😀"}]}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "expected JSON in UTF-8: Expecting value"),
        (b"{} {}", "expected JSON in UTF-8: Extra data"),
        (b'"\xff"', "expected JSON in UTF-8: 'utf-8' codec can't decode"),
        (b"\xef\xbb\xbf{}", "expected JSON in UTF-8: Unexpected UTF-8 BOM"),
        (b"[" * 100_000, "expected JSON in UTF-8: maximum recursion depth"),
        (b"1" * 5000, "expected JSON in UTF-8: Exceeds the limit"),
        (b'{"\\ud800": 1}', "expected JSON in UTF-8: 'utf-8' codec can't encode"),
        (b'[{"a": {"b": 1, "b": 1}}]', "^the key 'b' occurs twice in one object$"),
    ],
    ids=lambda value: ascii(value[:12]),
)
def test_anything_but_strict_json_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(raw)


def test_a_file_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "MAX_JSON", 4)
    (tmp_path / "a").write_bytes(b"[11]")
    assert read_json(tmp_path / "a") == [11]
    (tmp_path / "a").write_bytes(b"[111]")
    with pytest.raises(OSError, match="expected at most 4 bytes, found 5"):
        read_json(tmp_path / "a")


def test_a_value_in_a_message_is_short_and_printable() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert shown({"a": [1, 2.5, None, True, "é\n"]}) == r'{"a": [1, 2.5, null, true, "é\n"]}'
    assert shown("\ud800") == '"\\ud800"'
    assert shown(10**5000) == "a int too large to show"
    for long in (deep, "x" * 1000, {"x": deep}, list(range(1000))):
        assert len(shown(long)) == 80 and shown(long).endswith("...")


# ---- other files -----------------------------------------------------------------------------------------------------


def test_the_file_that_was_opened_is_the_file_that_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to("honest")
    (tmp_path / "honest").write_bytes(b"1")
    opened = _files._open_without_waiting

    def exchanged(path: Path) -> io.FileIO:
        file = opened(path)
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to("/dev/zero")
        return file

    monkeypatch.setattr(_files, "_open_without_waiting", exchanged)
    assert read_regular(tmp_path / "link", 1) == b"1"


@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
def test_a_path_that_no_system_has_is_an_os_error(path: str) -> None:
    with pytest.raises(OSError, match=r"embedded null byte|surrogates not allowed|No such file"):
        read_regular(path, 1)


def test_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "MAX_LINE", 3)
    assert list(bounded_lines(io.BytesIO(b"ab\n\nabc").readline)) == [b"ab\n", b"\n", b"abc"]
    with pytest.raises(OSError, match="line 2: expected at most 3 bytes, found more"):
        list(bounded_lines(io.BytesIO(b"\nabc\n").readline))


# ---- the cache -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "/home/me/.cache/minilm-np"),
        ({"XDG_CACHE_HOME": ""}, "/home/me/.cache/minilm-np"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/minilm-np"),
        ({"XDG_CACHE_HOME": "/x", "MINILM_NP_CACHE": "~/mine"}, "/home/me/mine"),
    ],
    ids=str,
)
def test_the_cache_folder(variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CACHE_HOME", "MINILM_NP_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "/home/me"} | variables).items():
        monkeypatch.setenv(name, value)
    assert package_cache() == Path(expected)


def test_the_cache_folder_of_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("XDG_CACHE_HOME", "MINILM_NP_CACHE", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # KeyError, as for an id that the system does not know
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert package_cache() == tmp_path / f"minilm-np-{os.getuid()}"
