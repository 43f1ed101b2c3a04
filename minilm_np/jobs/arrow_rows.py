"""Rows of Parquet and Arrow files, a few at a time: row groups and record batches may have any size."""

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any

from minilm_np._checks import short_repr
from minilm_np._files import open_regular
from minilm_np.errors import DataError
from minilm_np.jobs.extras import pyarrow
from minilm_np.jobs.inputs import BROKEN, Input, decompressed, unreadable
from minilm_np.jobs.rows import Position, Record, Row, Wanted, place

ROWS = 64  # rows that are in memory at a time: a row may have megabytes

# Types of a column of texts, as Arrow writes them.
TEXT_TYPES = ("string", "large_string", "string_view")


@contextmanager
def open_arrow(source: Input, start: Position, wanted: Wanted) -> Iterator["_ArrowRows"]:
    """Open a Parquet file, or an Arrow file or stream, at a row. Raises DataError, MissingExtraError."""
    arrow = pyarrow(f"{source.name}: .{source.kind}")
    broken = (arrow.ArrowException, *BROKEN)
    with ExitStack() as stack:
        try:
            file = _seekable(source, stack)
            reader = (_parquet if source.kind == "parquet" else _arrow)(arrow, file, stack)
        except broken as error:
            raise _refused(source, error) from None
        yield _ArrowRows(source, start, wanted, reader, broken)


class _Batches:
    """The record batches of an open file. schema, n_rows: of the file; n_rows is None if it is unknown."""

    def __init__(self, schema: Any, n_rows: int | None) -> None:
        self.schema, self.n_rows = schema, n_rows

    def batches(self, first: int, columns: list[str]) -> Iterator[tuple[int, Any]]:
        """Yield batches, each with the number of its first row, from the one that contains row `first` on."""
        raise NotImplementedError


class _ArrowRows:
    def __init__(
        self, source: Input, start: Position, wanted: Wanted, file: _Batches, broken: tuple[type[BaseException], ...]
    ) -> None:
        self._source, self._start, self._file, self._broken = source, start, file, broken
        names = file.schema.names
        for name in (wanted.text, wanted.id):
            if name is not None and names.count(name) != 1:
                raise DataError(
                    f"{source.name}: expected one column {short_repr(name)}, found the columns {short_repr(names)}: "
                    "name the column (--column on the command line)"
                )
        kind = file.schema.field(wanted.text).type
        kind = getattr(kind, "value_type", kind) if str(kind).startswith("dictionary") else kind
        if str(kind) not in TEXT_TYPES:
            raise DataError(f"{source.name}, column {short_repr(wanted.text)}: expected strings, found {kind}")
        self._text, self._id = wanted.text, wanted.id
        self._carried = {"all": names, "id": [wanted.id], "text": [wanted.text]}[wanted.carried]
        self._columns = list(dict.fromkeys([*self._carried, wanted.text]))
        self.schema = _schema(file.schema, self._carried)
        self._done = start.offset

    @property
    def fraction(self) -> float:
        return self._done / self._file.n_rows if self._file.n_rows else 0.0

    def records(self) -> Iterator[Record]:
        arrow = pyarrow("")
        try:
            for first, batch in self._file.batches(self._start.offset, self._columns):
                if first + batch.num_rows <= self._start.offset:
                    continue
                carried = batch.select(self._carried)
                size = _bytes_per_row(carried)
                texts = batch.column(self._text).cast(arrow.string()).cast(arrow.binary()).to_pylist()
                for index, raw in enumerate(texts):
                    number = first + index + 1  # from 1
                    if number > self._start.offset:
                        self._done = number
                        end = Position(self._start.file, number, number + 1)
                        yield Record(number, size + len(raw or b""), (raw, carried, index), end)
        except self._broken as error:
            raise _refused(self._source, error) from None

    def row(self, record: Record) -> Row:
        raw, carried, index = record.content
        where = place(self._source, record.line)
        if raw is None:
            raise DataError(f"{where}: expected a text in {short_repr(self._text)}, found null")
        column = self._text
        try:
            text = raw.decode()
            if self._id is not None:
                column = self._id
                carried.column(0)[index].as_py()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where}: expected UTF-8 in {short_repr(column)}, found byte 0x{error.object[error.start]:02x} at "
                f"position {error.start}"
            ) from None
        return Row(self._start.file, record.line, text, (carried, index))


def _seekable(source: Input, stack: ExitStack) -> IO[bytes]:
    """The open file; a decompressed copy of a compressed one, without a name."""
    raw = stack.enter_context(io.BufferedReader(stack.enter_context(open_regular(source.path))))
    if not source.compression:
        return raw
    copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 (the stack closes it)
    shutil.copyfileobj(decompressed(source, raw), copy)
    copy.seek(0)
    return copy


def _parquet(arrow: Any, file: IO[bytes], stack: ExitStack) -> _Batches:
    # the pages of a column chunk are read one after another, not the whole chunk
    opened = arrow.parquet.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)

    class Groups(_Batches):
        def batches(self, first: int, columns: list[str]) -> Iterator[tuple[int, Any]]:
            begin = 0
            for group in range(opened.num_row_groups):
                n_rows = opened.metadata.row_group(group).num_rows
                if begin + n_rows > first:
                    at = begin
                    for batch in opened.iter_batches(ROWS, row_groups=[group], columns=columns, use_threads=False):
                        yield at, batch
                        at += batch.num_rows
                begin += n_rows

    return Groups(opened.schema_arrow, opened.metadata.num_rows)


def _arrow(arrow: Any, file: IO[bytes], stack: ExitStack) -> _Batches:
    # mapped memory: a batch of any size costs no memory that the system cannot take back
    mapped = stack.enter_context(arrow.memory_map(f"/dev/fd/{file.fileno()}")) if os.path.exists("/dev/fd") else file
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    opened = stack.enter_context(arrow.ipc.open_file(mapped) if is_file else arrow.ipc.open_stream(mapped))

    class Batches(_Batches):
        def batches(self, first: int, columns: list[str]) -> Iterator[tuple[int, Any]]:
            found = (opened.get_batch(n) for n in range(opened.num_record_batches)) if is_file else iter(opened)
            begin = 0
            for batch in found:
                chosen = batch.select(columns)
                for start in range(0, batch.num_rows, ROWS):
                    yield begin + start, chosen.slice(start, ROWS)
                begin += batch.num_rows

    n_rows = sum(opened.get_batch(n).num_rows for n in range(opened.num_record_batches)) if is_file else None
    return Batches(opened.schema, n_rows)


def _schema(schema: Any, names: list[str]) -> Any:
    """The fields of some columns, without metadata, such as the index of pandas."""
    return pyarrow("").schema([schema.field(name).remove_metadata() for name in names])


def _bytes_per_row(batch: Any) -> int:
    """The mean size of a row. Dictionaries do not count: all batches share them."""
    n_bytes = sum(column.nbytes for column in batch.columns if not str(column.type).startswith("dictionary"))
    return n_bytes // max(1, batch.num_rows)


def _refused(source: Input, error: BaseException) -> DataError:
    if isinstance(error, OSError) and error.errno:
        return unreadable(source.name, error)
    return DataError(f"{source.name}: expected a whole {source.kind} file: {error}: copy the file again")
