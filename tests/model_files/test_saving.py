"""Saved folders load in sentence-transformers and in this package, with the same vectors; none is half-written."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minilm_np import HubError, InputValueError, ModelConfig, SaveError, SentenceEncoder, _files
from minilm_np.engine.registry import BACKENDS
from minilm_np.model_files.config import POOLING_MODES
from minilm_np.model_files.manifest import matches_manifest
from minilm_np.model_files.saving import WRITTEN
from tests.conftest import load_sentence_transformer
from tests.support.compare import assert_close, assert_same_bits
from tests.support.disks import FILLING, fill
from tests.test_family import E5, Shape, write_folder

TEXTS = ["a text", "", "Ünïcödé, RÉSUMÉ: 東京 [SEP]", "one that goes on beyond 24 tokens"]
BOUND = 5e-7


def assert_saved_alike(encoder: SentenceEncoder, folder: Path) -> Any:
    """Save a model, load it in both libraries, compare; returns sentence-transformers' model."""
    encoder.save_pretrained(folder)
    loaded, model = SentenceEncoder(folder, backend=encoder.backend), load_sentence_transformer(folder)
    assert loaded.config == encoder.config
    expected = encoder.encode(TEXTS, on_truncation="ignore")
    assert_same_bits(loaded.encode(TEXTS, on_truncation="ignore"), expected)
    assert_close(model.encode(TEXTS), expected, rel=2e-6)
    for name in ("prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim", "max_seq_length"):
        assert getattr(loaded, name) == getattr(model, name) == getattr(encoder, name), name
    return model


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_random_model_is_saved(backend: str, tmp_path: Path) -> None:
    encoder = SentenceEncoder.random(backend=backend)
    encoder.max_seq_length = 24
    assert_saved_alike(encoder, tmp_path / "not" / "there" / "yet")


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling_mode", POOLING_MODES)
def test_every_kind_of_model_is_saved(pooling_mode: str, normalize: bool, tmp_path: Path) -> None:
    config = ModelConfig(
        vocab_size=200, max_position_embeddings=40, type_vocab_size=1, hidden_size=48, num_hidden_layers=2,
        num_attention_heads=3, intermediate_size=100, layer_norm_eps=1e-5, max_seq_length=24,
        pooling_mode=pooling_mode, normalize=normalize, do_lower_case=True,
    )  # fmt: skip
    encoder = SentenceEncoder.random(config, backend="numpy")
    encoder.prompts["query"] = "query: "
    encoder.default_prompt_name, encoder.similarity_fn_name, encoder.truncate_dim = "query", "manhattan", 7
    assert_saved_alike(encoder, tmp_path / "model")


@pytest.mark.weights
def test_the_published_model_is_saved(model_folder: Path, tmp_path: Path) -> None:
    encoder = SentenceEncoder(model_folder)
    model = assert_saved_alike(encoder, tmp_path / "model")
    saved = SentenceEncoder(tmp_path / "model")
    assert saved.fingerprint() == encoder.fingerprint()
    assert matches_manifest(tmp_path / "model") is None  # the same model, in other files
    texts = ["a", "İstanbul ǅ", "word " * 300]
    assert [ids[ids != 0].tolist() for ids in model.tokenize(texts)["input_ids"]] == saved.tokenizer(texts).ids


def test_a_folder_of_sentence_transformers_goes_there_and_back(tmp_path: Path) -> None:
    write_folder(tmp_path, Shape(prompts=E5, default_prompt_name="passage", similarity="dot"))
    assert_saved_alike(SentenceEncoder(tmp_path / "model"), tmp_path / "again")


def test_a_cased_tokenizer_stays_as_it_is(tmp_path: Path) -> None:
    write_folder(tmp_path, Shape())
    options = tmp_path / "model" / "tokenizer_config.json"
    changed = json.loads(options.read_text()) | {"do_lower_case": False, "strip_accents": True}
    options.write_text(json.dumps(changed))
    encoder = SentenceEncoder(tmp_path / "model")
    assert encoder.tokenizer(["É"]).ids != encoder.tokenizer(["é"]).ids == encoder.tokenizer(["e"]).ids
    assert_saved_alike(encoder, tmp_path / "again")


def test_the_rights_are_the_umasks(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        SentenceEncoder.random(backend="numpy").save_pretrained(tmp_path / "model")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in [tmp_path / "model", *(tmp_path / "model").iterdir()]}
    assert set(modes) == {"model", *WRITTEN} - {"2_Dense", "3_Normalize"}  # those of a model with a Dense module
    assert {name: mode for name, mode in modes.items() if mode != (0o640 if "." in name else 0o750)} == {}


# ---- the pooler, which no sentence vector depends on -----------------------------------------------------------------


def test_the_pooler_of_a_folder_is_saved_again_and_transformers_misses_nothing(tmp_path: Path) -> None:
    write_folder(tmp_path, Shape())
    source = load_file(tmp_path / "model" / "model.safetensors")
    encoder = pickle.loads(pickle.dumps(SentenceEncoder(tmp_path / "model", backend="numpy")))
    encoder.save_pretrained(tmp_path / "again")
    saved = load_file(tmp_path / "again" / "model.safetensors")
    names = {"pooler.dense.weight", "pooler.dense.bias"}
    assert names <= source.keys() and names <= saved.keys()
    for name in names:
        assert_same_bits(saved[name], source[name])
    from transformers import AutoModel

    _, report = AutoModel.from_pretrained(tmp_path / "again", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]


def test_a_model_without_a_pooler_is_saved_without_one(tmp_path: Path) -> None:
    SentenceEncoder.random(backend="numpy").save_pretrained(tmp_path / "model")
    assert not [name for name in load_file(tmp_path / "model" / "model.safetensors") if "pooler" in name]


def test_a_broken_pooler_does_not_stop_a_model_from_loading(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path, Shape())
    path = tmp_path / "model" / "model.safetensors"
    stored = load_file(path)
    expected = SentenceEncoder(tmp_path / "model", backend="numpy").encode("a")
    save_file(stored | {"pooler.dense.bias": np.full_like(stored["pooler.dense.bias"], np.nan)}, path)
    encoder = SentenceEncoder(tmp_path / "model", backend="numpy")
    assert_same_bits(encoder.encode("a"), expected)
    assert "the pooler is not loaded, and will not be saved with this model: " in caplog.text
    assert encoder.model.pooler == {}


# ---- what is there already -------------------------------------------------------------------------------------------


def test_a_saved_model_is_replaced_whole(tmp_path: Path) -> None:
    first, second = (SentenceEncoder.random(seed=seed, backend="numpy") for seed in (1, 2))
    (tmp_path / "model").mkdir()
    for encoder in (first, second):
        encoder.save(str(tmp_path / "model"))
    assert_same_bits(SentenceEncoder(tmp_path / "model", backend="numpy").encode("a"), second.encode("a"))
    assert os.listdir(tmp_path) == ["model"]


def test_what_is_no_saved_model_is_left_alone(tmp_path: Path) -> None:
    encoder = SentenceEncoder.random(backend="numpy")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(
        SaveError, match=r"expected a new or empty folder, or one with a model saved by this package, found notes\.txt"
    ):
        encoder.save_pretrained(tmp_path)
    with pytest.raises(SaveError, match=r"notes\.txt: .* found a file"):
        encoder.save_pretrained(tmp_path / "notes.txt")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    with pytest.raises(SaveError, match=r"mine: .* found config\.json"):
        encoder.save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "config.json").read_text() == "{}"
    assert sorted(os.listdir(tmp_path)) == ["mine", "notes.txt"]


def test_pickled_weights_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputValueError, match="safe_serialization: expected True"):
        SentenceEncoder.random(backend="numpy").save_pretrained(tmp_path, safe_serialization=False)


@pytest.mark.parametrize(
    ("failure", "raised", "message"),
    [
        (
            OSError(28, "No space left on device"),
            SaveError,
            "model: the model cannot be saved: No space left on device",
        ),
        (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
    ],
    ids=["a full disk", "Ctrl-C"],
)
def test_a_failure_leaves_what_was_there(
    failure: BaseException, raised: type, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (SentenceEncoder.random(seed=seed, backend="numpy") for seed in (1, 2))
    first.save_pretrained(tmp_path / "model")
    whole = Path.rename

    def fails(source: Path, target: Path) -> Path:
        if source.name == "new":
            raise failure
        return whole(source, target)

    def fails_to_exchange(first: Path, second: Path) -> bool:
        raise failure

    for way in ("exchanged", "renamed twice"):
        monkeypatch.setattr(_files, "_exchange", fails_to_exchange if way == "exchanged" else lambda *_: False)
        monkeypatch.setattr(Path, "rename", fails)
        with pytest.raises(raised, match=message):
            second.save_pretrained(tmp_path / "model")
        assert_same_bits(SentenceEncoder(tmp_path / "model", backend="numpy").encode("a"), first.encode("a"))
        assert os.listdir(tmp_path) == ["model"]


def test_the_current_directory_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (SentenceEncoder.random(seed=seed, backend="numpy") for seed in (1, 2))
    (tmp_path / "empty").mkdir()
    first.save_pretrained(tmp_path / "model")
    (tmp_path / "link").symlink_to("model")
    places: list[tuple[str, str | Path]] = [
        ("empty", "."),
        ("model", "."),
        ("model", tmp_path / "link"),
        ("model/1_Pooling", ".."),
    ]
    for folder, path in places:
        monkeypatch.chdir(tmp_path / folder)
        with pytest.raises(SaveError, match="a folder that can be replaced, found the current directory: save"):
            second.save_pretrained(path)
        assert os.getcwd() == str(tmp_path / folder)
    assert sorted(os.listdir(tmp_path)) == ["empty", "link", "model"] and os.listdir(tmp_path / "empty") == []
    assert_same_bits(SentenceEncoder(tmp_path / "model", backend="numpy").encode("a"), first.encode("a"))
    monkeypatch.chdir(tmp_path / "empty")
    second.save_pretrained("model")  # as the message says
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    second.save_pretrained(tmp_path / "empty" / "model")  # which needs no current directory


def test_a_mount_point_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path / "model")
    with pytest.raises(SaveError, match=r"found a mount point: save to another folder, such as .*/model/model$"):
        SentenceEncoder.random(backend="numpy").save_pretrained(tmp_path / "model")


@pytest.mark.parametrize("there", ["empty", "model", "nothing"])
def test_a_link_stays_a_link(there: str, tmp_path: Path) -> None:
    first, second = (SentenceEncoder.random(seed=seed, backend="numpy") for seed in (1, 2))
    (tmp_path / "link").symlink_to("elsewhere/real")
    if there == "empty":
        (tmp_path / "elsewhere" / "real").mkdir(parents=True)
    if there == "model":
        first.save_pretrained(tmp_path / "elsewhere" / "real")
    second.save_pretrained(tmp_path / "link")
    assert os.readlink(tmp_path / "link") == "elsewhere/real"
    found = SentenceEncoder(tmp_path / "elsewhere" / "real", backend="numpy")
    assert_same_bits(found.encode("a"), second.encode("a"))
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "link"] and os.listdir(tmp_path / "elsewhere") == ["real"]


def test_a_folder_keeps_its_rights_and_owner(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    folder.chmod(0o700)
    owner = (1234, 2345) if os.getuid() == 0 else (os.getuid(), os.getgid())
    os.chown(folder, *owner)
    for _ in range(2):  # an empty one, and a model's
        SentenceEncoder.random(backend="numpy").save_pretrained(folder)
        found = folder.stat()
        assert (found.st_mode & 0o7777, (found.st_uid, found.st_gid)) == (0o700, owner)


# ---- killed processes, full disks ------------------------------------------------------------------------------------

KILLED = """
import os, sys
from pathlib import Path
from minilm_np import SentenceEncoder, _files
from minilm_np.model_files import saving
path, at = sys.argv[1:]
if at == "the weights":
    saving.write_checkpoint = lambda path, weights: os._exit(9)
elif at == "the end":
    remove = _files.shutil.rmtree
    _files.shutil.rmtree = lambda at, **_: os._exit(9) if ".model.saving-" in Path(at).name else remove(at)
else:
    _files._exchange = lambda first, second: False
    rename = Path.rename
    Path.rename = lambda source, target: os._exit(9) if source.name == "new" else rename(source, target)
SentenceEncoder.random(seed=2, backend="numpy").save_pretrained(path)
"""


@pytest.mark.parametrize("at", ["the weights", "between two renames", "the end"])
def test_a_killed_save_leaves_one_of_the_two_models_and_the_next_save_removes_the_rest(at: str, tmp_path: Path) -> None:
    path, place = tmp_path / "model", [sys.executable, "-c", KILLED, str(tmp_path / "model"), at]
    first, second = (SentenceEncoder.random(seed=seed, backend="numpy") for seed in (1, 2))
    first.save_pretrained(path)
    assert subprocess.run(place, check=False).returncode == 9
    assert len(list(tmp_path.glob(".model.saving-*"))) == 1
    if at == "between two renames":
        with pytest.raises(
            HubError, match="a process was killed while it replaced the model: the previous model is"
        ) as e:
            SentenceEncoder(path, backend="numpy")
        (old,) = tmp_path.glob(".model.saving-*/old")
        assert f"{old}: rename it to {path}, or save the model again" in str(e.value)
        assert_same_bits(SentenceEncoder(old, backend="numpy").encode("a"), first.encode("a"))
    else:
        expected = first if at == "the weights" else second
        assert_same_bits(SentenceEncoder(path, backend="numpy").encode("a"), expected.encode("a"))
    second.save_pretrained(path)
    assert_same_bits(SentenceEncoder(path, backend="numpy").encode("a"), second.encode("a"))
    assert os.listdir(tmp_path) == ["model"]


def test_a_full_disk_is_an_error_that_names_the_folder_and_leaves_the_old_model(small_disk: Path) -> None:
    first, second = (SentenceEncoder.random(seed=seed, backend="numpy") for seed in (1, 2))
    first.save_pretrained(small_disk / "model")
    fill(small_disk, leave=300_000)
    with pytest.raises(SaveError, match=r"/model: the model cannot be saved: No space left on device$"):
        second.save_pretrained(small_disk / "model")
    assert_same_bits(SentenceEncoder(small_disk / "model", backend="numpy").encode("a"), first.encode("a"))
    assert sorted(os.listdir(small_disk)) == [FILLING, "model"]
