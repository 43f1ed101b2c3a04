"""What users pass where texts are expected: the kinds that are accepted, and those that are refused with a hint."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

TEXTS = ["one", "", "naïve café"]


class DictLike:
    """A mapping of the user's own, which `collections.abc.Mapping` does not recognise."""

    def keys(self) -> list[str]:
        return ["text"]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __getitem__(self, key: str) -> str:
        return "one"


class Column:
    """A column of a library that the package has never heard of."""

    def __iter__(self) -> Iterator[str]:
        return iter(TEXTS)


def _pandas(make: Callable[[Any], Any]) -> Callable[[], Any]:
    def made() -> Any:
        import pandas

        return make(pandas)

    return made


def _polars(make: Callable[[Any], Any]) -> Callable[[], Any]:
    def made() -> Any:
        import polars

        return make(polars)

    return made


def _pyarrow(make: Callable[[Any], Any]) -> Callable[[], Any]:
    def made() -> Any:
        import pyarrow

        return make(pyarrow)

    return made


# Each gives TEXTS. Libraries are imported when an object is made, so that collecting the tests stays fast.
ACCEPTED: dict[str, Callable[[], Any]] = {
    "list": lambda: list(TEXTS),
    "tuple": lambda: tuple(TEXTS),
    "dict's keys": lambda: dict.fromkeys(TEXTS).keys(),
    "NumPy <U": lambda: np.array(TEXTS),
    "NumPy object": lambda: np.array(TEXTS, object),
    "NumPy StringDType": lambda: np.array(TEXTS, np.dtypes.StringDType()),
    "list of arrays without dimensions": lambda: [np.array(text) for text in TEXTS],
    "a class of the user's own": Column,
    "pandas Series": _pandas(lambda pd: pd.Series(TEXTS, index=[5, 3, 1])),
    "pandas Series of objects": _pandas(lambda pd: pd.Series(TEXTS, dtype=object)),
    "pandas Series labelled columns": _pandas(lambda pd: pd.Series(TEXTS, index=["columns", "keys", "shape"])),
    "pandas categorical": _pandas(lambda pd: pd.Series(TEXTS, dtype="category")),
    "pandas PyArrow strings": _pandas(lambda pd: pd.Series(TEXTS, dtype="string[pyarrow]")),
    "pandas Index": _pandas(lambda pd: pd.Index(TEXTS)),
    "pandas column": _pandas(lambda pd: pd.DataFrame({"text": TEXTS})["text"]),
    "polars Series": _polars(lambda pl: pl.Series(TEXTS)),
    "polars categorical": _polars(lambda pl: pl.Series(TEXTS, dtype=pl.Categorical)),
    "polars column": _polars(lambda pl: pl.DataFrame({"text": TEXTS})["text"]),
    "PyArrow array": _pyarrow(lambda pa: pa.array(TEXTS)),
    "PyArrow large strings": _pyarrow(lambda pa: pa.array(TEXTS, pa.large_string())),
    "PyArrow dictionary": _pyarrow(lambda pa: pa.array(TEXTS).dictionary_encode()),
    "PyArrow chunked array": _pyarrow(lambda pa: pa.chunked_array([TEXTS[:1], TEXTS[1:]])),
    "PyArrow column": _pyarrow(lambda pa: pa.table({"text": TEXTS})["text"]),
}

# Readable once only: not for the vectorizer, whose `fit` would leave nothing for `transform`.
ACCEPTED_ONCE: dict[str, Callable[[], Any]] = {
    "generator": lambda: (text for text in TEXTS),
    "iterator": lambda: iter(TEXTS),
    "map": lambda: map(str, TEXTS),
}

_COLUMN = r': pass one of its columns, such as df\["text"\]$'
_MISSING = ": drop missing values, or replace them by a text$"
_CONTAINER = ": expected a list, an array or a column of str, found "

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {  # with the message's pattern
    "bytes": (lambda: b"one", _CONTAINER + "bytes: decode it first$"),
    "bytearray": (lambda: bytearray(b"one"), _CONTAINER + "bytearray: decode it first$"),
    "None": (lambda: None, _CONTAINER + "NoneType$"),
    "int": (lambda: 7, _CONTAINER + "int$"),
    "dict": (lambda: {"text": TEXTS}, _CONTAINER + "dict: pass its keys or its values$"),
    "dict-like": (lambda: DictLike(), _CONTAINER + "DictLike: pass its keys or its values$"),
    "array without dimensions": (
        lambda: np.array("one"),
        _CONTAINER + r"ndarray of shape \(\): pass an array with one",
    ),
    "array (n, 1)": (lambda: np.array(TEXTS)[:, None], _CONTAINER + r"ndarray of shape \(3, 1\): pass an array with"),
    "bytes in an array": (lambda: np.array([b"one"]), "text 0: expected a str, found bytes .*: decode it first$"),
    "pairs": (lambda: [("one", "two")], "text 0: expected a str, found tuple .*: a pair is not one text: .*per text$"),
    "lists": (lambda: [TEXTS, TEXTS], "text 0: expected a str, found list .*: pass one str per text$"),
    "records": (lambda: [{"text": "one"}], "text 0: expected a str, found dict .*: pass one str per text$"),
    "numbers": (lambda: np.arange(3), "text 0: expected a str, found int '0'$"),
    "NaN": (lambda: ["one", float("nan")], "text 1: expected a str, found float 'nan'" + _MISSING),
    "pandas DataFrame": (_pandas(lambda pd: pd.DataFrame({"text": TEXTS})), _CONTAINER + "DataFrame" + _COLUMN),
    "pandas DataFrame of one column": (
        _pandas(lambda pd: pd.DataFrame({"text": TEXTS, "n": 0})[["text"]]),
        _CONTAINER + "DataFrame" + _COLUMN,
    ),
    "pandas missing value": (_pandas(lambda pd: pd.Series(["one", None])), "text 1: expected a str, .*" + _MISSING),
    "pandas NA": (
        _pandas(lambda pd: pd.Series(["one", pd.NA], dtype=object)),
        "text 1: expected a str, found NAType '<NA>'" + _MISSING,
    ),
    "polars DataFrame": (_polars(lambda pl: pl.DataFrame({"text": TEXTS})), _CONTAINER + "DataFrame" + _COLUMN),
    "polars LazyFrame": (_polars(lambda pl: pl.LazyFrame({"text": TEXTS})), _CONTAINER + "LazyFrame" + _COLUMN),
    "polars missing value": (_polars(lambda pl: pl.Series(["one", None])), "text 1: .* NoneType 'None'" + _MISSING),
    "PyArrow table": (_pyarrow(lambda pa: pa.table({"text": TEXTS})), _CONTAINER + "Table" + _COLUMN),
    "PyArrow record batch": (
        _pyarrow(lambda pa: pa.table({"text": TEXTS}).to_batches()[0]),
        _CONTAINER + "RecordBatch" + _COLUMN,
    ),
    "PyArrow missing value": (_pyarrow(lambda pa: pa.array(["one", None])), "text 1: .* NoneType 'None'" + _MISSING),
    "PyArrow numbers": (_pyarrow(lambda pa: pa.array([1])), "text 0: expected a str, found int '1'$"),
}
