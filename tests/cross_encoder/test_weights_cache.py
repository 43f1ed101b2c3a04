"""The cache of packed weights has cross-encoders, too: the same bits with it and without it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from minilm_np import CrossEncoder
from minilm_np.encoding import pair_model
from minilm_np.engine import weights_cache
from minilm_np.model_files import checkpoint, manifest
from tests.support.compare import assert_same_bits
from tests.support.pair_models import PAIRS

NAME = "cross-encoder/tiny"

pytestmark = pytest.mark.filterwarnings("ignore::minilm_np.TruncationWarning")


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A small published model in an empty cache: the functions that read its weights, as they are called."""
    folder = tmp_path / "cache" / NAME
    CrossEncoder.random(num_labels=2, threads=1).save_pretrained(folder)
    contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    files = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "tiny.json").write_text(json.dumps({"name": NAME, "files": files}))
    monkeypatch.setattr(manifest, "MANIFEST_FOLDERS", (tmp_path / "manifests",))
    monkeypatch.setattr(weights_cache, "_SETTLED_NS", -1)  # so that a file of this moment may be noted
    monkeypatch.setenv("MINILM_NP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    called: list[str] = []

    def counted(name: str) -> Any:
        function = getattr(checkpoint, name)

        def call(*arguments: Any, **options: Any) -> Any:
            called.append(name)
            return function(*arguments, **options)

        return call

    for name in ("iter_checkpoint", "read_head"):
        monkeypatch.setattr(pair_model, name, counted(name))
    return called


@pytest.mark.parametrize("compute_type", ["float32", "int8"])
def test_a_cached_model_is_the_same_and_its_weights_are_not_read(
    reads: list[str], tmp_path: Path, compute_type: str
) -> None:
    plain = CrossEncoder(tmp_path / "cache" / NAME, compute_type=compute_type, threads=1)  # a folder is not verified
    reads.clear()
    first = CrossEncoder("tiny", compute_type=compute_type, threads=1)
    assert reads == ["iter_checkpoint", "read_head"]
    reads.clear()
    cached = CrossEncoder("tiny", compute_type=compute_type, threads=1)
    assert reads == []
    for model in (first, cached):
        assert_same_bits(model.predict(PAIRS), plain.predict(PAIRS))
        assert model.fingerprint() == plain.fingerprint()
        assert list(model.weights) == list(plain.weights)
        for name, array in plain.weights.items():
            assert_same_bits(model.weights[name], array)


def test_a_damaged_cache_is_not_used(reads: list[str], tmp_path: Path) -> None:
    expected = CrossEncoder("tiny", threads=1).predict(PAIRS)
    (path,) = (tmp_path / "cache" / weights_cache.FOLDER).glob("*.weights")
    content = bytearray(path.read_bytes())
    content[-99] ^= 1
    path.write_bytes(content)
    reads.clear()
    assert_same_bits(CrossEncoder("tiny", threads=1).predict(PAIRS), expected)
    assert reads == ["iter_checkpoint", "read_head"]
