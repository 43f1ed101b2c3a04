"""What `read` and `check` refuse: broken files, and files of other models."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import InputValueError, ModelConfig, SentenceEncoder
from minilm_np.verify.conformance import check, write
from minilm_np.verify.conformance_file import read
from tests.support.conformance_port import TEXTS, changed, set_first


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder.random(seed=3, backend="numpy")


@pytest.fixture(scope="module")
def file(encoder: SentenceEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("conformance") / "file.safetensors"
    write(encoder, path, TEXTS)
    return path


REFUSALS: list[tuple[str, Callable[[dict[str, np.ndarray], Any], object], str]] = [
    ("format", lambda arrays, manifest: manifest.update(format="minilm_np conformance 1"), "expected the format"),
    ("no texts", lambda arrays, manifest: manifest.pop("texts"), "manifest: KeyError: 'texts'"),
    ("a number as text", lambda arrays, manifest: manifest["texts"][0].update(text=3), "a text, a tolerance or a"),
    ("tolerance", lambda arrays, manifest: manifest["tolerance"].update(float32=-1), "a text, a tolerance or a digest"),
    ("endless", lambda arrays, manifest: manifest["tolerance"].update(float64=math.inf), "a text, a tolerance or a"),
    ("config", lambda arrays, manifest: manifest["model"]["config"].update(hidden_size=0), "hidden_size: expected an"),
    ("missing", lambda arrays, manifest: arrays.pop("vectors.float64"), "'vectors.float64': expected .*, found none"),
    ("more", lambda arrays, manifest: arrays.update(x=np.zeros(1)), "tensor 'x': expected none, found"),
    (
        "dtype",
        lambda arrays, manifest: arrays.update({"texts.3.ids": np.zeros(3)}),
        r"'texts.3.ids': expected \('int64'",
    ),
    ("shape", lambda arrays, manifest: arrays.update({"vectors.float64": np.zeros((6, 9))}), r"found .*\(6, 9\)"),
    ("an id", lambda arrays, manifest: set_first(arrays["texts.0.ids"], 10**6), "expected token ids from 0 to"),
    ("NaN", lambda arrays, manifest: set_first(arrays["vectors.float64"], math.nan), "expected finite values"),
    (
        "letters",
        lambda arrays, manifest: manifest["intermediates"][0].update(dimensions="Q"),
        "manifest: KeyError: 'Q'",
    ),
    ("no names", lambda arrays, manifest: manifest.update(intermediates=3), "manifest: TypeError: 'int' object is not"),
    ("no lines", lambda arrays, manifest: manifest.pop("tokenizer_lines"), "manifest: KeyError: 'tokenizer_lines'"),
    (
        "a line",
        lambda arrays, manifest: manifest["tokenizer_lines"].pop(),
        "'tokenizer_lines.offsets': expected .*2000",
    ),
    (
        "offsets",
        lambda arrays, manifest: set_first(arrays["tokenizer_lines.offsets"], 1),
        "expected rising numbers from 0",
    ),
    ("long", lambda arrays, manifest: arrays.update({"texts.0.ids": np.zeros(999, int)}), "text 0 has 999 tokens"),
]


@pytest.mark.parametrize(("change", "message"), [pytest.param(*rest, id=name) for name, *rest in REFUSALS])
def test_a_broken_file_is_refused(encoder: SentenceEncoder, file: Path, change: Any, message: str) -> None:
    path = changed(file, change)
    with pytest.raises(InputValueError, match=message) as refusal:
        check(encoder, path)
    assert str(path) in str(refusal.value)


def test_another_model_is_refused(file: Path) -> None:
    with pytest.raises(
        InputValueError, match=r"file.safetensors is for other weights, those of random weights: expected"
    ):
        check(SentenceEncoder.random(seed=4, backend="numpy"), file)
    small = ModelConfig(**{**vars(SentenceEncoder.random().config), "max_seq_length": 20})
    with pytest.raises(InputValueError, match=r"is for another model.*: expected max_seq_length 128, found 20"):
        check(SentenceEncoder.random(small, seed=3, backend="numpy"), file)


def test_a_manifest_of_many_tensors_ends_at_the_first_that_is_missing(file: Path) -> None:
    """10,000 texts with 10,000 intermediates each: 200 million names, if they were all listed."""

    def many(arrays: dict[str, np.ndarray], manifest: Any) -> None:
        manifest["texts"] = [manifest["texts"][0]] * 10_000
        manifest["intermediates"] += [{"name": f"more.{i}", "dimensions": "T D"} for i in range(10_000)]

    with pytest.raises(InputValueError, match=r"tensor 'vectors\.float64': expected .*10000, .*found"):
        read(changed(file, many))
