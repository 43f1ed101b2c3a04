"""Parts of bounded size, and reading ahead."""

import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minilm_np.jobs import cutting
from minilm_np.jobs.cutting import Records, read_ahead, read_parts
from minilm_np.jobs.inputs import find_input
from minilm_np.jobs.rows import Position, Wanted
from tests.support import jobs


def test_a_part_ends_with_a_long_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "PART_BYTES", 1000)
    (tmp_path / "in.txt").write_bytes(jobs.txt(["a", "b" * 5000, "c", "d" * 2000, "e"]))
    records = Records(
        [find_input(tmp_path / "in.txt")], Wanted("text", None, "text"), Position(0), None, one_schema=False
    )
    parts = list(read_parts(records, 0, lambda number: True, skip_bad=False))
    assert [[row.text[0] for row in part.rows] for part in parts] == [["a", "b"], ["c", "d"], ["e"]]
    assert [part.is_last for part in parts] == [False, False, True]
    assert [part.end.offset for part in parts] == [5003, 7006, 7008]
    assert parts[-1].fraction == 1


def test_reading_ahead_gives_the_items_and_the_error() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("broken")

    ahead = read_ahead(items())
    assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="broken"):
        next(ahead)


def test_reading_ahead_takes_few_items_and_ends_with_its_consumer() -> None:
    taken: list[int] = []
    ended = threading.Event()

    def items() -> Iterator[int]:
        try:
            for number in range(1000):
                taken.append(number)
                yield number
        finally:
            ended.set()

    ahead = read_ahead(items())
    assert next(ahead) == 0
    del ahead
    gc.collect()
    assert ended.wait(60)
    assert len(taken) <= 4
