"""The JSON files of a sentence encoder's folder, read into one `ModelConfig`.

    config.json                   the sizes of the encoder (`encoder_config.py`)
    modules.json                  the modules, in order: Transformer, Pooling, optionally Dense, optionally Normalize
    1_Pooling/config.json         how the vectors of the tokens become one vector
    2_Dense/config.json           the size and the activation of a dense layer after it (`dense_module.py`)
    2_Normalize/config.json       empty or absent in most folders
    sentence_bert_config.json     the length at which a text is truncated, and whether it is lower-cased
    tokenizer_config.json         the length, if the file above does not give one

`settings.py` reads another one, config_sentence_transformers.json. Folders of sentence-transformers 2, 5 and 6 use
different keys for the same facts; all are supported. Anything not implemented is an error that names it.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from minilm_np._checks import callers_level, one_of, short_repr
from minilm_np._files import shown
from minilm_np.errors import ConfigError
from minilm_np.model_files import dense_module, modules
from minilm_np.model_files.config import POOLING_MODES, ModelConfig
from minilm_np.model_files.encoder_config import check_architectures, read_encoder
from minilm_np.model_files.families import FAMILIES
from minilm_np.model_files.json_files import read_object, warn_of_unknown

_MODULES = ["Transformer", "Pooling", "Dense", "Normalize"]

# before version 6, sentence-transformers writes one flag per mode
POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

# Keys of sentence_bert_config.json: those that must be empty, and the others that are supported.
_ONLY_EMPTY = ("config_args", "model_args", "processing_kwargs", "query_expansion", "tokenizer_args")
_SENTENCE_KEYS = frozenset(
    """
    do_lower_case document_length max_seq_length modality_config module_output_name query_length transformer_task
    unpad_inputs
    """.split()
)


class Output(NamedTuple):
    """What a Transformer module returns, as sentence_bert_config.json names it."""

    task: str
    method_output: str
    module_output: str


HIDDEN_STATES = Output("feature-extraction", "last_hidden_state", "token_embeddings")


def load_config(folder: Path) -> ModelConfig:
    """Read the JSON files of a model folder.

    Raises ConfigError: a file is missing or broken, a value is out of range, or something is not implemented.
    """
    paths = _module_paths(folder)
    transformer_path, pooling_path, dense_path = (paths.get(kind) for kind in _MODULES[:3])
    assert transformer_path is not None
    transformer = folder / transformer_path
    encoder = read_encoder(transformer / "config.json")
    sentence = read_sentence_config(transformer / "sentence_bert_config.json")
    pooling: dict[str, Any] = {}
    if pooling_path is not None:
        pooling = _read_pooling(folder / pooling_path / "config.json", encoder["hidden_size"])
    dense: dict[str, Any] = {}
    if dense_path is not None:
        path = folder / dense_path / "config.json"
        dense = dense_module.dense_fields(path, read_object(path), encoder["hidden_size"]) | {"dense_path": dense_path}
    return ModelConfig(
        **encoder,
        **sequence_limit(transformer, sentence, ModelConfig(**encoder, max_seq_length=2).max_tokens),
        **pooling,
        **dense,
        normalize="Normalize" in paths,
        transformer_path=transformer_path,
    )


def _module_paths(folder: Path) -> dict[str, str]:
    """The path of each module, by its kind."""
    found = modules.read_modules(folder)
    if found is None:
        # a plain transformers folder, for which sentence-transformers uses mean pooling and no normalisation
        message = f"{folder} has no {modules.FILE}: assuming mean pooling without normalisation"
        warnings.warn(message, stacklevel=callers_level())
        return {"Transformer": ""}
    path = folder / modules.FILE
    kinds = [kind for kind, _ in found]
    for number, kind in enumerate(kinds):
        if kind not in _MODULES:
            raise ConfigError(
                f"{path}: module {number}: {short_repr(kind)} is not implemented: expected {one_of(_MODULES)}"
            )
    if kinds[:2] != _MODULES[:2] or kinds[2:] not in ([], ["Dense"], ["Normalize"], ["Dense", "Normalize"]):
        if kinds == _MODULES[:1]:  # perhaps a cross-encoder
            config = folder / found[0][1] / "config.json"
            architectures = read_object(config, optional=True).get("architectures")
            check_architectures(config, architectures, FAMILIES["bert"].architectures)
        raise ConfigError(
            f"{path}: expected the modules Transformer, Pooling, optionally Dense, optionally Normalize, found "
            f"{', '.join(kinds[:9]) or 'none'}"
        )
    if kinds[-1] == "Normalize":
        _check_normalize(folder / found[-1][1] / "config.json")
    return dict(found)


def read_sentence_config(path: Path, output: Output = HIDDEN_STATES) -> dict[str, Any]:
    """The values of sentence_bert_config.json, checked; {} for a missing file. output: the only one accepted."""
    values = read_object(path, optional=True)
    for key, implemented in (("transformer_task", output.task), ("module_output_name", output.module_output)):
        if values.get(key, implemented) != implemented:
            raise ConfigError(f"{path}: {key} {shown(values[key])} is not implemented: expected {shown(implemented)}")
    for key in _ONLY_EMPTY:
        if values.get(key) not in (None, {}):
            raise ConfigError(f"{path}: {key} {shown(values[key])} is not implemented: expected null or {{}}")
    modalities = values.get("modality_config", {"text": {}})
    text = modalities.get("text") if isinstance(modalities, dict) else None
    if not isinstance(text, dict) or text.get("method_output_name", output.method_output) != output.method_output:
        raise ConfigError(
            f'{path}: modality_config {shown(modalities)} is not implemented: expected "text" with '
            f'method_output_name "{output.method_output}"'
        )
    warn_of_unknown(path, values.keys() - _SENTENCE_KEYS - set(_ONLY_EMPTY))
    return values


def sequence_limit(transformer: Path, sentence: Mapping[str, Any], positions: int) -> dict[str, Any]:
    """max_seq_length and do_lower_case. The length is at most the number of positions.

    tokenizer.json is not used: the published one contains a truncation at 128 tokens, which is not the model's limit.
    Neither is `max_length` of tokenizer_config.json, which sentence-transformers 6 copies from there.
    """
    path, key = transformer / "sentence_bert_config.json", "max_seq_length"
    limit = sentence.get(key)
    if limit is None:
        path, key = transformer / "tokenizer_config.json", "model_max_length"
        limit = read_object(path, optional=True).get(key)
    if limit is None:
        limit = positions
    # "no limit" is written as 1e30, or as an integer of 30 digits
    if not (type(limit) is int or (type(limit) is float and limit.is_integer())) or limit < 2:
        raise ConfigError(f"{path}: {key}: expected an integer of at least 2, found {shown(limit)}")
    lower = sentence.get("do_lower_case", False)
    if type(lower) is not bool:
        raise ConfigError(
            f"{transformer / 'sentence_bert_config.json'}: do_lower_case: expected true or false, found {shown(lower)}"
        )
    return {"max_seq_length": min(int(limit), positions), "do_lower_case": lower}


def _read_pooling(path: Path, hidden_size: int) -> dict[str, Any]:
    """1_Pooling/config.json -> one of POOLING_MODES, and whether the tokens of a prompt are pooled."""
    values = read_object(path)
    size = values.get("word_embedding_dimension", values.get("embedding_dimension", hidden_size))
    if size != hidden_size:
        raise ConfigError(f"{path}: embedding dimension: expected hidden_size, {hidden_size}, found {shown(size)}")
    mode = values.get("pooling_mode")
    modes = [mode] if isinstance(mode, str) else mode
    if modes is None:
        for flag in POOLING_FLAGS:
            if type(values.get(flag, False)) is not bool:
                raise ConfigError(f"{path}: {flag}: expected true or false, found {shown(values[flag])}")
        modes = [mode for flag, mode in POOLING_FLAGS.items() if values.get(flag)] or ["mean"]
    if not isinstance(modes, list) or len(modes) != 1 or modes[0] not in POOLING_MODES:
        raise ConfigError(f"{path}: the pooling {shown(modes)} is not implemented: expected {one_of(POOLING_MODES)}")
    include_prompt = values.get("include_prompt", True)
    if type(include_prompt) is not bool:
        raise ConfigError(f"{path}: include_prompt: expected true or false, found {shown(include_prompt)}")
    return {"pooling_mode": str(modes[0]), "include_prompt": include_prompt}


def _check_normalize(path: Path) -> None:
    """Refuse a Normalize module that normalises anything but the sentence vector (sentence-transformers 6)."""
    values = read_object(path, optional=True)
    for key in ("module_input_name", "module_output_name"):
        if values.get(key) not in ("sentence_embedding", None):
            raise ConfigError(f'{path}: {key} {shown(values[key])} is not implemented: expected "sentence_embedding"')
