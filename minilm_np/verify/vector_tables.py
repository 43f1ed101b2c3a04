"""Vectors in tables: Parquet, and CSV and TSV with one column per number or with pgvector's text form, `[0.1,0.2]`."""

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minilm_np._files import MAX_ARRAYS, bounded_lines, open_regular
from minilm_np.errors import InputValueError
from minilm_np.verify.interface import Array, load_extra
from minilm_np.verify.vector_arrays import (
    TEXT_NAMES,
    VECTOR_NAMES,
    as_vector,
    check_expanded,
    column,
    is_identifier,
    stacked,
    text_column,
)

# ---- Parquet ---------------------------------------------------------------------------------------------------------


def read_parquet(path: Path) -> tuple[Array, list[str] | None]:
    """Return the column of lists of floats, and the column of texts if there is one.

    Raises InputValueError, OSError, MissingExtraError.
    """
    arrow, parquet = load_extra("pyarrow"), load_extra("pyarrow.parquet")
    with open_regular(path, MAX_ARRAYS) as file:
        try:
            table = parquet.ParquetFile(file)
            schema = table.schema_arrow
            names = [field.name for field in schema if _is_vector_type(arrow, field.type)]
            vectors = column(path, names, VECTOR_NAMES, "vectors")
            if vectors is None:
                found = ", ".join(f"{field.name} {field.type}" for field in schema)
                raise InputValueError(f"{path}: expected a column of lists of floats, found {found[:200]}")
            texts = text_column(path, [field.name for field in schema if _is_text_type(arrow, field.type)])
            check_expanded(path, os.fstat(file.fileno()).st_size, 8 * _numbers(table.metadata))
            read = table.read(columns=[vectors] if texts is None else [vectors, texts])
        except arrow.ArrowException as error:
            raise InputValueError(f"{path} is not a complete Parquet file: {error}") from None
    strings = None if texts is None else read.column(texts).to_pylist()
    if strings is not None and None in strings:
        raise InputValueError(f"{path}: column {texts}, row {strings.index(None)}: expected a text, found null")
    return _matrix(read.column(vectors), f"{path}: column {vectors}"), strings


def _is_vector_type(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return is_list and types.is_floating(kind.value_type)


def _is_text_type(arrow: Any, kind: Any) -> bool:
    return arrow.types.is_string(kind) or arrow.types.is_large_string(kind)


def _numbers(metadata: Any) -> int:
    """The values of all columns, as the file declares them."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return sum(group.column(place).num_values for group in groups for place in range(group.num_columns))


def _matrix(lists: Any, where: str) -> Array:
    """A column of lists of floats as an (n, D) array; a null among the numbers becomes NaN."""
    if lists.null_count:
        row = next(row for row, one in enumerate(lists) if not one.is_valid)
        raise InputValueError(f"{where}, row {row}: expected a list of numbers, found null")
    if not len(lists):
        return np.empty((0, 0))
    sizes = np.array([len(one) for one in lists])
    if (sizes != sizes[0]).any():
        row = int(np.argmax(sizes != sizes[0]))
        raise InputValueError(
            f"{where}, row {row}: expected as many numbers as in the first row, {sizes[0]}, found {sizes[row]}"
        )
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in lists.chunks if len(chunk)]
    found: Array = np.concatenate(parts).reshape(len(lists), -1)
    return found


# ---- CSV and TSV -----------------------------------------------------------------------------------------------------


def read_csv(path: Path) -> tuple[Array, list[str] | None]:
    """Return the vectors of a CSV or TSV file, and its texts if it has a column of texts.

    The vectors are one column of lists, as pgvector writes them, or one column per number. A .csv file has quotes; a
    .tsv file has PostgreSQL's backslashes instead, as COPY writes it. The first line may be a header.
    Raises InputValueError, OSError.
    """
    texts: list[str] = []
    vectors: list[Array] = []
    plan: _Plan | None = None
    with open_regular(path, MAX_ARRAYS) as unbuffered, io.BufferedReader(unbuffered) as file:
        header: list[str] | None = None
        for number, cells in _records(path, _decoded(path, bounded_lines(file.readline))):
            if number == 1 and _is_header(cells):
                header = cells
                continue
            place = f"{path}, record {number}"
            if plan is None:
                plan = _Plan(path, header or [""] * len(cells), cells)
            if len(cells) != plan.width:
                raise InputValueError(f"{place}: expected {plan.width} fields, as in the first, found {len(cells)}")
            vectors.append(plan.vector(cells, place, len(vectors[0]) if vectors else None))
            if plan.text is not None:
                texts.append(cells[plan.text])
    return stacked(vectors), None if plan is None or plan.text is None else texts


class _Plan:
    """Which fields of a record are what, by the header and the first record."""

    def __init__(self, path: Path, header: Sequence[str], first: Sequence[str]) -> None:
        self.width = len(header)
        if len(first) != self.width:
            raise InputValueError(f"{path}: expected {self.width} fields, as in the header, found {len(first)}")
        has_names = any(header)
        names = list(header) if has_names else [f"column {place}" for place in range(1, self.width + 1)]
        if len(set(names)) < len(names):
            raise InputValueError(f"{path}: expected a different name for each column, found one name twice")
        named_text = {name for name in names if name.strip().lower() in TEXT_NAMES}
        lists = [name for name, cell in zip(names, first, strict=True) if _is_list(cell) and name not in named_text]
        words = [name for name, cell in zip(names, first, strict=True) if not _is_number(cell) and name not in lists]
        one = column(path, lists, VECTOR_NAMES, "vectors")
        self.list = None if one is None else names.index(one)
        self.numbers = [
            place
            for place, name in enumerate(names)
            if name not in words and name not in named_text and not (has_names and is_identifier(name))
        ]
        if self.list is None and not self.numbers:
            raise InputValueError(
                f"{path}: expected a column of vectors as [0.1,0.2], or one column per number, found {first[:3]!r:.100}"
            )
        text = text_column(path, [name for name in names if name in named_text or name in words])
        self.text = None if text is None else names.index(text)

    def vector(self, cells: Sequence[str], place: str, size: int | None) -> Array:
        """The vector of a record."""
        if self.list is not None:
            try:
                return as_vector(json.loads(cells[self.list]), place, size)
            except (json.JSONDecodeError, RecursionError):
                raise InputValueError(f"{place}: expected [0.1,0.2,...], found {cells[self.list]!r:.80}") from None
        try:
            return np.array([float(cells[number]) for number in self.numbers])
        except ValueError as error:
            raise InputValueError(f"{place}: expected numbers: {error!s:.120}") from None


def _is_list(cell: str) -> bool:
    cell = cell.strip()
    return cell.startswith("[") and cell.endswith("]")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_header(cells: Sequence[str]) -> bool:
    """Whether the first record has names: no numbers and no lists, or the numbers of the columns, as pandas writes."""
    numbers = [cell for cell in cells if _is_number(cell)]
    if any(map(_is_list, cells)):
        return False
    return not numbers or (len(numbers) > 1 and numbers == [str(place) for place in range(len(numbers))])


def _decoded(path: Path, lines: Iterator[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise InputValueError(f"{path}, line {number}: expected UTF-8, found other bytes") from None


def _records(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    """The numbered records of a file, without empty ones."""
    if path.suffix.lower() == ".tsv":
        records = ([_unescaped(cell) for cell in line.rstrip("\r\n").split("\t")] for line in lines if line.strip())
        yield from enumerate(records, 1)
        return
    try:
        yield from enumerate(filter(None, csv.reader(lines, strict=True)), 1)
    except csv.Error as error:
        raise InputValueError(f"{path} is not a CSV file of vectors: {error}") from None


_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _unescaped(cell: str) -> str:
    r"""A field of COPY's text format without its escapes; \N, for null, becomes an empty text."""
    if cell == "\\N" or "\\" not in cell:
        return "" if cell == "\\N" else cell
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), cell)
