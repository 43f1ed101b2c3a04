"""Folders of every family, as transformers writes them: config, names of tensors, refusals, saving."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np import CheckpointError, ConfigError, ModelConfig, SentenceEncoder, reference, reference_variants
from minilm_np.model_files.checkpoint import load_checkpoint, parameter_shapes, read_pooler
from minilm_np.model_files.config import ACTIVATIONS
from minilm_np.model_files.families import FAMILIES
from minilm_np.model_files.folder_config import load_config
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from tests.support.compare import assert_close, assert_same_bits
from tests.support.families import NAMES, Sizes, model_of, sizes, write

BOUND = 1e-12  # relative, in float64

families = pytest.mark.parametrize("family", NAMES)
others = pytest.mark.parametrize("family", NAMES[1:])


def hidden_states(model: Any, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        found = model(torch.from_numpy(ids), torch.from_numpy(mask).long()).last_hidden_state
    return np.asarray(found)


def test_the_families_are_those_that_are_tested() -> None:
    assert tuple(FAMILIES) == NAMES


# ---- the same numbers as transformers --------------------------------------------------------------------------------


@given(st.data(), st.sampled_from(NAMES), st.sampled_from(ACTIVATIONS), sizes(), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_folder_has_the_hidden_states_of_transformers(
    data: st.DataObject, family: str, activation: str, s: Sizes, seed: int
) -> None:
    """In float64, on padded batches in which texts may contain the padding token."""
    model = model_of(family, activation, s, seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = write(Path(temporary), model)
        config = load_config(folder)
        weights = load_checkpoint(folder, config)
    assert (config.model_type, config.hidden_act, config.max_tokens) == (family, activation, s.tokens)
    text = st.lists(st.integers(0, s.vocabulary - 1), min_size=1, max_size=s.tokens)
    texts = data.draw(st.lists(text, min_size=1, max_size=4))
    lengths = np.array([len(text) for text in texts])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, model.config.pad_token_id or 0)
    ids[mask] = np.concatenate(texts)
    nested = reference.nest(weights, np.float64)
    found = reference.encoder(ids, mask, None, nested, config)
    expected = hidden_states(model.double(), ids, mask)
    assert_close(found[mask], expected[mask], rel=BOUND)
    singly = np.concatenate([reference.encoder(np.array(text), None, None, nested, config) for text in texts])
    assert_close(singly, expected[mask], rel=BOUND)


def test_relative_buckets_are_those_of_transformers() -> None:
    distance = np.arange(-1200, 1201)
    bucket = transformers.models.mpnet.modeling_mpnet.MPNetEncoder.relative_position_bucket
    np.testing.assert_array_equal(
        reference_variants.relative_buckets(distance), bucket(torch.from_numpy(distance)).numpy()
    )


def test_long_texts_of_mpnet_have_the_hidden_states_of_transformers(tmp_path: Path) -> None:
    model = model_of("mpnet", "gelu", Sizes(tokens=300, hidden=8, heads=2), 3)
    config = load_config(write(tmp_path, model))
    ids = np.random.default_rng(4).integers(0, 150, (1, 300))
    mask = np.ones(ids.shape, bool)
    nested = reference.nest(load_checkpoint(tmp_path, config), np.float64)
    found = reference.encoder(ids, mask, None, nested, config)
    assert_close(found, hidden_states(model.double(), ids, mask), rel=BOUND)


# ---- files -----------------------------------------------------------------------------------------------------------


@families
def test_a_model_with_a_pretraining_head_is_its_encoder(tmp_path: Path, family: str) -> None:
    model = model_of(family, "gelu", Sizes(), 1, head="ForMaskedLM")
    folder = write(tmp_path, model)
    config = load_config(folder)
    ids = np.arange(2, 22)[None]
    mask = np.ones(ids.shape, bool)
    found = reference.encoder(ids, mask, None, reference.nest(load_checkpoint(folder, config), np.float64), config)
    assert_close(found, hidden_states(model.base_model.double(), ids, mask), rel=BOUND)


@families
def test_a_model_with_another_head_is_refused_by_name(tmp_path: Path, family: str) -> None:
    model = model_of(family, "gelu", Sizes(), 1, head="ForTokenClassification")
    with pytest.raises(ConfigError, match=rf'architectures \["{type(model).__name__}"\] is not implemented'):
        load_config(write(tmp_path, model))


@others
def test_the_weights_of_another_family_are_refused(tmp_path: Path, family: str) -> None:
    folder = write(tmp_path, model_of(family, "gelu", Sizes(), 1))
    config = ModelConfig(
        vocab_size=150, max_position_embeddings=40, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=40, max_seq_length=40,
    )  # fmt: skip
    with pytest.raises(CheckpointError, match=r"expected shape|is missing"):
        load_checkpoint(folder, config)


REFUSALS: list[tuple[str, dict[str, Any], str]] = [
    ("mpnet", {"relative_attention_num_buckets": 16}, "relative_attention_num_buckets: expected 32 in .* found 16"),
    ("roberta", {"pad_token_id": None}, "padding_idx: expected a token id .* found null"),
    ("xlm-roberta", {"pad_token_id": -1}, "padding_idx: expected a token id .* found -1"),
    ("roberta", {"pad_token_id": 150}, "padding_idx: expected a token id .* found 150"),
    ("roberta", {"max_position_embeddings": 3}, r"expected at least 4 \(\[CLS\] and \[SEP\]\), found 3"),
    ("roberta", {"position_embedding_type": "relative_key"}, "position_embedding_type .* is not implemented"),
    ("distilbert", {"activation": "quick_gelu"}, 'hidden_act "quick_gelu" is not implemented: expected one of'),
    ("mpnet", {"hidden_act": "gelu_fast"}, 'hidden_act "gelu_fast" is not implemented: expected one of'),
]


@pytest.mark.parametrize(("family", "changes", "message"), REFUSALS)
def test_what_is_not_implemented_is_refused(tmp_path: Path, family: str, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path, model_of(family, "gelu", Sizes(), 1)) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ConfigError, match=rf"config\.json: .*{message}"):
        load_config(tmp_path)


@pytest.mark.parametrize("key", ["dim", "n_layers", "n_heads", "hidden_dim"])
def test_a_missing_key_has_the_name_of_the_file(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, model_of("distilbert", "gelu", Sizes(), 1)) / "config.json"
    values = json.loads(path.read_text())
    del values[key]
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=rf"config\.json: {key} is missing"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "gpt2"}, 'model_type "gpt2" is not implemented: expected one of'),
        ({"model_type": "distilbert"}, "type_vocab_size: expected 0 in a model of type 'distilbert', found 2"),
        ({"model_type": "roberta"}, "padding_idx: expected a token id in a model of type 'roberta', found null"),
        ({"padding_idx": 1}, "padding_idx: expected null in a model of type 'bert', found 1"),
        ({"relative_attention_num_buckets": 32}, "expected 0 in a model of type 'bert', found 32"),
        ({"type_vocab_size": 0}, "type_vocab_size: expected an integer from 1"),
        (
            {"model_type": "roberta", "padding_idx": 1, "max_seq_length": 511},
            r"from 2 \(.*\) to 510 \(max_position_embeddings - padding_idx - 1\), found 511",
        ),
    ],
)
def test_a_config_that_no_model_has_is_an_error(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**values)


# ---- saving ----------------------------------------------------------------------------------------------------------


def random_config(family: str, activation: str = "gelu") -> ModelConfig:
    changes: dict[str, Any] = {"model_type": family, "hidden_act": activation}
    if family in ("distilbert", "mpnet"):
        changes["type_vocab_size"] = 0
    if family in ("roberta", "xlm-roberta", "mpnet"):
        changes["padding_idx"] = 1
    if family == "mpnet":
        changes["relative_attention_num_buckets"] = 32
    return ModelConfig(
        vocab_size=len(CHARACTER_VOCABULARY), max_position_embeddings=66, hidden_size=24, num_hidden_layers=2,
        num_attention_heads=3, intermediate_size=40, max_seq_length=60, **changes,
    )  # fmt: skip


@families
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_saved_model_loads_here_and_in_transformers(tmp_path: Path, family: str, activation: str) -> None:
    encoder = SentenceEncoder.random(random_config(family, activation), 3, backend="numpy")
    encoder.save_pretrained(tmp_path / "model")
    again = SentenceEncoder(tmp_path / "model", backend="numpy")
    assert again.config == encoder.config
    for name, array in encoder.weights.items():
        assert_same_bits(again.weights[name], array, name)
    model, report = transformers.AutoModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert all("pooler" in name for name in report["missing_keys"]) and not report["unexpected_keys"]
    ids = np.array(encoder.tokenizer(["some text"]).ids)
    found = reference.encoder(ids, None, None, reference.nest(encoder.weights, np.float64), encoder.config)
    assert_close(found, hidden_states(model.double().eval(), ids, np.ones(ids.shape, bool)), rel=BOUND)


@pytest.mark.parametrize("family", ["roberta", "mpnet"])
def test_the_pooler_is_saved_again(tmp_path: Path, family: str) -> None:
    folder = write(tmp_path, model_of(family, "gelu", Sizes(), 1))
    config = load_config(folder)
    pooler = read_pooler(folder, config)
    assert list(pooler) == ["pooler.dense.weight", "pooler.dense.bias"]


def test_a_shorter_limit_keeps_the_family() -> None:
    encoder = SentenceEncoder.random(random_config("mpnet"), backend="numpy")
    encoder.max_seq_length = 64
    assert encoder.config == replace(random_config("mpnet"), max_seq_length=64)
    with pytest.raises(ValueError, match="max_seq_length: expected an int from 2 to 64"):
        encoder.max_seq_length = 65
    assert list(parameter_shapes(encoder.config))[4] == "encoder.relative_attention_bias.weight"
