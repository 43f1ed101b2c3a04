"""Cuts the records of all inputs into parts, whose boundaries depend on the inputs alone, and reads one part ahead."""

import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from minilm_np.errors import DataError
from minilm_np.jobs.arrow_rows import open_arrow
from minilm_np.jobs.inputs import Input
from minilm_np.jobs.rows import Position, Reader, Record, Row, Wanted
from minilm_np.jobs.text_rows import open_text

PART_ROWS = 4096  # records of a part: as many texts as `encode` sorts by length
PART_BYTES = 1 << 22  # a part ends with the record that reaches this size, so a few long rows are a part, too

T = TypeVar("T")


class Skipped(NamedTuple):
    """A bad row."""

    file: int
    line: int
    error: str


class Part(NamedTuple):
    """The rows of one part."""

    number: int  # from 0
    rows: list[Row]
    skipped: list[Skipped]
    end: Position  # where the next part begins
    is_last: bool
    fraction: float  # of all inputs, up to the end of this part; 0 if it is unknown
    schema: Any  # of the carried columns


def read_parts(records: "Records", first: int, is_needed: Callable[[int], bool], *, skip_bad: bool) -> Iterator[Part]:
    """Yield the parts that are needed, from part `first` on, where the records begin. There is at least one part.

    is_needed: called with the index of each part; the others are read, but not parsed.
    skip_bad: bad rows are listed instead of raised. Raises DataError, which names file and row.
    """
    unread = iter(records)
    following, end = next(unread, None), records.start
    for index in itertools.count(first):
        rows: list[Row] = []
        skipped: list[Skipped] = []
        n_records = n_bytes = 0
        needed = is_needed(index)
        while following is not None and n_records < PART_ROWS and n_bytes < PART_BYTES:
            reader, record = following
            n_records, n_bytes, end = n_records + 1, n_bytes + record.size, record.end
            if needed:
                try:
                    rows.append(reader.row(record))
                except DataError as error:
                    if not skip_bad:
                        raise DataError(f"{error}. To omit bad rows: --on-error skip (on_error='skip')") from None
                    skipped.append(Skipped(end.file, record.line, str(error)[:500]))
            following = next(unread, None)
        is_last = following is None
        if needed:
            yield Part(index, rows, skipped, end, is_last, records.fraction, records.schema)
        if is_last:
            return


class Records:
    """The records of all inputs from a position on, each with its reader.

    columns: the names and types of the carried columns that every input must have; None: they are not checked against
    an earlier run. one_schema: all inputs must have the same carried columns.
    schema: of the carried columns; known when the first input has been opened.
    """

    def __init__(
        self, inputs: Sequence[Input], wanted: Wanted, start: Position, columns: list[str] | None, *, one_schema: bool
    ) -> None:
        self.start, self.schema = start, None
        self._sizes = [0 if source.is_stream else os.stat(source.path).st_size for source in inputs]
        self._file = start.file  # what is being read
        self._reader: Reader | None = None
        self._inputs, self._wanted, self._columns, self._one_schema = inputs, wanted, columns, one_schema

    def __iter__(self) -> Iterator[tuple[Reader, Record]]:
        """Yield the records. Raises DataError: an input cannot be read, or has other columns."""
        for file, source in enumerate(self._inputs[self.start.file :], self.start.file):
            opener = open_arrow if source.kind in ("parquet", "arrow") else open_text
            with opener(source, self.start if file == self.start.file else Position(file), self._wanted) as reader:
                self._check(source, reader)
                self._file, self._reader = file, reader
                for record in reader.records():
                    yield reader, record
            self._file, self._reader = file + 1, None

    @property
    def fraction(self) -> float:
        """The part of the inputs that has been read, from 0 to 1, by their sizes; 0 if there is a pipe."""
        if any(source.is_stream for source in self._inputs):
            return 0.0
        read = sum(self._sizes[: self._file]) + (self._reader.fraction * self._sizes[self._file] if self._reader else 0)
        return read / max(1, sum(self._sizes))

    def _check(self, source: Input, reader: Reader) -> None:
        columns = described(reader.schema)
        if self._one_schema and self._columns not in (None, columns):
            raise DataError(
                f"{source.name}: expected the columns of the inputs before, {', '.join(self._columns or [])[:300]}, "
                f"found {', '.join(columns)[:300]}: embed the files separately, or write .npy or .jsonl"
            )
        self._columns = columns
        if self.schema is None:
            self.schema = reader.schema


def described(schema: Any) -> list[str]:
    """Names and types of the columns of a schema."""
    return [field if isinstance(field, str) else f"{field.name}: {field.type}" for field in schema]


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the items of an iterator. A thread makes the next one while the caller works on one."""
    taken: SimpleQueue[tuple[list[T], BaseException | None]] = SimpleQueue()
    room = threading.Semaphore(0)  # released when the caller takes an item
    stopped = threading.Event()

    def take() -> None:
        failure: BaseException | None = None
        try:
            with ExitStack() as stack:
                stack.callback(getattr(items, "close", lambda: None))
                for item in items:
                    taken.put(([item], None))
                    del item  # it may be large
                    room.acquire()
                    if stopped.is_set():
                        return
        except BaseException as error:
            failure = error
        taken.put(([], failure))

    # a daemon: it may wait for standard input when the process ends
    threading.Thread(target=take, name="minilm_np reader", daemon=True).start()
    try:
        while True:
            found, failure = taken.get()
            if failure is not None:
                raise failure
            if not found:
                return
            room.release()
            yield found.pop()
    finally:
        stopped.set()
        room.release()
