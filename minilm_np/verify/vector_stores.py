"""Vectors in the files of vector stores, read by their own libraries: a folder of Chroma, an index of FAISS."""

import io
import os
import re
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from minilm_np._files import MAX_ARRAYS, open_regular, read_regular, shown
from minilm_np.errors import InputValueError
from minilm_np.verify.interface import Array, load_extra
from minilm_np.verify.vector_arrays import check_expanded

CHROMA_FILE = "chroma.sqlite3"
PAGE = 1000  # entries of a collection that are read at a time


def chroma_folder(source: str) -> tuple[Path, str | None] | None:
    """Return the folder and the collection that FOLDER or FOLDER#COLLECTION names; None if it is no Chroma folder."""
    if (Path(source) / CHROMA_FILE).is_file():
        return Path(source), None
    folder, separator, collection = source.rpartition("#")
    return (Path(folder), collection) if separator and (Path(folder) / CHROMA_FILE).is_file() else None


def read_chroma(folder: Path, collection: str | None) -> tuple[Array, list[str] | None]:
    """Return the vectors of a Chroma collection, and its documents if every entry has one.

    collection: its name; None: the only one.

    Chroma writes to a folder that it opens, so it gets a copy in a temporary folder. Its telemetry is switched off, and
    the collection's embedding function is not created. Raises InputValueError, OSError, MissingExtraError.
    """
    chromadb = load_extra("chromadb")
    if int(chromadb.__version__.partition(".")[0]) < 1:  # these read their index through pickle, which can run code
        raise InputValueError(
            f"{folder}: expected chromadb 1 or later, found {chromadb.__version__}: pip install --upgrade chromadb"
        )
    with tempfile.TemporaryDirectory(prefix="minilm-np-chroma-", ignore_cleanup_errors=True) as temporary:
        _copy(folder, Path(temporary))
        try:
            with warnings.catch_warnings(action="ignore"):
                client = chromadb.PersistentClient(temporary, settings=chromadb.Settings(anonymized_telemetry=False))
                try:
                    return _entries(client, folder, collection)
                finally:
                    client.close()
        except (InputValueError, OSError):
            raise
        except Exception as error:  # of the database, of Rust, of httpx: there is no common class
            raise InputValueError(f"{folder}: Chroma cannot read it: {type(error).__name__}: {error!s:.300}") from None


def _copy(folder: Path, copy: Path) -> None:
    """Copy the regular files of a folder, at most MAX_ARRAYS bytes; a pipe or a device is an error."""
    left = MAX_ARRAYS
    for at, _, files in os.walk(folder):
        place = copy / Path(at).relative_to(folder)
        place.mkdir(exist_ok=True)
        for name in files:
            with open_regular(Path(at, name), left) as unbuffered, io.BufferedReader(unbuffered) as file:
                left -= os.fstat(file.fileno()).st_size
                with open(place / name, "wb") as target:
                    shutil.copyfileobj(file, target)


def _entries(client: Any, folder: Path, name: str | None) -> tuple[Array, list[str] | None]:
    names = [one.name for one in client.list_collections()]
    if name is None and len(names) != 1:
        raise InputValueError(
            f"{folder}: expected one collection, found {len(names)}: {shown(names)}: name one: {folder}#COLLECTION"
        )
    name = names[0] if name is None else name
    if name not in names:
        raise InputValueError(f"{folder}: there is no collection {name!r}; found {shown(names)}")
    collection = client.get_collection(name, embedding_function=None)
    count = collection.count()
    vectors: list[Array] = []
    texts: list[str | None] = []
    for start in range(0, count, PAGE):
        page = collection.get(limit=PAGE, offset=start, include=["embeddings", "documents"])
        vectors.append(np.asarray(page["embeddings"]))
        texts += page["documents"] or [None] * len(page["ids"])
    known = [text for text in texts if text is not None]
    return np.concatenate(vectors) if vectors else np.empty((0, 0)), known if len(known) == len(texts) else None


def read_faiss(path: Path) -> tuple[Array, None]:
    """Return the vectors of a FAISS index, in the order in which they were added, as the index reconstructs them.

    Raises InputValueError (the index cannot reconstruct its vectors, or is damaged), OSError, MissingExtraError.
    FAISS does not defend itself against files made to attack it: open only files that you trust.
    """
    faiss = load_extra("faiss")
    content = np.frombuffer(read_regular(path, MAX_ARRAYS), np.uint8)
    try:
        owner = index = faiss.deserialize_index(content)  # the owner, because its parts do not keep it alive
        check_expanded(path, len(content), 4 * index.ntotal * index.d)
        while isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2):  # with other numbers than 0, 1, 2, ...
            index = faiss.downcast_index(index.index)
        try:
            inverted = faiss.extract_index_ivf(index)
        except RuntimeError:  # not an index with inverted lists
            inverted = None
        if inverted is not None:
            inverted.make_direct_map()
        return index.reconstruct_n(0, owner.ntotal).reshape(owner.ntotal, owner.d), None
    except InputValueError:
        raise
    except Exception as error:  # RuntimeError of C++, AssertionError of its Python part
        raise InputValueError(
            f"{path}: FAISS cannot read or reconstruct the vectors: {_reason(error)}: give an index that stores its "
            "vectors (Flat, HNSWFlat, IVFFlat), or the vectors in an .npy file"
        ) from None


def _reason(error: Exception) -> str:
    """What FAISS says, without the place in its code."""
    return (
        re.sub(r"^Error in .*? at .*?:\d+: (Error: )?", "", str(error), flags=re.DOTALL)[:200] or type(error).__name__
    )
