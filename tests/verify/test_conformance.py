"""`write` and `check`: what a conformance file contains, and which differences are found."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import InputValueError, NonFiniteError, SentenceEncoder
from minilm_np.verify.conformance import check, write
from minilm_np.verify.conformance_subjects import TextSubject
from tests.support.conformance_port import TEXTS, changed, read_safetensors, set_first


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder.random(seed=3, backend="numpy")


@pytest.fixture(scope="module")
def file(encoder: SentenceEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("conformance") / "file.safetensors"
    write(encoder, path, TEXTS)
    return path


def test_the_built_in_file_has_texts_of_every_kind(encoder: SentenceEncoder, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    write(encoder, path)
    arrays, manifest = read_safetensors(path)
    texts = manifest["texts"]
    assert [text["intermediates"] for text in texts[:4]] == [True, True, True, False]
    assert any(text["truncated"] and len(arrays[f"texts.{i}.ids"]) == 128 for i, text in enumerate(texts))
    assert any(text["text"] == "" for text in texts) and any(not text["text"].isascii() for text in texts)
    for i, text in enumerate(texts):
        ids = encoder.tokenizer([text["text"]])
        assert arrays[f"texts.{i}.ids"].tolist() == ids.ids[0] and text["truncated"] == ids.truncated[0]
    assert manifest["model"]["config"]["max_seq_length"] == 128
    assert manifest["written_by"]["contract"] is None
    assert path.stat().st_size < 4e6


def test_a_file_is_written_the_same_again(encoder: SentenceEncoder, file: Path, tmp_path: Path) -> None:
    write(encoder, tmp_path / "again.safetensors", TEXTS)
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_the_float64_arrays_are_the_same_on_other_processors(encoder: SentenceEncoder, file: Path) -> None:
    """A child whose BLAS is told that it runs on an older processor, in one thread."""
    code = (
        "import sys; from minilm_np import SentenceEncoder; from minilm_np.verify.conformance import check\n"
        "rows = check(SentenceEncoder.random(seed=3, backend='numpy'), sys.argv[1]).rows\n"
        "print(max(row.max_rel for row in rows if row.implementation == 'reference float64'))"
    )
    old = {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "1"}
    child = [sys.executable, "-c", code, str(file)]
    done = subprocess.run(child, env=os.environ | old, capture_output=True, text=True, check=True)
    assert float(done.stdout) <= 1e-12


def test_the_engine_conforms_bit_for_bit(tmp_path: Path) -> None:
    encoder = SentenceEncoder.random(seed=3)
    path = tmp_path / "file.safetensors"
    write(encoder, path, TEXTS)
    result = check(SentenceEncoder.random(seed=3, threads=1), path)
    assert result.conforms and result.first_failure is None
    found = {(row.implementation, row.name) for row in result.rows}
    assert {("engine float32", "vector, bit for bit"), ("engine float32", "encoder.layer.2.output.LayerNorm")} <= found
    assert len([row for row in result.rows if row.name == "vector, bit for bit"]) == len(TEXTS)

    def nudge(arrays: dict[str, np.ndarray], manifest: Any) -> None:
        arrays["vectors.float32"][4, 7] = np.nextafter(arrays["vectors.float32"][4, 7], np.float32(9))

    failure = check(encoder, changed(path, nudge)).first_failure
    assert failure is not None and (failure.text, failure.name, failure.max_abs) == (4, "vector, bit for bit", 1)


def test_a_file_of_the_other_backend_promises_no_bits(file: Path) -> None:
    result = check(SentenceEncoder.random(seed=3), file)
    assert result.conforms and all(row.name != "vector, bit for bit" for row in result.rows)


def test_the_first_array_out_of_tolerance_is_named(encoder: SentenceEncoder, file: Path) -> None:
    def spoil(arrays: dict[str, np.ndarray], manifest: Any) -> None:
        for name in ("encoder.layer.2.output.dense", "encoder.layer.1.attention.self.probs"):
            arrays[f"texts.2.float64.{name}"].flat[5] += 1e-3

    result = check(encoder, changed(file, spoil))
    failure = result.first_failure
    assert failure is not None and not result.conforms
    assert (failure.text, failure.name) == (2, "encoder.layer.1.attention.self.probs")
    assert failure.max_abs == pytest.approx(1e-3, rel=1e-6)


def test_a_tokenizer_that_differs_is_named(encoder: SentenceEncoder, file: Path) -> None:
    failure = check(encoder, changed(file, lambda arrays, manifest: set_first(arrays["texts.3.ids"], 7))).first_failure
    assert failure is not None and (failure.text, failure.implementation, failure.max_abs) == (3, "tokenizer", 1)


def test_a_fault_of_the_backend_does_not_widen_the_tolerance(
    encoder: SentenceEncoder, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = TextSubject.computed
    monkeypatch.setattr(TextSubject, "computed", lambda self, texts: right(self, texts) * np.float32(1.5))
    write(encoder, tmp_path / "faulty.safetensors", TEXTS)
    faulty, sound = (read_safetensors(path)[1] for path in (tmp_path / "faulty.safetensors", file))
    assert faulty["tolerance"] == sound["tolerance"] and sound["tolerance"]["float32"] < 1e-4


def test_what_cannot_be_written_is_refused(encoder: SentenceEncoder, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    with pytest.raises(InputValueError, match="texts: expected at least one, found none"):
        write(encoder, path, [])
    with pytest.raises(InputValueError, match="full: expected 0 to 1, the number of texts, found 2"):
        write(encoder, path, ["a"], full=2)
    with pytest.raises(InputValueError, match="text 0: the lone surrogate"):
        write(encoder, path, ["\ud800"], full=0)
    weights = {name: array.copy() for name, array in encoder.weights.items()}
    weights["embeddings.LayerNorm.weight"] *= np.float32(1e30)
    overflowing = SentenceEncoder.from_weights(encoder.config, encoder.tokenizer, weights, backend="numpy")
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match="text 0: its vector is not finite"):
        write(overflowing, path, ["a"], full=1)
    with pytest.raises(InputValueError, match=r"compute_type: expected 'float32', .*, found 'int8': load the model"):
        write(SentenceEncoder.random(compute_type="int8"), path, ["a"])
    assert list(tmp_path.iterdir()) == []
