"""Files of vectors by any program, from .npy to the folder of a vector store."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from minilm_np._files import MAX_ARRAYS, bounded_lines, open_regular, parse_json, shown
from minilm_np.errors import InputValueError
from minilm_np.model_files.tensors import read_arrays
from minilm_np.verify.interface import Array
from minilm_np.verify.npy_files import read_npy, read_npz
from minilm_np.verify.vector_arrays import as_vector, no_vectors, stacked
from minilm_np.verify.vector_stores import read_chroma, read_faiss
from minilm_np.verify.vector_tables import read_csv, read_parquet


class StoredVectors:
    """A file of n vectors of D numbers.

    .npy: an (n, D) array of floats, in the order of the texts.
    .npz: such an array; optionally an (n,) array of strings, the texts.
    .jsonl: one object per line, with `text` and `embedding`.
    .safetensors: one (n, D) tensor of floats; optionally the texts, as a JSON list in the metadata's `texts`.
    .parquet: a column of lists of floats; optionally a column of texts.
    .csv, .tsv: a column of vectors as pgvector writes them, [0.1,0.2], or one column per number; optionally texts.
    .faiss, .index: a FAISS index that can reconstruct its vectors.
    A folder of Chroma: the vectors and documents of `collection`; None: of the only collection.

    Raises InputValueError (the file is broken, empty, or contains something else), MissingExtraError (the library of
    the format is not installed).
    """

    def __init__(self, path: Path, collection: str | None = None) -> None:
        self.name = path.name
        self.texts: list[str] | None
        try:
            if path.is_dir():
                self._vectors, self.texts = read_chroma(path, collection)
            else:
                self._vectors, self.texts = FORMATS[path.suffix.lower()](path)
        except OSError as error:
            raise InputValueError(f"{path} cannot be read: {error.strerror or error}") from None
        if self._vectors.ndim != 2 or self._vectors.dtype.kind != "f" or not self._vectors.size:
            raise no_vectors(path, self._vectors.dtype, self._vectors.shape)
        if self.texts is not None and len(self.texts) != len(self._vectors):
            raise InputValueError(
                f"{path}: expected one vector per text, found {len(self._vectors)} for {len(self.texts)} texts"
            )

    def vectors(self, texts: Sequence[str]) -> Array:
        """Return the vectors of these texts. Raises InputValueError: the file does not have them."""
        if self.texts is None:
            if len(texts) != len(self._vectors):
                raise InputValueError(
                    f"{self.name} has {len(self._vectors)} vectors without texts, but {len(texts)} texts are compared: "
                    "give the texts of the vectors, in their order (--texts FILE)"
                )
            return self._vectors
        if list(texts) == self.texts:
            return self._vectors
        rows = {text: row for row, text in reversed(list(enumerate(self.texts)))}
        missing = [text for text in texts if text not in rows]
        if missing:
            raise InputValueError(
                f"{self.name} has no vector for {len(missing)} of the {len(texts)} texts, the first is "
                f"{missing[0][:60]!r}: leave out --texts and --corpus, or give texts of this file"
            )
        return self._vectors[[rows[text] for text in texts]]

    def intermediates(self, texts: Sequence[str]) -> None:
        return None

    def token_ids(self, texts: Sequence[str]) -> None:
        return None


def _read_jsonl(path: Path) -> tuple[Array, list[str]]:
    texts: list[str] = []
    vectors: list[Array] = []
    with open_regular(path, MAX_ARRAYS) as unbuffered, io.BufferedReader(unbuffered) as file:
        for number, line in enumerate(bounded_lines(file.readline), 1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                item = json.loads(line)
            except UnicodeDecodeError:
                raise InputValueError(f"{place}: not UTF-8: expected one JSON object per line") from None
            except (ValueError, RecursionError) as error:
                raise InputValueError(f"{place}: not JSON: {error}") from None
            if not isinstance(item, dict) or not isinstance(item.get("text"), str) or "embedding" not in item:
                raise InputValueError(
                    f'{place}: expected an object with "text" and "embedding", found '
                    f"{line.strip()[:60].decode(errors='replace')}"
                )
            texts.append(item["text"])
            vectors.append(as_vector(item["embedding"], place, len(vectors[0]) if vectors else None))
    return stacked(vectors), texts


def _read_safetensors(path: Path) -> tuple[Array, list[str] | None]:
    arrays, metadata = read_arrays(path)
    if len(arrays) != 1:
        raise InputValueError(
            f"{path}: expected one tensor, (texts, numbers), found {len(arrays)}: {shown(list(arrays))}"
        )
    (vectors,) = arrays.values()
    if "texts" not in metadata:
        return vectors, None
    try:
        texts = parse_json(metadata["texts"].encode())
    except ValueError:
        texts = None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputValueError(f"{path}: metadata `texts`: expected a JSON list of strings")
    return vectors, texts


FORMATS: dict[str, Callable[[Path], tuple[Array, list[str] | None]]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".jsonl": _read_jsonl,
    ".safetensors": _read_safetensors,
    ".parquet": read_parquet,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".faiss": read_faiss,
    ".index": read_faiss,
}
