"""folder_config.py refuses by name what is not implemented, and no JSON breaks it."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np import ConfigError, ModelConfig
from minilm_np.model_files.folder_config import load_config
from tests.support.config_folders import (
    BERT,
    CONFIG,
    FLAGS,
    MEAN,
    MODULES,
    NORMALIZE,
    POOLING,
    SENTENCE,
    TOKENIZER,
    at,
    bert,
    modules,
    write,
)


def refused(name: str, file: str, change: Any, message: str) -> Any:
    return pytest.param(file, change, message, id=name)


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in BERT.items() if name != key}


DEEP = b"[" * 100_000 + b"]" * 100_000
ONE_TO_2_31 = "expected an integer from 1 to 2\\*\\*31 - 1, found "
HEAD = (
    r"architectures \[.*\] is not implemented: expected BertModel, BertFor.*: to use the encoder without its head, save"
)
REFUSALS = [
    # the encoder
    refused("another model", CONFIG, bert(model_type="gpt2"), 'model_type "gpt2" is not .* expected one of .bert.'),
    refused("no model_type", CONFIG, without("model_type"), "model_type is missing"),
    refused(
        "selu", CONFIG, bert(hidden_act="selu"), 'hidden_act "selu" is not implemented: expected one of .gelu., .g'
    ),
    refused("swish", CONFIG, bert(hidden_act=["gelu"]), r'hidden_act \["gelu"\] is not implemented'),
    refused(
        "relative positions",
        CONFIG,
        bert(position_embedding_type="relative_key_query"),
        'position_embedding_type "relative_key_query" is not implemented: expected "absolute"',
    ),
    refused("a decoder", CONFIG, bert(is_decoder=True), "is_decoder true is not implemented: expected false"),
    refused("0 as a bool", CONFIG, bert(is_decoder=0), "is_decoder 0 is not implemented"),
    refused("cross attention", CONFIG, bert(add_cross_attention=True), "add_cross_attention true is not implemented"),
    refused("quantised", CONFIG, bert(quantization_config={"bits": 4}), "quantization_config .* is not implemented"),
    refused("pruned heads", CONFIG, bert(pruned_heads={"0": [1]}), "pruned_heads .* is not implemented"),
    refused(
        "a classifier", CONFIG, bert(architectures=["BertForSequenceClassification"]), "use minilm_np.CrossEncoder$"
    ),
    refused("another head", CONFIG, bert(architectures=["BertModel", "BertForTokenClassification"]), HEAD),
    refused("another architecture", CONFIG, bert(architectures=["RobertaModel"]), HEAD),
    refused("architectures as a text", CONFIG, bert(architectures="BertModel"), 'architectures "BertModel" is not'),
    refused("embedding_size", CONFIG, bert(embedding_size=16), "embedding_size 16 is not implemented: .* 32"),
    *(
        refused(f"no {key}", CONFIG, without(key), f"{key} is missing")
        for key in ("vocab_size", "max_position_embeddings", "hidden_size", "num_hidden_layers", "intermediate_size")
    ),
    refused("bool as int", CONFIG, bert(num_hidden_layers=True), f"num_hidden_layers: {ONE_TO_2_31}true"),
    refused("float as int", CONFIG, bert(hidden_size=32.0), f"hidden_size: {ONE_TO_2_31}32.0"),
    refused("text as int", CONFIG, bert(vocab_size="100"), f'vocab_size: {ONE_TO_2_31}"100"'),
    refused("null as int", CONFIG, bert(vocab_size=None), f"vocab_size: {ONE_TO_2_31}null"),
    refused("negative", CONFIG, bert(intermediate_size=-64), f"intermediate_size: {ONE_TO_2_31}-64"),
    refused("zero", CONFIG, bert(num_attention_heads=0), f"num_attention_heads: {ONE_TO_2_31}0"),
    refused("too large", CONFIG, bert(type_vocab_size=2**31), f"type_vocab_size: {ONE_TO_2_31}2147483648"),
    refused("far too large", CONFIG, bert(vocab_size=10**400), f"vocab_size: {ONE_TO_2_31}1000*[.][.][.]$"),
    refused(
        "heads",
        CONFIG,
        bert(num_attention_heads=5),
        "hidden_size: expected a multiple of num_attention_heads, 5, found 32",
    ),
    refused("one position", CONFIG, bert(max_position_embeddings=1), "max_position_embeddings: expected at least 2"),
    *(
        refused(f"eps {name}", CONFIG, bert(layer_norm_eps=value), f"layer_norm_eps: expected a number .* {shown}")
        for name, value, shown in (
            ("0", 0, "0"),
            ("negative", -1e-12, "-1e-12"),
            ("NaN", float("nan"), "NaN"),
            ("infinite", float("inf"), "Infinity"),
            ("text", "1e-12", '"1e-12"'),
            ("null", None, "null"),
            ("bool", True, "true"),
            ("huge integer", 10**400, "1000"),
        )
    ),
    # the modules
    refused(
        "LSTM",
        MODULES,
        modules("Pooling", "LSTM"),
        "module 2: 'LSTM' is not implemented: expected one of 'Tr",
    ),
    refused(
        "two poolings",
        MODULES,
        modules("Pooling", "Pooling"),
        "optionally Normalize, found Transformer, Pooling, Pooling$",
    ),
    refused("no pooling", MODULES, modules(), "expected the modules Transformer, Pooling, .*, found Transformer$"),
    refused("Normalize first", MODULES, modules("Normalize", "Pooling"), "found Transformer, Normalize, Pooling$"),
    refused("no modules", MODULES, [], "expected the modules .*, found none$"),
    refused("modules as an object", MODULES, {"0": 1}, "expected a list of objects"),
    refused("modules as a list of texts", MODULES, ["Pooling"], "expected a list of objects"),
    refused("modules as an empty object", MODULES, {}, "expected a list of objects, found {}"),
    refused("module type", MODULES, at(1, type=3), "module 1: expected type and path to be strings"),
    refused("module path", MODULES, at(1, path=None), "module 1: expected type and path to be strings"),
    refused("parent", MODULES, at(1, path="../other"), r"module 1: the path '\.\./other' is outside"),
    refused("inner parent", MODULES, at(2, path="a/../../b"), "module 2: the path .* is outside the model folder"),
    refused("absolute", MODULES, at(1, path="/etc"), "module 1: the path '/etc' is outside the model folder"),
    refused("backslash", MODULES, at(0, path="..\\x"), "module 0: the path .* is outside the model folder"),
    # the pooling
    refused("two modes", POOLING, MEAN | {FLAGS["cls"]: True}, r'pooling \["cls", "mean"\] is not implemented'),
    refused(
        "an unknown pooling",
        POOLING,
        {"pooling_mode": "median"},
        r"""pooling \["median"\] is not implemented: expected one of 'mean', 'cls', 'max', .*'lasttoken'$""",
    ),
    refused("two named modes", POOLING, {"pooling_mode": ["cls", "max"]}, r'pooling \["cls", "max"\] is not'),
    refused("mode as a number", POOLING, {"pooling_mode": 1}, "the pooling 1 is not implemented"),
    refused("mode in a list in a list", POOLING, {"pooling_mode": [["mean"]]}, r'pooling \[\["mean"\]\] is not'),
    refused("flag as a text", POOLING, MEAN | {FLAGS["cls"]: "no"}, "pooling_mode_cls_token: expected true or false"),
    refused("dimension", POOLING, MEAN | {"word_embedding_dimension": 384}, "expected hidden_size, 32, found 384"),
    refused("new dimension", POOLING, {"embedding_dimension": 384}, "expected hidden_size, 32, found 384"),
    refused("include_prompt", POOLING, MEAN | {"include_prompt": 0}, "include_prompt: expected true or false, found 0"),
    # the rest
    refused("task", SENTENCE, {"transformer_task": "fill-mask"}, 'transformer_task "fill-mask" is not implemented'),
    refused("output", SENTENCE, {"module_output_name": "scores"}, 'module_output_name "scores" is not implemented'),
    refused("modality", SENTENCE, {"modality_config": {"image": {}}}, "modality_config .* is not implemented"),
    refused(
        "method",
        SENTENCE,
        {"modality_config": {"text": {"method_output_name": "pooler_output"}}},
        'modality_config .* is not implemented: expected "text" with method_output_name "last_hidden_state"',
    ),
    refused("arguments", SENTENCE, {"model_args": {"rope": 1}}, 'model_args {"rope": 1} is not implemented'),
    refused("do_lower_case", SENTENCE, {"do_lower_case": 1}, "do_lower_case: expected true or false, found 1"),
    refused("limit 1", SENTENCE, {"max_seq_length": 1}, "max_seq_length: expected an integer of at least 2, found 1"),
    refused("limit text", SENTENCE, {"max_seq_length": "256"}, 'max_seq_length: expected an integer .* "256"'),
    refused("limit bool", SENTENCE, {"max_seq_length": True}, "max_seq_length: expected an integer .* true"),
    refused("limit NaN", TOKENIZER, {"model_max_length": float("nan")}, "model_max_length: expected an integer .* NaN"),
    refused("limit 2.5", TOKENIZER, {"model_max_length": 2.5}, "model_max_length: expected an integer .* 2.5"),
    refused("Normalize of what", NORMALIZE, {"module_input_name": "x"}, 'module_input_name "x" is not implemented'),
    # files that are no JSON, or not the JSON that is expected
    refused("missing", CONFIG, None, "is missing: expected it in the model folder, next to the weights"),
    refused("pooling missing", POOLING, None, "is missing"),
    refused("empty", CONFIG, b"", ": expected JSON in UTF-8: Expecting value"),
    refused("cut short", CONFIG, b'{"model_type": "be', ": expected JSON in UTF-8: Unterminated string"),
    refused("not UTF-8", CONFIG, b'{"model_type": "\xff"}', ": expected JSON in UTF-8: 'utf-8' codec can't decode"),
    refused("a byte order mark", CONFIG, b"\xef\xbb\xbf{}", ": expected JSON in UTF-8: Unexpected UTF-8 BOM"),
    refused("a key twice", CONFIG, b'{"model_type": "bert", "model_type": "x"}', "the key 'model_type' occurs twice"),
    refused("a key twice deep down", CONFIG, b'{"a": [{"b": 1, "b": 2}]}', "the key 'b' occurs twice"),
    refused("5,000 digits", CONFIG, b'{"vocab_size": ' + b"9" * 5000 + b"}", "JSON in UTF-8: Exceeds the limit"),
    refused("nested", CONFIG, DEEP, ": expected JSON in UTF-8: maximum recursion depth exceeded"),
    refused("a list", CONFIG, b"[1, 2]", r"expected a JSON object, found \[1, 2\]"),
    refused("null", TOKENIZER, b"null", "expected a JSON object, found null"),
    refused("broken modules", MODULES, b"{", ": expected JSON in UTF-8: "),
    refused("broken sentence config", SENTENCE, b"{", ": expected JSON in UTF-8: "),
    refused("broken tokenizer config", TOKENIZER, b"{", ": expected JSON in UTF-8: "),
    refused("broken Normalize", NORMALIZE, b"{", ": expected JSON in UTF-8: "),
]


@pytest.mark.parametrize(("file", "change", "message"), REFUSALS)
def test_refused_by_name(tmp_path: Path, file: str, change: Any, message: str) -> None:
    changes = {SENTENCE: None, TOKENIZER: change} if file == TOKENIZER else {file: change}
    folder = write(tmp_path, changes)
    with pytest.raises(ConfigError) as caught:
        load_config(folder)
    text = str(caught.value)
    assert text.startswith(str(folder / file)), "the message begins with the file"
    assert re.search(message, text), text
    assert "\n" not in text
    assert len(text) < 400 + len(str(folder))


def test_a_folder_in_a_file_s_place_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {CONFIG: None})
    (tmp_path / CONFIG).mkdir()
    with pytest.raises(ConfigError, match=r"config\.json cannot be read: Is a directory"):
        load_config(tmp_path)


def test_a_path_that_no_file_system_takes_is_refused(tmp_path: Path) -> None:
    for number, path in enumerate(("x" * 5000, "a\0b", "\ud800")):
        for module in range(3):
            folder = write(tmp_path / f"{number}{module}", {MODULES: at(module, path=path)})
            with pytest.raises(ConfigError):
                load_config(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 32.0}, "hidden_size: expected an integer"),
        ({"num_hidden_layers": True}, "num_hidden_layers: expected an integer"),
        ({"pooling_mode": "median"}, "pooling_mode: expected one of 'mean', 'cls', 'max', 'mean_sqrt_len_tokens'"),
        ({"max_seq_length": 513}, r"expected an integer from 2 .* to 512 \(max_position_embeddings\), found 513"),
        ({"max_seq_length": 1}, "max_seq_length: expected an integer from 2"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps: expected a number above 0"),
        ({"num_attention_heads": 7}, "hidden_size: expected a multiple of num_attention_heads, 7, found 384"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_config_made_by_hand_is_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**values)


# ---- no JSON value breaks the reader ---------------------------------------------------------------------------------

numbers = st.integers(-(10**12), 10**12) | st.integers(10**300, 10**400) | st.floats() | st.booleans() | st.none()
words = st.sampled_from(["mean", "bert", "gelu", "text", "", "..", "/x", "sentence_embedding", "x" * 300, "\ud800"])
values = st.recursive(
    numbers | words | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = {
    CONFIG: [*BERT, "embedding_size", "position_embedding_type", "is_decoder", "pruned_heads", "quantization_config"],
    MODULES: ["type", "path", "idx"],
    POOLING: [*MEAN, "pooling_mode", "embedding_dimension", "include_prompt"],
    SENTENCE: ["max_seq_length", "do_lower_case", "transformer_task", "modality_config", "module_output_name"],
    TOKENIZER: ["model_max_length", "max_length"],
    NORMALIZE: ["module_input_name", "module_output_name"],
}


@settings(max_examples=300)
@given(data=st.data())
def test_any_json_gives_a_config_or_a_config_error(tmp_path_factory: Any, data: st.DataObject) -> None:
    changes: dict[str, Any] = {SENTENCE: None}
    for file in data.draw(st.lists(st.sampled_from(list(FIELDS)), min_size=1, max_size=3, unique=True)):
        drawn = data.draw(st.dictionaries(st.sampled_from(FIELDS[file]), values, min_size=1, max_size=2))
        if data.draw(st.integers(0, 9)) == 0:
            changes[file] = data.draw(values)
        elif file == MODULES:
            changes[file] = at(data.draw(st.integers(0, 2)), **drawn)
        else:
            changes[file] = (BERT if file == CONFIG else MEAN if file == POOLING else {}) | drawn
    folder = write(tmp_path_factory.mktemp("folder"), changes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            config = load_config(folder)
        except ConfigError as error:
            refusal = str(error)
            config = None
    if config is None:
        assert refusal.startswith(str(folder))
        assert len(refusal) < 6000
    else:
        assert 2 <= config.max_seq_length <= config.max_position_embeddings


@settings(max_examples=100)
@given(raw=st.binary(max_size=40) | st.text(alphabet='{}[]":,\\ue1-.ntf', max_size=40).map(str.encode))
def test_any_bytes_give_a_config_error(tmp_path_factory: Any, raw: bytes) -> None:
    with pytest.raises(ConfigError):
        load_config(write(tmp_path_factory.mktemp("folder"), {CONFIG: raw}))
