"""Interrupted jobs: the same call continues, to the same bytes, and refuses another input, model or option."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minilm_np import DataError, InputValueError, SaveError, SentenceEncoder
from minilm_np.jobs import job as jobs_job
from minilm_np.jobs.store import PartStore
from tests.jobs.conftest import Embed
from tests.support import jobs
from tests.support.disks import FILLING, fill
from tests.support.jobs import FORMATS, MANY, compressed, encoded, same_bits, vectors_of, write_input
from tests.support.places import CHECKOUT

INPUTS = [*FORMATS, "txt.gz", "csv.zst", "jsonl.gz", "parquet.zst"]


class StopError(Exception):
    """What interrupts a job in these tests."""


@pytest.fixture(autouse=True)
def parts_of_16_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.small_parts(monkeypatch, 16)


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that lets the next run fail when it has stored a number of parts."""

    def stop(n_parts: int, error: Callable[[], object] | None = None) -> None:
        stored: list[int] = []
        write = PartStore.write

        def failing(self: PartStore, index: int, *rest: Any, **counts: Any) -> None:
            if len(stored) == n_parts:
                if error is None:
                    raise StopError
                error()
            write(self, index, *rest, **counts)
            stored.append(index)

        monkeypatch.setattr(PartStore, "write", failing)

    return stop


@pytest.mark.parametrize(
    ("kind", "output"),
    [*((kind, "npy") for kind in INPUTS), ("jsonl", "jsonl"), ("csv", "parquet"), ("arrow", "parquet")],
)
def test_the_same_call_continues_to_the_same_bytes(
    kind: str, output: str, embed: Embed, tmp_path: Path, stop_after: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path, whole, cut = write_input(tmp_path, kind), tmp_path / f"whole.{output}", tmp_path / f"cut.{output}"
    embed(path, whole)
    for n_parts in (1, 0, 5):
        stop_after(n_parts)
        with pytest.raises(StopError):
            embed(path, cut)
        monkeypatch.undo()
        jobs.small_parts(monkeypatch, 16)
        assert not cut.exists()
    made = embed(path, cut)
    assert made.resumed_rows == 6 * 16
    assert made.rows == len(MANY)
    assert cut.read_bytes() == whole.read_bytes()
    assert sorted(item.name for item in tmp_path.iterdir()) == sorted([path.name, whole.name, cut.name])


def interrupted(embed: Embed, path: Any, output: Path, stop: Callable[..., None], patch: pytest.MonkeyPatch) -> None:
    """Leave six finished parts."""
    stop(6)
    with pytest.raises(StopError):
        embed(path, output)
    patch.undo()
    jobs.small_parts(patch, 16)
    assert len(PartStore(output.with_name(f"{output.name}.parts")).manifests()) == 6


def test_another_input_is_refused(
    embed: Embed, tmp_path: Path, stop_after: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, output = write_input(tmp_path, "txt"), tmp_path / "out.npy"
    interrupted(embed, path, output, stop_after, monkeypatch)
    raw, times = path.read_bytes(), path.stat()
    for changed, what in (
        (raw + b"x\n", "its size"),
        (raw.replace(b"text 0", b"next 0"), "its content"),
        (raw, "its time"),
    ):
        path.write_bytes(changed)
        later = times.st_mtime_ns + (10**9 if what == "its time" else 0)
        os.utime(path, ns=(times.st_atime_ns, later))
        with pytest.raises(DataError, match=rf"in.txt: expected the same input, found another one \({what} differs\)"):
            embed(path, output)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(InputValueError, match="an unfinished job with 1 inputs, not 2"):
        embed([path, path], output)
    assert embed(path, output).resumed_rows == 6 * 16


def test_another_model_and_other_options_are_refused_and_overwrite_begins_again(
    embed: Embed, encoder: SentenceEncoder, tmp_path: Path, stop_after: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path, output = write_input(tmp_path, "jsonl"), tmp_path / "out.jsonl"
    interrupted(embed, path, output, stop_after, monkeypatch)
    other = SentenceEncoder.random(backend="numpy")
    shorter = SentenceEncoder(encoder.model_path or "", backend="numpy")
    shorter.max_seq_length = 8
    changes: list[tuple[dict[str, Any], str]] = [
        ({"encoder": other}, "the model changed: fingerprint was"),
        ({"encoder": shorter}, "the options changed: max_seq_length was 16, and is 8"),
        ({"dtype": "int8"}, 'the options changed: dtype was "float32", and is "int8"'),
        ({"id": "id"}, 'the options changed: carried was "text", and is "id"'),
        ({"column": "other"}, 'the options changed: text was "text", and is "other"'),
        ({"truncate_dim": 4}, "the options changed: dimension was 8, and is 4"),
        ({"normalize_embeddings": True}, "the options changed: normalize was false, and is true"),
    ]
    for change, error in changes:
        with pytest.raises(InputValueError, match=error):
            embed(path, output, **change)
    assert embed(path, output, truncate_dim=4, overwrite=True).resumed_rows == 0
    assert vectors_of(output).shape == (len(MANY), 4)


def test_a_damaged_part_and_a_damaged_manifest_are_computed_again(
    embed: Embed, encoder: SentenceEncoder, tmp_path: Path, stop_after: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path, output = write_input(tmp_path, "csv"), tmp_path / "out.npy"
    for name, damage in [
        ("000002.part", b"x" * 512), ("000002.part", b""), ("000003.json", b"{"), ("000000.json", b"[]"),
    ]:  # fmt: skip
        interrupted(embed, path, output, stop_after, monkeypatch)
        (tmp_path / "out.npy.parts" / name).write_bytes(damage)
        embed(path, output)
        assert same_bits(vectors_of(output), encoded(encoder, MANY))
        output.unlink()


def test_a_part_that_is_damaged_before_it_is_joined(
    embed: Embed, encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, output = write_input(tmp_path, "txt"), tmp_path / "out.npy"
    join = jobs_job.join

    def damaging(*arguments: Any) -> None:
        (tmp_path / "out.npy.parts" / "000004.part").write_bytes(b"x" * 512)
        join(*arguments)

    monkeypatch.setattr(jobs_job, "join", damaging)
    with pytest.raises(DataError, match=r"000004.part is damaged: run the same command again"):
        embed(path, output)
    assert not output.exists()
    monkeypatch.setattr(jobs_job, "join", join)
    assert embed(path, output).resumed_rows == len(MANY) - 16
    assert same_bits(vectors_of(output), encoded(encoder, MANY))


def test_a_damaged_job_and_a_folder_with_other_files(embed: Embed, tmp_path: Path) -> None:
    path, output, parts = write_input(tmp_path, "txt"), tmp_path / "out.npy", tmp_path / "out.npy.parts"
    parts.mkdir()
    (parts / "job.json").write_bytes(b"{")
    with pytest.raises(DataError, match=r"job\.json is damaged"):
        embed(path, output)
    (parts / "thesis.tex").touch()
    for overwrite in (False, True):
        with pytest.raises(DataError, match=r"expected the parts of an unfinished job, found thesis\.tex: move"):
            embed(path, output, overwrite=overwrite)
    assert (parts / "thesis.tex").exists()


def test_a_mistake_in_the_call_that_begins_again_costs_no_part(
    embed: Embed, tmp_path: Path, stop_after: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, output = write_input(tmp_path, "txt"), tmp_path / "out.npy"
    interrupted(embed, path, output, stop_after, monkeypatch)
    for inputs, mistake in ((tmp_path / "missing.txt", {}), (path, {"prompt_name": "missing"})):
        with pytest.raises((DataError, InputValueError), match="missing"):
            embed(inputs, output, overwrite=True, **mistake)
    assert embed(path, output).resumed_rows == 6 * 16


@pytest.mark.parametrize("output", ["npy", "jsonl", "parquet"])
def test_names_that_are_not_utf_8(
    output: str, embed: Embed, tmp_path: Path, stop_after: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    path, report = folder / os.fsdecode(b"\xff.csv"), folder / os.fsdecode(b"\xff.json")
    path.write_bytes(FORMATS["csv"](MANY) + b"one field\n")
    interrupted(embed, path, folder / f"out.{output}", stop_after, monkeypatch)
    made = embed(path, folder / f"out.{output}", on_error="skip", report=report)
    assert (made.rows, made.resumed_rows) == (len(MANY), 6 * 16)
    found = json.loads(report.read_bytes())
    assert found["output"] == str(folder / f"out.{output}")
    assert found["skipped"][0]["file"] == str(path)
    (folder / f"out.{output}").rename(tmp_path / f"out.{output}")  # pyarrow reads no file of such a name
    assert vectors_of(tmp_path / f"out.{output}").shape == (len(MANY), 8)


@pytest.mark.parametrize("raw", [jobs.txt(MANY), compressed(jobs.txt(MANY), "gz")], ids=["txt", "txt.gz"])
def test_standard_input_is_read_again(
    raw: bytes, embed: Embed, encoder: SentenceEncoder, tmp_path: Path, stop_after: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    options = {"input_format": "txt" if raw.startswith(b"text") else "txt.gz"}

    def stdin(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    stdin(raw)
    stop_after(6)
    with pytest.raises(StopError):
        embed("-", tmp_path / "out.npy", **options)
    monkeypatch.undo()
    jobs.small_parts(monkeypatch, 16)
    stdin(jobs.txt(["other", *MANY]) if raw.startswith(b"text") else compressed(jobs.txt(["other", *MANY]), "gz"))
    with pytest.raises(DataError, match="standard input: expected the same bytes as in the interrupted run"):
        embed("-", tmp_path / "out.npy", **options)
    stdin(raw)
    assert embed("-", tmp_path / "out.npy", **options).resumed_rows == 6 * 16
    assert same_bits(vectors_of(tmp_path / "out.npy"), encoded(encoder, MANY))


@pytest.mark.parametrize("more", [["other"], []], ids=["longer", "shorter"])
def test_standard_input_is_compared_even_if_only_joining_is_left(
    more: list[str], embed: Embed, encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(texts: list[str]) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(jobs.txt(texts))))
        embed("-", tmp_path / "out.npy")

    def fails(*_: object) -> None:
        raise SaveError("full")

    with monkeypatch.context() as patch:
        patch.setattr(jobs_job, "join", fails)
        with pytest.raises(SaveError, match="full"):
            run(MANY)
    for texts in ([*MANY, *more] if more else MANY[:-1], ["other", *MANY[1:]]):
        with pytest.raises(DataError, match=r"standard input: expected the same (bytes|rows) as in the interrupted"):
            run(texts)
    run(MANY)
    assert same_bits(vectors_of(tmp_path / "out.npy"), encoded(encoder, MANY))


def test_ctrl_c_stores_the_part_that_is_being_written(
    embed: Embed, encoder: SentenceEncoder, tmp_path: Path, stop_after: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path, output = write_input(tmp_path, "txt"), tmp_path / "out.npy"
    stop_after(5, lambda: os.kill(os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs behind
    try:
        with pytest.raises(KeyboardInterrupt):
            embed(path, output)
    finally:
        signal.signal(signal.SIGINT, before)
    monkeypatch.undo()
    jobs.small_parts(monkeypatch, 16)
    assert embed(path, output).resumed_rows >= 5 * 16
    assert same_bits(vectors_of(output), encoded(encoder, MANY))


def test_a_full_disk_loses_no_finished_part(
    embed: Embed, encoder: SentenceEncoder, tmp_path: Path, small_disk: Path, stop_after: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path, output = write_input(tmp_path, "txt"), small_disk / "out.npy"
    stop_after(4, lambda: fill(small_disk) if not (small_disk / FILLING).exists() else None)
    with pytest.raises(SaveError, match=r"out.npy.parts/000004.part cannot be written: No space left on device"):
        embed(path, output)
    monkeypatch.undo()
    jobs.small_parts(monkeypatch, 16)
    (small_disk / FILLING).unlink()
    assert embed(path, output).resumed_rows == 4 * 16
    assert same_bits(vectors_of(output), encoded(encoder, MANY))
    assert [item.name for item in small_disk.iterdir()] == ["out.npy"]


def test_a_full_disk_while_the_parts_are_joined(
    embed: Embed, encoder: SentenceEncoder, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, output = write_input(tmp_path, "txt"), small_disk / "out.npy"
    join = jobs_job.join

    def filled(*arguments: Any) -> None:
        fill(small_disk)
        join(*arguments)

    monkeypatch.setattr(jobs_job, "join", filled)
    with pytest.raises(SaveError, match=r"out.npy cannot be written: No space left on device: all parts are stored"):
        embed(path, output)
    assert not output.exists()
    monkeypatch.setattr(jobs_job, "join", join)
    (small_disk / FILLING).unlink()
    assert embed(path, output).resumed_rows == len(MANY)
    assert same_bits(vectors_of(output), encoded(encoder, MANY))


KILLED = """
import os, signal, sys
from minilm_np import cli
from minilm_np.jobs import cutting
from minilm_np.jobs.store import PartStore
cutting.PART_ROWS = 16
number, write = int(sys.argv[1]), PartStore.write
def killed(self, index, parts, **counts):
    if index == number:
        parts = half(b"".join(parts))
    write(self, index, parts, **counts)
def half(raw):
    yield raw[: len(raw) // 2]
    os.kill(os.getpid(), signal.SIGKILL)
PartStore.write = killed
sys.exit(cli.main(sys.argv[2:]))
"""


def test_killed_processes_leave_nothing_half_written(encoder: SentenceEncoder, model: Path, tmp_path: Path) -> None:
    """Three processes end by SIGKILL in the middle of a part; the fourth ends the job."""
    path, output = write_input(tmp_path, "csv"), tmp_path / "out.npy"
    command = ["embed", str(path), "--output", str(output), "--model", str(model), "--backend", "numpy"]
    codes = []
    for number in ("3", "3", "7", "-1"):
        ran = subprocess.run(
            [sys.executable, "-c", KILLED, number, *command], cwd=CHECKOUT, capture_output=True, text=True, timeout=120
        )
        codes.append(ran.returncode)
    assert codes == [-signal.SIGKILL] * 3 + [0], ran.stderr
    assert "112 finished before" in ran.stderr
    assert same_bits(vectors_of(output), encoded(encoder, MANY))
    assert sorted(item.name for item in tmp_path.iterdir()) == ["in.csv", "out.npy"]


def test_the_folder_of_a_killed_removal_is_removed(embed: Embed, tmp_path: Path) -> None:
    path = write_input(tmp_path, "txt")
    (tmp_path / ".out.npy.parts.tmp-0123abcd").mkdir()
    embed(path, tmp_path / "out.npy")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["in.txt", "out.npy"]
