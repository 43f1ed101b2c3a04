"""The check of texts that every public call makes.

Texts are str objects in any object that iterates over them: a list, a tuple, a generator, a NumPy array, a column of
pandas, polars or PyArrow. These libraries are not imported here: their objects are recognised by their attributes.
"""

from collections.abc import Iterable, Mapping

from minilm_np.errors import InputTypeError, InputValueError


def check_texts(texts: Iterable[str], first: int = 0, name: str = "texts") -> list[str]:
    """Return the texts as a list, after a check that `tokenizers` accepts each; `first` is the index of the first one.

    name: the argument, for errors.
    Raises InputTypeError (not an iterable of str), InputValueError (a lone surrogate, which UTF-8 cannot encode). Both
    name the index of the text.
    """
    check_container(texts, name)
    found = list(texts)
    for index, text in enumerate(found):
        if not isinstance(text, str):
            text = found[index] = _unwrapped(text, first + index)
        if text.isascii():  # constant time: a flag of the str
            continue
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputValueError(
                f"text {first + index}: the lone surrogate U+{ord(text[error.start]):04X} at character {error.start} "
                "is not Unicode text: decode the original bytes correctly, or replace it with "
                "text.encode('utf-8', 'replace').decode()"
            ) from None
    return found


def check_container(texts: object, name: str = "texts") -> None:
    """Raise InputTypeError if iterating over `texts` would not give texts. Takes constant time, and reads nothing."""
    kind, shape = type(texts), getattr(texts, "shape", (0,))
    if isinstance(texts, str):  # iterating gives its characters
        hint = ": pass [text] for a single text"
    elif isinstance(texts, bytes | bytearray | memoryview):
        hint = ": decode it first"
    elif hasattr(kind, "columns"):  # a table: iterating gives the names of its columns, or the columns
        hint = ': pass one of its columns, such as df["text"]'
    elif isinstance(texts, Mapping):
        hint = ": pass its keys or its values"
    elif isinstance(shape, tuple) and len(shape) != 1:
        hint = f" of shape {shape}: pass an array with one dimension"
    elif not hasattr(kind, "__iter__"):
        hint = ""
    else:
        return
    raise InputTypeError(f"{name}: expected a list, an array or a column of str, found {kind.__name__}{hint}")


def _unwrapped(item: object, index: int) -> str:
    """The str in a PyArrow scalar or in an array without dimensions. Raises InputTypeError for any other item."""
    value = item
    if hasattr(item, "as_py"):
        value = item.as_py()
    elif getattr(item, "shape", None) == () and hasattr(item, "item"):
        value = item.item()
    if isinstance(value, str):
        return value
    hint = ""
    if isinstance(value, bytes):
        hint = ": decode it first"
    elif value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and value != value):
        hint = ": drop missing values, or replace them by a text"
    elif isinstance(value, Mapping | list | tuple) or hasattr(value, "__iter__"):
        hint = ": pass one str per text"
    raise InputTypeError(f"text {index}: expected a str, found {type(value).__name__} {str(value)[:40]!r}{hint}")
