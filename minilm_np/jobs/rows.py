"""What readers give: records, which are cheap to count, and rows with texts, which are parsed when they are needed.

A job is cut into parts by its records, before they are parsed. So a process that computes only some of the parts skips
the others quickly, and a bad row does not move the boundaries.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from minilm_np.jobs.inputs import Input


class Position(NamedTuple):
    """A place between two records, where reading can begin again."""

    file: int  # the index of the input
    offset: int = 0  # in decompressed bytes; in rows for Parquet and Arrow
    line: int = 1  # the number of the next line, or row
    digest: str = ""  # of the bytes before, for a pipe


class Record(NamedTuple):
    """One row before it is parsed. content: what `Reader.row` needs, or the error that makes the row a bad one."""

    line: int  # where it begins
    size: int  # bytes, for cutting into parts
    content: Any
    end: Position


class Row(NamedTuple):
    """One row of the input."""

    file: int
    line: int  # the line where it begins; for Parquet and Arrow its number; from 1
    text: str
    carried: Any  # what the output takes from the input: a tuple of values, or (record batch, index)


class Reader(Protocol):
    """Reads one open input."""

    schema: Any  # of the carried columns: names, or an Arrow schema

    @property
    def fraction(self) -> float:
        """The part of the file that has been read, from 0 to 1."""

    def records(self) -> Iterator[Record]:
        """Yield the records from the position on. Raises DataError for data that cannot be divided into records."""

    def row(self, record: Record) -> Row:
        """Parse a record. Raises DataError, which names file and line."""


class Wanted(NamedTuple):
    """What a job takes from each row. text: the name of the column. carried: the columns that the output contains.

    carried: "all" columns of the input; "id", only the one named `id`; "text", only the text, if there is no `id`.
    """

    text: str
    id: str | None
    carried: str


def place(source: Input, line: int) -> str:
    """The name of a row for messages."""
    return f"{source.name}, {'row' if source.kind in ('parquet', 'arrow') else 'line'} {line}"
