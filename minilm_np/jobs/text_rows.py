"""Rows of text files: .txt, .jsonl, .csv and .tsv."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from minilm_np._checks import short_repr
from minilm_np._text_files import OTHER_KINDS, decode_line, shown
from minilm_np.errors import DataError
from minilm_np.jobs.inputs import MAX_ROW, ByteLines, Input, open_lines
from minilm_np.jobs.rows import Position, Reader, Record, Row, Wanted, place


@contextmanager
def open_text(source: Input, start: Position, wanted: Wanted) -> Iterator[Reader]:
    """Open a text file at a position. Raises DataError, MissingExtraError (.zst)."""
    kinds: dict[str, type[_Texts | _Objects | _Table]] = {"txt": _Texts, "jsonl": _Objects}
    reader = kinds.get(source.kind, _Table)
    with open_lines(source) as lines:
        yield reader(source, lines, start, wanted)


class _Lines:
    """What the readers of text files share."""

    def __init__(self, source: Input, lines: ByteLines, start: Position, wanted: Wanted) -> None:
        self._source, self._bytes, self._wanted = source, lines, wanted
        self._file, self._line = start.file, start.line
        self._problem: DataError | None = None  # of the lines since `_problem` was last None
        self._size = 0  # bytes of these lines
        self._begin(start)

    def _begin(self, start: Position) -> None:
        self._bytes.skip_to(start.offset, start.digest)

    @property
    def fraction(self) -> float:
        return self._bytes.fraction

    def _decoded(self) -> Iterator[str]:
        """Yield the lines with their ends, and count them. A line that is not text becomes `_problem`."""
        for raw, size in self._bytes.lines():
            number, self._line = self._line, self._line + 1
            self._size += size
            if number == 1:
                for mark, (kind, remedy) in OTHER_KINDS.items():
                    if raw.startswith(mark):
                        raise DataError(f"{self._source.name}: expected text in UTF-8, found {kind}: {remedy}")
            try:
                if size > MAX_ROW:
                    raise DataError(f"{place(self._source, number)}: expected at most {MAX_ROW} bytes, found {size}")
                line = decode_line(raw, self._source.name, number)
            except DataError as error:
                self._problem = self._problem or error
                line = "\n" if size > MAX_ROW else raw.decode("utf-8", "replace")  # the quotes still count
            yield line

    def _record(self, line: int, content: object) -> Record:
        """The record of the lines since the last one."""
        size, problem, self._size, self._problem = self._size, self._problem, 0, None
        end = Position(self._file, self._bytes.offset, self._line, self._bytes.digest)
        return Record(line, size, content if problem is None else problem, end)


class _Texts(_Lines):
    """One text per line."""

    def _begin(self, start: Position) -> None:
        super()._begin(start)
        self.schema = ["text"]

    def records(self) -> Iterator[Record]:
        for line in self._decoded():
            if line or self._problem:  # a file of a byte order mark has the line ""
                yield self._record(self._line - 1, line)

    def row(self, record: Record) -> Row:
        text = _good(record).removesuffix("\n").removesuffix("\r")
        return Row(self._file, record.line, text, (text,))


class _Objects(_Lines):
    """One JSON object per line. Blank lines are not rows."""

    def _begin(self, start: Position) -> None:
        super()._begin(start)
        self.schema = [self._wanted.id or self._wanted.text]

    def records(self) -> Iterator[Record]:
        for line in self._decoded():
            if self._problem or line.strip():
                yield self._record(self._line - 1, line)

    def row(self, record: Record) -> Row:
        line, where = _good(record), place(self._source, record.line)
        try:
            item = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: expected a JSON object: {_of_line(error)}") from None
        if not isinstance(item, dict):
            raise DataError(f"{where}: expected a JSON object, found {shown(item)}")
        for name in (self._wanted.text, self._wanted.id):
            if name is not None and name not in item:
                option = "--field" if name == self._wanted.text else "--id"
                raise DataError(
                    f"{where}: expected an object with {short_repr(name)}, found {shown(list(item))}: correct "
                    f"the row, or name another field ({option} on the command line)"
                )
        text = item[self._wanted.text]
        if not isinstance(text, str):
            raise DataError(f"{where}: expected a string in {short_repr(self._wanted.text)}, found {shown(text)}")
        if self._wanted.id is None:
            return Row(self._file, record.line, _unicode(text, where), (text,))
        identifier = item[self._wanted.id]
        _unicode(identifier if isinstance(identifier, str) else json.dumps(identifier, ensure_ascii=False), where)
        return Row(self._file, record.line, _unicode(text, where), (identifier,))


class _Table(_Lines):
    """Comma- or tab-separated values (RFC 4180): a header, fields that may be quoted, and quoted line breaks."""

    def _begin(self, start: Position) -> None:
        delimiter = "\t" if self._source.kind == "tsv" else ","
        # `csv` takes one line after another, and no line beyond the end of a record
        self._line = 1
        self._is_at_end = False
        self._fields = csv.reader(self._until_end(), delimiter=delimiter)
        header = self._header()
        self.schema = list(header)
        self._text = self._index(header, self._wanted.text)
        self._carried: list[int] = list(range(len(header)))
        if self._wanted.id is not None:
            self._carried = [self._index(header, self._wanted.id)]
            self.schema = [self._wanted.id]
        elif self._wanted.carried == "text":
            self._carried, self.schema = [self._text], [self._wanted.text]
        self._n_fields = len(header)
        if start.offset > self._bytes.offset:
            self._bytes.skip_to(start.offset, start.digest)
            self._line = start.line

    def _until_end(self) -> Iterator[str]:
        yield from self._decoded()
        self._is_at_end = True

    def _header(self) -> list[str]:
        try:
            header = self._next() or []
        except csv.Error as error:
            raise DataError(f"{self._source.name}, line 1: expected a header: {error}") from None
        if self._problem:
            raise self._problem
        self._size = 0
        if not header:
            raise DataError(f"{self._source.name}, line 1: expected a header with the names of the columns, found none")
        return header

    def _next(self) -> list[str] | None:
        """The next fields; None at the end. The process has one limit of their size, and 131,072 is too small here."""
        before = csv.field_size_limit(MAX_ROW)
        try:
            fields = next(self._fields, None)
        finally:
            csv.field_size_limit(before)
        if fields is not None and self._is_at_end:  # `csv` looked for the end of a field, and took the rest of the file
            raise csv.Error("the file ends in a quoted field")
        return fields

    def _index(self, header: list[str], name: str) -> int:
        if header.count(name) != 1:
            raise DataError(
                f"{self._source.name}, line 1: expected one column {short_repr(name)}, found the columns "
                f"{shown(header)}: name the column (--column on the command line)"
            )
        return header.index(name)

    def records(self) -> Iterator[Record]:
        while True:
            line = self._line
            try:
                fields = self._next()
            except csv.Error as error:
                self._problem = self._problem or DataError(
                    f"{place(self._source, line)}: {error}: is a quotation mark not closed?"
                )
                fields = []
            if fields is None:
                return
            if fields or self._problem:  # a blank line is not a row
                yield self._record(line, fields)

    def row(self, record: Record) -> Row:
        fields = _good(record)
        if len(fields) != self._n_fields:
            raise DataError(
                f"{place(self._source, record.line)}: expected {self._n_fields} fields, as in the header, found "
                f"{len(fields)}"
            )
        return Row(self._file, record.line, fields[self._text], tuple(fields[index] for index in self._carried))


def _good(record: Record) -> Any:
    """The content of a record. Raises the error of a bad one."""
    if isinstance(record.content, DataError):
        raise record.content
    return record.content


def _of_line(error: Exception) -> str:
    """The message of an error of `json.loads`, without its line number, which would be 1 for every row."""
    return f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else str(error)


def _unicode(text: str, where: str) -> str:
    """The text. Raises DataError: an escaped half of a surrogate pair is valid JSON, but not text."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DataError(f"{where}: expected valid Unicode, found a lone surrogate in {shown(text)}") from None
    return text
