"""folder_config.py: folders of every release load alike, and unknown keys are a warning."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import ConfigError, ModelConfig, SentenceEncoder
from minilm_np.model_files.checkpoint import load_checkpoint
from minilm_np.model_files.config import POOLING_MODES
from minilm_np.model_files.folder_config import load_config
from tests.support.checkpoint_files import WORD
from tests.support.config_folders import (
    BERT,
    CONFIG,
    FLAGS,
    MEAN,
    MODULES,
    NORMALIZE,
    POOLING,
    PROMPTS,
    SENTENCE,
    SMALL,
    TOKENIZER,
    bert,
    modules,
    write,
)

# ---- folders of every release ----------------------------------------------------------------------------------------


@pytest.mark.weights
def test_the_published_folder_has_the_default_config(model_folder: Path) -> None:
    assert load_config(model_folder) == ModelConfig()
    assert ModelConfig().head_size == 32


def test_a_folder_of_sentence_transformers_2_loads(tmp_path: Path) -> None:
    assert load_config(write(tmp_path)) == SMALL


def test_a_folder_of_sentence_transformers_5_loads_alike(tmp_path: Path) -> None:
    flags = {"pooling_mode_weightedmean_tokens": False, "pooling_mode_lasttoken": False, "include_prompt": True}
    prompts = {"prompts": {"query": "", "document": ""}, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    transformers = {"dtype": "float32", "transformers_version": "4.56.1", "classifier_dropout": None, "use_cache": True}
    folder = write(tmp_path, {POOLING: MEAN | flags, PROMPTS: prompts, CONFIG: BERT | transformers})
    assert load_config(folder) == SMALL


def test_a_folder_of_the_installed_sentence_transformers_loads_alike(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer
        from sentence_transformers import models as st_models  # type: ignore[attr-defined]
        from transformers import BertConfig, BertModel, BertTokenizerFast  # type: ignore[attr-defined]

        vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(95))]
        (tmp_path / "vocab.txt").write_text("\n".join(vocab))
        BertModel(BertConfig(**BERT)).save_pretrained(tmp_path / "bert")
        BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
        transformer = st_models.Transformer(str(tmp_path / "bert"), max_seq_length=128)
        parts = [transformer, st_models.Pooling(32, "mean"), st_models.Normalize()]
        SentenceTransformer(modules=parts, device="cpu").save(str(tmp_path / "saved"))
    assert load_config(tmp_path / "saved") == SMALL


def test_the_transformer_may_lie_in_a_subfolder(tmp_path: Path) -> None:
    in_subfolder = modules("Pooling", "Normalize")
    in_subfolder[0]["path"] = "0_Transformer"
    changes = {CONFIG: None, SENTENCE: None, MODULES: in_subfolder, f"0_Transformer/{CONFIG}": BERT}
    config = load_config(write(tmp_path, changes | {f"0_Transformer/{SENTENCE}": {"max_seq_length": 77}}))
    assert config.transformer_path == "0_Transformer"
    assert config.max_seq_length == 77


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_a_pooling_mode_is_read_in_each_spelling(tmp_path: Path, mode: str) -> None:
    flags = {flag: flag == FLAGS[mode] for flag in FLAGS.values()} | {"word_embedding_dimension": 32}
    word = {"embedding_dimension": 32, "pooling_mode": mode, "include_prompt": True}
    listed = word | {"pooling_mode": [mode]}
    for number, values in enumerate((flags, word, listed)):
        assert load_config(write(tmp_path / str(number), {POOLING: values})).pooling_mode == mode


def test_a_named_mode_overrides_the_flags(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, {POOLING: MEAN | {"pooling_mode": "cls"}})).pooling_mode == "cls"


def test_no_flag_at_all_means_mean_pooling(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, {POOLING: {"word_embedding_dimension": 32}})).pooling_mode == "mean"


def test_normalize_is_read_from_the_modules(tmp_path: Path) -> None:
    assert load_config(write(tmp_path / "with")).normalize
    assert not load_config(write(tmp_path / "without", {MODULES: modules("Pooling")})).normalize


def test_normalize_may_name_its_input_and_output(tmp_path: Path) -> None:
    said = {"module_input_name": "sentence_embedding", "module_output_name": None}
    assert load_config(write(tmp_path, {NORMALIZE: said})).normalize


def test_left_out_values_are_those_of_bert(tmp_path: Path) -> None:
    left_out = {"type_vocab_size", "layer_norm_eps", "hidden_act"}
    short = {key: value for key, value in BERT.items() if key not in left_out}
    assert load_config(write(tmp_path, {CONFIG: short})) == SMALL


def test_without_modules_mean_pooling_is_assumed_with_a_warning(tmp_path: Path) -> None:
    write(tmp_path, {MODULES: None, POOLING: None})
    with pytest.warns(UserWarning, match=r"has no modules\.json: assuming mean pooling without normalisation"):
        config = load_config(tmp_path)
    assert config.pooling_mode == "mean"
    assert not config.normalize


def test_a_warning_points_at_the_caller_of_the_package(tmp_path: Path) -> None:
    SentenceEncoder.random(backend="numpy").save_pretrained(tmp_path / "model")
    (tmp_path / "model" / MODULES).unlink()
    (tmp_path / "model" / SENTENCE).write_text('{"stemming": true}')
    with pytest.warns(UserWarning, match=r"no modules\.json|'stemming'") as caught:
        SentenceEncoder(tmp_path / "model", backend="numpy")
    assert [warning.filename for warning in caught] == [__file__] * 2


# ---- where a text is cut ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sentence", "tokenizer", "expected"),
    [
        pytest.param({"max_seq_length": 128}, {"model_max_length": 64}, 128, id="the sentence config goes first"),
        pytest.param({"max_seq_length": 256}, None, 256, id="256"),
        pytest.param({"max_seq_length": 256.0}, None, 256, id="a whole float"),
        pytest.param({"max_seq_length": 9999}, None, 512, id="the sentence config beyond the positions"),
        pytest.param({"max_seq_length": None}, {"model_max_length": 256}, 256, id="null asks the tokenizer"),
        pytest.param({}, {"model_max_length": 256, "max_length": 128}, 256, id="max_length misleads"),
        pytest.param({}, {"max_length": 128}, 512, id="max_length alone misleads too"),
        pytest.param(None, {"model_max_length": 512}, 512, id="no sentence config"),
        pytest.param(None, {"model_max_length": 1e30}, 512, id="no limit as a float"),
        pytest.param(None, {"model_max_length": int(1e30)}, 512, id="no limit as an integer"),
        pytest.param(None, {"model_max_length": 10**400}, 512, id="an integer beyond every float"),
        pytest.param(None, {"model_max_length": None}, 512, id="null is no limit"),
        pytest.param(None, None, 512, id="no limit anywhere"),
    ],
)
def test_the_limit_is_found_in_order(tmp_path: Path, sentence: Any, tokenizer: Any, expected: int) -> None:
    assert load_config(write(tmp_path, {SENTENCE: sentence, TOKENIZER: tokenizer})).max_seq_length == expected


def test_do_lower_case_is_read(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, {SENTENCE: {"do_lower_case": True}})).do_lower_case


# ---- the class that wrote the folder ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "implemented"),
    [
        *(("BertModel", True), ("BertForPreTraining", True), ("BertForMaskedLM", True)),
        *(("BertForNextSentencePrediction", True), ("BertForSequenceClassification", False)),
        *(("BertForTokenClassification", False), ("BertForQuestionAnswering", False)),
        ("BertForMultipleChoice", False),
    ],
)
def test_only_models_of_sentence_vectors_load(tmp_path: Path, name: str, implemented: bool) -> None:
    """The classes of transformers, as they write themselves: those with a head for another task are refused by name."""
    import transformers

    config = transformers.BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    model = getattr(transformers, name)(config)
    model.save_pretrained(tmp_path)
    more: dict[str, Any] = {CONFIG: None, MODULES: modules("Pooling"), POOLING: {}, SENTENCE: None}
    write(tmp_path, more)  # otherwise there would be a warning, too
    if not implemented:
        with pytest.raises(
            ConfigError, match=rf'config\.json: architectures \["{name}"\]( is not implemented|: .*CrossEncoder)'
        ):
            load_config(tmp_path)
        return
    found = load_config(tmp_path)
    encoder = getattr(model, "bert", model)
    weights = load_checkpoint(tmp_path, found)
    assert np.array_equal(weights[WORD], encoder.embeddings.word_embeddings.weight.detach().numpy())


# ---- keys that are not known -----------------------------------------------------------------------------------------


def test_unknown_keys_are_named_in_a_warning(tmp_path: Path) -> None:
    folder = write(tmp_path, {CONFIG: bert(rotary=True, alibi=1), SENTENCE: {"max_seq_length": 128, "stemming": True}})
    with pytest.warns(UserWarning, match="unknown keys") as caught:
        assert load_config(folder) == SMALL
    assert [str(warning.message) for warning in caught] == [
        f"{folder / CONFIG}: unknown keys are ignored: 'alibi', 'rotary'",
        f"{folder / SENTENCE}: unknown keys are ignored: 'stemming'",
    ]


_OLD: dict[str, Any] = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "pad_token_id": 0,
}
_OLD |= {"architectures": ["BertModel"], "hidden_act": "gelu", "layer_norm_eps": 1e-12, "model_type": "bert"}
_OLD |= {"max_position_embeddings": 512, "type_vocab_size": 2, "vocab_size": 30522, "hidden_size": 384}
_OLD |= {"num_attention_heads": 12, "intermediate_size": 1536, "position_embedding_type": "absolute", "use_cache": True}
_MICROSOFT = {"gradient_checkpointing": False, "_name_or_path": "nreimers/MiniLM-L6-H384-uncased"}
REAL: dict[str, dict[str, Any]] = {
    "bge-small-en-v1.5": _OLD
    | {"_name_or_path": "/root/.cache/torch/x/BAAI_bge-small-en/", "classifier_dropout": None, "num_hidden_layers": 12}
    | {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "torch_dtype": "float32"}
    | {"transformers_version": "4.30.0"},
    "e5-small-v2": _OLD
    | {"_name_or_path": "tmp/", "classifier_dropout": None, "num_hidden_layers": 12, "torch_dtype": "float32"}
    | {"transformers_version": "4.29.0.dev0", "tokenizer_class": "BertTokenizer"},
    "gte-small": _OLD | {"classifier_dropout": None, "num_hidden_layers": 12, "torch_dtype": "float16"},
    "snowflake-arctic-embed-s": _OLD
    | {"_name_or_path": "intfloat/e5-small-unsupervised", "classifier_dropout": None, "num_hidden_layers": 12}
    | {"torch_dtype": "float32", "transformers_version": "4.36.1", "tokenizer_class": "BertTokenizer"},
    "multi-qa-MiniLM-L6-cos-v1": _OLD | _MICROSOFT | {"num_hidden_layers": 6, "transformers_version": "4.8.2"},
    "paraphrase-MiniLM-L3-v2": _OLD
    | {"_name_or_path": "old_models/paraphrase-MiniLM-L3-v2/0_Transformer", "gradient_checkpointing": False}
    | {"num_hidden_layers": 3, "transformers_version": "4.7.0"},
    "bert-base-uncased": _OLD
    | {"architectures": ["BertForMaskedLM"], "gradient_checkpointing": False, "hidden_size": 768}
    | {"intermediate_size": 3072, "num_hidden_layers": 12, "transformers_version": "4.6.0.dev0"},
    "bert-base-multilingual": _OLD
    | {"directionality": "bidi", "pooler_fc_size": 768, "pooler_num_attention_heads": 12, "pooler_num_fc_layers": 3}
    | {"pooler_size_per_head": 128, "pooler_type": "first_token_transform", "num_hidden_layers": 12},
}


@pytest.mark.parametrize("name", REAL)
def test_the_family_s_own_configs_load_without_a_warning(tmp_path: Path, name: str) -> None:
    values = REAL[name]
    config = load_config(write(tmp_path, {CONFIG: values, POOLING: {"pooling_mode_cls_token": True}}))
    assert config.num_hidden_layers == values["num_hidden_layers"]
    assert config.hidden_size == values["hidden_size"]
    assert config.pooling_mode == "cls"
