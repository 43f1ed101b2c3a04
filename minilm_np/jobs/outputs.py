"""Formats of the output: how the vectors of a part are stored, and how parts are joined into one file.

An uninterrupted job joins its parts, too. So its file has the bytes of an interrupted one.
"""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minilm_np._checks import short_repr
from minilm_np.engine.protocol import Vectors
from minilm_np.errors import InputValueError
from minilm_np.jobs.extras import pyarrow
from minilm_np.jobs.rows import Row

DTYPES = ("float32", "float16", "int8")
EMBEDDING = "embedding"  # the name of the new column

Numbers = NDArray[np.float32] | NDArray[np.float16] | NDArray[np.int8]


class Encoded(NamedTuple):
    """The rows of a part with their vectors, (n, d). carried: the name of the only carried column, or None for all."""

    rows: Sequence[Row]
    vectors: Numbers
    n_tokens: list[int]
    truncated: list[bool]
    schema: Any
    key: str  # of the carried value in .jsonl: "text" or "id"


class Stored(NamedTuple):
    """A finished part: its number of rows, and a function that reads its bytes, a bounded number at a time."""

    rows: int
    chunks: Callable[[], Iterator[bytes]]


class Format(NamedTuple):
    """One format. part: the bytes of a part. join: write the parts into an empty file."""

    part: Callable[[Encoded], Iterator[bytes | memoryview]]
    join: Callable[[Path, Iterable[Stored], int, int, str], None]  # file, parts, rows in all, d, dtype


def find_format(path: Path) -> str:
    """The format that a path ends with. Raises InputValueError."""
    format_ = path.suffix.lower().removeprefix(".")
    if format_ not in FORMATS:
        raise InputValueError(f"{path}: expected a name that ends in .npy, .parquet or .jsonl")
    return format_


def converted(vectors: Vectors, dtype: str) -> Numbers:
    """Vectors in the type of the output. Raises InputValueError: a number that float16 cannot represent.

    int8: each vector is scaled so that its largest number becomes 127 or -127, and rounded: rint(127 x / max|x|). Its
    length is lost, its direction is nearly the same: compare by the cosine.
    """
    if dtype == "int8":
        largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
        largest[largest == 0] = 1  # of a vector of zeros
        return np.rint(vectors / largest * np.float32(127)).astype(np.int8)
    if dtype == "float16":
        if (np.abs(vectors) > np.finfo(np.float16).max).any():
            raise InputValueError("float16 cannot represent numbers above 65,504: use float32, or normalize")
        return vectors.astype(np.float16)
    return vectors


# ---- .npy ------------------------------------------------------------------------------------------------------------


def _npy_part(encoded: Encoded) -> Iterator[bytes | memoryview]:
    if encoded.rows:  # an empty array has no buffer
        yield np.ascontiguousarray(encoded.vectors, encoded.vectors.dtype.newbyteorder("<")).data.cast("B")


def _npy_join(path: Path, parts: Iterable[Stored], n_rows: int, dimension: int, dtype: str) -> None:
    """The bytes that `numpy.save` writes."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype).newbyteorder("<")), "fortran_order": False}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header | {"shape": (n_rows, dimension)})
        for part in parts:
            file.writelines(part.chunks())


# ---- values of the input ---------------------------------------------------------------------------------------------


def _json(value: object) -> str:
    """A value as JSON: NaN and infinities as null; bytes, such as a UUID, as hexadecimal digits; dates as strings."""
    try:
        return json.dumps(value, ensure_ascii=False, default=_without_type, allow_nan=False)
    except ValueError:  # a NaN or an infinity, perhaps in a list
        with_nulls = json.loads(json.dumps(value, default=_without_type), parse_constant=lambda name: None)
        return json.dumps(with_nulls, ensure_ascii=False)


def _without_type(value: object) -> str:
    """A value that has no type in JSON, as a string."""
    return value.hex() if isinstance(value, bytes) else str(value)


# ---- .jsonl ----------------------------------------------------------------------------------------------------------


def _jsonl_part(encoded: Encoded) -> Iterator[bytes | memoryview]:
    # 9 significant digits read back as the same float32, 5 as the same float16
    number = {"float32": "%.9g", "float16": "%.5g", "int8": "%d"}[encoded.vectors.dtype.name]
    form = ", ".join([number] * encoded.vectors.shape[1])
    columns = (encoded.rows, encoded.vectors, encoded.n_tokens, encoded.truncated)
    for row, vector, n_tokens, truncated in zip(*columns, strict=True):
        head = {encoded.key: _carried_value(row.carried), "n_tokens": n_tokens, "truncated": truncated}
        start = _json(head)
        yield f'{start[:-1]}, "{EMBEDDING}": [{form % tuple(vector.tolist())}]}}\n'.encode()


def _carried_value(carried: Any) -> object:
    """The only carried value of a row."""
    if len(carried) == 1:
        return carried[0]
    batch, index = carried
    return batch.column(0)[index].as_py()


def _jsonl_join(path: Path, parts: Iterable[Stored], n_rows: int, dimension: int, dtype: str) -> None:
    with open(path, "wb") as file:
        for part in parts:
            file.writelines(part.chunks())


# ---- .parquet: a part is an Arrow stream, and becomes a row group ----------------------------------------------------


def _parquet_part(encoded: Encoded) -> Iterator[bytes | memoryview]:
    arrow = pyarrow(".parquet")
    table = _carried_table(arrow, encoded)
    numbers = arrow.array(encoded.vectors.reshape(-1))
    vectors = arrow.FixedSizeListArray.from_arrays(numbers, encoded.vectors.shape[1])
    table = table.append_column(arrow.field(EMBEDDING, vectors.type), vectors)
    stream = io.BytesIO()
    with arrow.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table.combine_chunks().unify_dictionaries())
    yield stream.getbuffer()


def _carried_table(arrow: Any, encoded: Encoded) -> Any:
    """The carried columns of a part: those of Arrow with their types, all others as strings."""
    schema = encoded.schema
    if isinstance(schema, list):
        columns = zip(*(row.carried for row in encoded.rows), strict=True) if encoded.rows else [()] * len(schema)
        arrays = [arrow.array(map(_string, column), arrow.large_string()) for column in columns]
        return arrow.table(arrays, names=schema)
    batches = [
        batch.take(arrow.array([row.carried[1] for row in rows])).replace_schema_metadata(None)
        for batch, rows in _by_batch(encoded.rows)
    ]
    return arrow.Table.from_batches(batches).cast(schema) if batches else schema.empty_table()


def _by_batch(rows: Sequence[Row]) -> Iterator[tuple[Any, list[Row]]]:
    for _, group in groupby(rows, lambda row: id(row.carried[0])):
        of_batch = list(group)
        yield of_batch[0].carried[0], of_batch


def _string(value: object) -> str:
    """A value of JSON as a string: a string as it is, any other value as JSON."""
    return value if isinstance(value, str) else _json(value)


def _parquet_join(path: Path, parts: Iterable[Stored], n_rows: int, dimension: int, dtype: str) -> None:
    arrow, writer = pyarrow(".parquet"), None
    with open(path, "wb") as file:  # pyarrow itself opens no file whose name is not UTF-8
        try:
            for part in parts:
                table = arrow.ipc.open_stream(b"".join(part.chunks())).read_all()
                if writer is None:
                    plain = [name for name in table.schema.names if name != EMBEDDING]  # vectors do not repeat
                    writer = arrow.parquet.ParquetWriter(file, table.schema, use_dictionary=plain)
                if len(table):
                    writer.write_table(table, row_group_size=len(table))
        finally:
            if writer is not None:
                writer.close()


def check_columns(format_: str, schema: Any) -> None:
    """Raise InputValueError if an input has a column with the name of the new one. schema: as `rows.Reader` has it."""
    names = schema if isinstance(schema, list) else schema.names
    if format_ == "parquet" and EMBEDDING in names:
        raise InputValueError(
            f"the input has a column {short_repr(EMBEDDING)}, which is the name of the new column: rename it, or copy "
            "only one column (--id on the command line)"
        )


FORMATS = {
    "npy": Format(_npy_part, _npy_join),
    "parquet": Format(_parquet_part, _parquet_join),
    "jsonl": Format(_jsonl_part, _jsonl_join),
}
