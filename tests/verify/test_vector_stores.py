"""Vectors in .npz files, in folders of Chroma and in indexes of FAISS, as `verify` reads them."""

import hashlib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import InputValueError, SentenceEncoder
from minilm_np.verify import open_implementation
from minilm_np.verify.implementations import is_source
from minilm_np.verify.interface import load_extra
from minilm_np.verify.stored_vectors import StoredVectors

TEXTS = ["hello world", "", "a third text"]
VECTORS = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def small() -> SentenceEncoder:
    return SentenceEncoder.random(backend="numpy")


def read(path: Path, texts: Sequence[str] | None = None) -> np.ndarray:
    found = StoredVectors(path)
    assert found.texts == (None if texts is None else list(texts))
    return found.vectors(TEXTS)


# ---- .npz ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_an_npz_file_are_read(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "v.npz"
    save(path, VECTORS)
    assert np.array_equal(read(path), VECTORS)
    save(path, ids=np.arange(3), embeddings=np.asfortranarray(VECTORS), other=VECTORS[:, :2], texts=np.array(TEXTS))
    assert np.array_equal(read(path, TEXTS), VECTORS)
    save(path, e=VECTORS, labels=np.array(["x", None, {}], object))  # Python objects are left unread
    assert np.array_equal(read(path), VECTORS)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(3)}, r'expected floats of shape \(texts, numbers\), found {"a": "float64 \(3,\)"}'),
        ({"a": np.zeros((2, 2), np.int8)}, r"expected floats of shape"),
        ({"a": np.array([[None]], object)}, r"expected floats of shape \(texts, numbers\), found .*object"),
        ({"a": np.zeros((2, 2)), "b": np.zeros((2, 2))}, "expected one array of floats, found 2"),
        ({"a": np.zeros((2, 2)), "text": np.array(["x"])}, "expected one vector per text, found 2 for 1 texts"),
        ({}, "expected floats of shape"),
    ],
)
def test_an_npz_file_of_something_else_is_refused(tmp_path: Path, arrays: Any, message: str) -> None:
    np.savez(tmp_path / "v.npz", **arrays)
    with pytest.raises(InputValueError, match=message):
        StoredVectors(tmp_path / "v.npz")


def test_a_damaged_npz_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.npz"
    np.savez_compressed(path, e=VECTORS, texts=np.array(TEXTS))
    whole = path.read_bytes()
    for content in (b"", b"PK\x03\x04", whole[:-30], whole[:60] + bytes(30) + whole[90:]):
        path.write_bytes(content)
        with pytest.raises(InputValueError, match=r"v\.npz"):
            StoredVectors(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("e.npy", b"no array")
    with pytest.raises(InputValueError, match=r"v\.npz, e is not an \.npy file of numbers"):
        StoredVectors(path)


def test_an_npz_file_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "v.npz", e=np.zeros((1000, 17_000), np.float32))
    with pytest.raises(InputValueError, match=r"expected arrays of at most 67108864 bytes in a file of"):
        StoredVectors(tmp_path / "v.npz")


# ---- Chroma ----------------------------------------------------------------------------------------------------------


def write_chroma(folder: Path, **collections: Any) -> Path:
    import chromadb
    from chromadb.config import Settings

    client: Any = chromadb.PersistentClient(folder, settings=Settings(anonymized_telemetry=False))
    for name, documents in collections.items():
        collection = client.create_collection(name, embedding_function=None)
        if documents != []:
            ids = [f"id {number}" for number in range(3)]
            collection.add(ids=ids, embeddings=VECTORS, documents=documents)
    client.close()
    return folder


def contents(folder: Path) -> dict[str, Any]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).digest()) for path in files}


def test_a_folder_of_chroma_is_read_and_not_written_to(small: SentenceEncoder, tmp_path: Path) -> None:
    folder = write_chroma(tmp_path / "db", facts=TEXTS, numbers=None, nothing=[])
    before = contents(folder)
    for source, texts in ((f"{folder}#facts", TEXTS), (f"{folder}#numbers", None)):
        assert is_source(source)
        found = open_implementation(source, small)
        assert found.texts == texts and found.name == "db"
        assert np.array_equal(found.vectors(TEXTS), VECTORS)
    for source, message in (
        (str(folder), r"expected one collection, found 3: \[.*\]: name one: .*db#COLLECTION"),
        (f"{folder}#other", "there is no collection 'other'; found"),
        (f"{folder}#nothing", "expected at least one vector"),
    ):
        with pytest.raises(InputValueError, match=message):
            open_implementation(source, small)
    assert contents(folder) == before


def test_a_folder_with_one_collection_needs_no_name(small: SentenceEncoder, tmp_path: Path) -> None:
    found = open_implementation(str(write_chroma(tmp_path / "db", only=TEXTS)), small)
    assert found.texts == TEXTS


def test_folders_of_something_else_are_refused(small: SentenceEncoder, tmp_path: Path) -> None:
    assert is_source(str(tmp_path)) and not is_source(f"{tmp_path}#facts")
    with pytest.raises(InputValueError, match=r"is a folder without chroma\.sqlite3: expected a file of vectors, or"):
        open_implementation(str(tmp_path), small)
    (tmp_path / "chroma.sqlite3").write_bytes(b"no database" * 100)
    with pytest.raises(InputValueError, match=r"Chroma cannot read it: .*file is not a database"):
        open_implementation(str(tmp_path), small)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputValueError, match="cannot be read: expected a regular file, found a FIFO"):
        open_implementation(str(tmp_path), small)


# ---- FAISS -----------------------------------------------------------------------------------------------------------


def write_faiss(path: Path, kind: str, vectors: np.ndarray, ids: np.ndarray | None = None) -> Path:
    faiss = load_extra("faiss")  # without the warnings of its import
    index = faiss.index_factory(vectors.shape[1], kind)
    index.train(vectors)
    if ids is None:
        index.add(vectors)
    else:
        index.add_with_ids(vectors, ids)
    faiss.write_index(index, str(path))
    return path


@pytest.mark.parametrize("kind", ["Flat", "HNSW8,Flat", "IVF2,Flat", "IDMap,Flat", "IDMap2,IVF2,Flat"])
def test_indexes_that_store_their_vectors_are_read(tmp_path: Path, kind: str) -> None:
    vectors = np.random.default_rng(1).normal(size=(100, 8)).astype(np.float32)
    ids = np.arange(1000, 900, -1) if "IDMap" in kind else None
    for name in ("v.faiss", "v.index"):
        found = StoredVectors(write_faiss(tmp_path / name, kind, vectors, ids))
        assert found.texts is None
        assert np.array_equal(found.vectors([""] * 100), vectors)


def test_indexes_without_vectors_are_refused(tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).normal(size=(100, 8)).astype(np.float32)
    path = write_faiss(tmp_path / "v.faiss", "IVF2,Flat", vectors, np.arange(100) * 3)
    with pytest.raises(InputValueError, match=r"FAISS cannot read or reconstruct .* sequential ids: give an"):
        StoredVectors(path)
    whole = write_faiss(path, "Flat", vectors).read_bytes()
    for content in (b"", b"garbage" * 10, whole[:-5]):
        path.write_bytes(content)
        with pytest.raises(InputValueError, match="FAISS cannot read or reconstruct the vectors"):
            StoredVectors(path)
