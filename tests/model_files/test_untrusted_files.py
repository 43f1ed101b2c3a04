"""Files of a model that anybody may have written: only regular files of bounded size are read.

The long version of the last test is `tests/faults/strangers.py`.
"""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minilm_np import SentenceEncoder
from minilm_np._files import MAX_ARRAYS, MAX_JSON
from minilm_np._text_files import read_samples
from minilm_np.errors import MiniLMError
from minilm_np.text.tokenizer_files import MAX_TOKENIZER, MAX_VOCABULARY
from minilm_np.trace import Trace
from minilm_np.verify import conformance_file
from minilm_np.verify.stored_vectors import StoredVectors
from tests.faults import strangers

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"53aa5117" * 8 + b"\nsize 90868376\n"

# file -> its limit; the weights have none, because their header is compared with the size of the file
FILES = {
    "config.json": MAX_JSON,
    "modules.json": MAX_JSON,
    "1_Pooling/config.json": MAX_JSON,
    "2_Normalize/config.json": MAX_JSON,
    "sentence_bert_config.json": MAX_JSON,
    "config_sentence_transformers.json": MAX_JSON,
    "tokenizer_config.json": MAX_JSON,
    "tokenizer.json": MAX_TOKENIZER,
    "vocab.txt": MAX_VOCABULARY,
    strangers.INDEX: MAX_JSON,
    strangers.SINGLE: None,
    strangers.SHARDS[0]: None,
}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("honest") / "model"
    strangers.write_model(folder)
    return folder


@pytest.fixture
def folder(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "model"))


@pytest.fixture
def alarm() -> Iterator[None]:
    """A test that waits, or reads without an end, is a failure after five seconds."""

    def late(number: int, frame: Any) -> None:
        raise AssertionError("still reading after five seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 5)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def with_file(folder: Path, name: str) -> Path:
    """The path of a file, after the removal of it and of the file that is read in preference to it."""
    if name in (strangers.INDEX, *strangers.SHARDS):
        (folder / strangers.SINGLE).unlink()
    if name == "vocab.txt":
        (folder / "tokenizer.json").unlink()
    (folder / name).unlink(missing_ok=True)
    return folder / name


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("name", FILES)
def test_only_regular_files_are_read(folder: Path, name: str) -> None:
    path = with_file(folder, name)
    os.mkfifo(path)
    with pytest.raises(MiniLMError, match=rf"{path} cannot be read: expected a regular file, found a FIFO$"):
        SentenceEncoder(folder, backend="numpy")
    for target in ("/dev/zero", "/dev/null"):
        path.unlink()
        path.symlink_to(target)
        where = f"{path}( is a link to {target}, outside| cannot be read: expected a regular file, found a device$)"
        with pytest.raises(MiniLMError, match=where):
            SentenceEncoder(folder, backend="numpy")


@pytest.mark.parametrize(("name", "most"), [(name, most) for name, most in FILES.items() if most])
def test_a_file_above_its_limit_is_not_read(folder: Path, name: str, most: int) -> None:
    path = with_file(folder, name)
    path.touch()
    os.truncate(path, most + 1)
    with pytest.raises(MiniLMError, match=f"{path} cannot be read: expected at most {most} bytes, found {most + 1}$"):
        SentenceEncoder(folder, backend="numpy")


@pytest.mark.parametrize("name", FILES)
def test_a_git_lfs_pointer_is_named(folder: Path, name: str) -> None:
    path = with_file(folder, name)
    path.write_bytes(LFS)
    with pytest.raises(MiniLMError, match=rf"{path} cannot be read: .* found a Git LFS pointer to it: run `git lfs pu"):
        SentenceEncoder(folder, backend="numpy")


READERS: dict[str, Callable[[Path], object]] = {
    "vectors.npy": StoredVectors,
    "vectors.jsonl": StoredVectors,
    "vectors.safetensors": StoredVectors,
    "trace.safetensors": Trace.load,
    "conformance.safetensors": conformance_file.read,
    "samples.tsv": lambda path: list(read_samples(path)),
    "samples.jsonl.gz": lambda path: list(read_samples(path)),
}


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("name", READERS)
def test_the_readers_of_other_files_are_as_strict(tmp_path: Path, name: str) -> None:
    path, read = tmp_path / name, READERS[name]
    os.mkfifo(path)
    with pytest.raises((MiniLMError, OSError), match="expected a regular file, found a FIFO"):
        read(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises((MiniLMError, OSError), match="expected a regular file, found a device"):
        read(path)
    path.unlink()
    path.write_bytes(LFS)
    with pytest.raises((MiniLMError, OSError), match="found a Git LFS pointer"):
        read(path)
    if not name.startswith("samples"):  # whose lines are read one by one
        os.truncate(path, MAX_ARRAYS + 1)
        with pytest.raises(
            (MiniLMError, OSError), match=f"expected at most {MAX_ARRAYS} bytes, found {MAX_ARRAYS + 1}"
        ):
            read(path)


# ---- what the files say ----------------------------------------------------------------------------------------------


def test_a_module_in_a_folder_that_is_a_link_out_of_the_model_is_refused(folder: Path) -> None:
    shutil.move(folder / "1_Pooling", folder.parent / "pooling")
    (folder / "1_Pooling").symlink_to(folder.parent / "pooling")
    with pytest.raises(
        MiniLMError, match=r"modules\.json: module 1: the path '1_Pooling' is a link to .*, outside the"
    ):
        SentenceEncoder(folder, backend="numpy")
    (folder / "1_Pooling").unlink()
    shutil.move(folder.parent / "pooling", folder / "inside")
    (folder / "1_Pooling").symlink_to("inside")
    SentenceEncoder(folder, backend="numpy")


def test_absurd_values_are_refused_or_work() -> None:
    ended, failures = strangers.run(draws=100, seed=1)
    assert failures == []
    assert ended["refused"] > ended["loaded"] > 10
