"""Input files as streams of bytes: plain or compressed, with an identity, and readable again from an offset.

An offset counts decompressed bytes. A plain file is read again from an offset at once; a compressed file or a pipe is
read from its beginning, and the bytes before the offset are discarded.
"""

import gzip
import hashlib
import io
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypedDict

from minilm_np._files import open_regular
from minilm_np.errors import DataError, InputValueError
from minilm_np.jobs.extras import pyarrow

KINDS = ("txt", "jsonl", "csv", "tsv", "parquet", "arrow")
COMPRESSIONS = ("gz", "zst")
ENDINGS = "expected a name that ends in .txt, .jsonl, .csv, .tsv, .parquet or .arrow, alone or followed by .gz or .zst"

MAX_ROW = 1 << 26  # bytes of a line, or of a record with its quoted line breaks
ENDS = 1 << 16  # bytes at the beginning and at the end of a file that its identity covers
CHUNK = 1 << 20

# What readers of compressed data raise when the data is broken. OSError: gzip.BadGzipFile, and Arrow's own errors.
BROKEN = (EOFError, zlib.error, OSError)


class Identity(TypedDict):
    """What is recorded of an input, to recognise another one. Of a pipe, only the name."""

    name: str
    bytes: int | None
    mtime_ns: int | None
    digest: str | None  # SHA-256 of its first and its last 64 KiB


@dataclass(frozen=True)
class Input:
    """An input file. path: "-" is standard input. kind: one of KINDS. compression: one of COMPRESSIONS, or ""."""

    path: str
    kind: str
    compression: str

    @property
    def name(self) -> str:
        """The name for messages."""
        return "standard input" if self.path == "-" else self.path

    @property
    def is_stream(self) -> bool:
        """Whether the bytes come from a pipe: they have no identity, and can be read only once."""
        return self.path == "-" or (os.path.exists(self.path) and not os.path.isfile(self.path))

    def identity(self) -> Identity:
        """The identity of the file. Raises DataError."""
        try:
            if self.is_stream:
                return Identity(name=self.name, bytes=None, mtime_ns=None, digest=None)
            with open_regular(self.path) as file:
                status = os.fstat(file.fileno())
                digest = hashlib.sha256(file.read(ENDS))
                file.seek(max(0, status.st_size - ENDS))
                digest.update(file.read(ENDS))
        except OSError as error:
            raise unreadable(self.name, error) from None
        return Identity(
            name=self.name, bytes=status.st_size, mtime_ns=status.st_mtime_ns, digest=digest.hexdigest()
        )  # fmt: skip


def find_input(path: str | os.PathLike[str], kind: str | None = None) -> Input:
    """An input of a path, whose ending says what it contains. Raises InputValueError.

    kind: an ending such as "jsonl" or "csv.gz" that is used instead of the path's. Standard input has no ending: its
    default is "txt".
    """
    path = os.fspath(path)
    ending = kind or ("txt" if path == "-" else Path(path).name.lower())
    first, _, last = ending.rpartition(".")
    compression = last if last in COMPRESSIONS else ""
    found = (first if compression else ending).rpartition(".")[2]
    if found not in KINDS:
        if kind:
            raise InputValueError(f"format of the input: {ENDINGS.replace('a name that ends in ', '')}, found {kind!r}")
        raise InputValueError(f"{path}: {ENDINGS}: name the format of the input (--from on the command line)")
    if path == "-" and found in ("parquet", "arrow"):
        raise InputValueError(f"standard input: {found} cannot be read from a pipe: save it to a file first")
    return Input(path, found, compression)


def unreadable(name: str, error: BaseException) -> DataError:
    """The error for an input that cannot be read or decompressed."""
    if isinstance(error, OSError) and error.errno:
        return DataError(f"{name} cannot be read: {error.strerror}")
    return DataError(f"{name}: the compressed data is broken: {error}: copy the file again")


class ByteLines:
    """The decompressed lines of an input. `offset` counts the bytes that were taken."""

    def __init__(self, source: Input, raw: IO[bytes], file: IO[bytes]) -> None:
        self._source, self._raw, self._file = source, raw, file
        self._size = 0 if source.is_stream else os.fstat(raw.fileno()).st_size
        self._digest = hashlib.sha256() if source.is_stream else None
        self.offset = 0

    @property
    def fraction(self) -> float:
        """The part of the file that has been read, from 0 to 1; 0 for a pipe."""
        return min(1.0, self._raw.tell() / self._size) if self._size else 0.0

    @property
    def digest(self) -> str:
        """SHA-256 of all bytes that were taken from a pipe; "" for a file, which has an identity."""
        return self._digest.hexdigest() if self._digest else ""

    def lines(self) -> Iterator[tuple[bytes, int]]:
        """Yield each line with its end, and its number of bytes. Of a line of more than MAX_ROW bytes the rest is cut.

        Raises DataError for broken data.
        """
        while line := self._read(MAX_ROW + 1, line=True):
            size, piece = len(line), line
            while size > MAX_ROW and not piece.endswith(b"\n") and (piece := self._read(CHUNK, line=True)):
                size += len(piece)
            yield line, size

    def skip_to(self, offset: int, digest: str) -> None:
        """Continue at an offset that is not before the current one.

        digest: what `digest` was there; "" if that is unknown. Raises DataError: the input is shorter, or another one.
        """
        if not self._source.compression and not self._source.is_stream:
            self._file.seek(offset)
            self.offset = offset
            return
        while self.offset < offset and self._read(min(CHUNK, offset - self.offset)):
            pass
        if self.offset < offset or digest not in ("", self.digest):
            raise DataError(
                f"{self._source.name}: expected the same bytes as in the interrupted run, found others: give the same "
                "input, or begin again with --overwrite"
            )

    def _read(self, most: int, *, line: bool = False) -> bytes:
        try:
            found = self._file.readline(most) if line else self._file.read(most)
        except BROKEN as error:
            raise unreadable(self._source.name, error) from None
        self.offset += len(found)
        if self._digest:
            self._digest.update(found)
        return found


@contextmanager
def open_lines(source: Input) -> Iterator[ByteLines]:
    """Open an input for reading lines. Raises DataError, MissingExtraError (.zst)."""
    with _opened(source) as raw:
        yield ByteLines(source, raw, decompressed(source, raw))


@contextmanager
def _opened(source: Input) -> Iterator[IO[bytes]]:
    """Yield the file as it is on the disk; or the pipe."""
    with ExitStack() as stack:
        if source.path == "-":
            if sys.stdin is None:
                raise InputValueError("standard input: expected an open stream, found a closed one: name a file")
            yield sys.stdin.buffer
            return
        try:
            if source.is_stream:
                file: IO[bytes] = stack.enter_context(open(source.path, "rb"))
            else:
                file = stack.enter_context(io.BufferedReader(stack.enter_context(open_regular(source.path))))
        except OSError as error:
            raise unreadable(source.name, error) from None
        yield file


def decompressed(source: Input, raw: IO[bytes]) -> IO[bytes]:
    """The decompressed bytes of an open input. Raises MissingExtraError: .zst needs pyarrow."""
    if source.compression == "gz":
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]  # it reads like an IO[bytes]
    if source.compression == "zst":
        stream = pyarrow(f"{source.name}: .zst").CompressedInputStream(raw, "zstd")
        return io.BufferedReader(_Reader(stream))
    return raw


class _Reader(io.RawIOBase):
    """A stream of Arrow with the methods that `io.BufferedReader` needs."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        found = self._stream.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)
