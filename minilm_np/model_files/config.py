"""`ModelConfig`: the JSON files of a model folder, read into one frozen dataclass.

Up to seven files are read here:

    config.json                   the sizes of the encoder
    modules.json                  the modules, in order: Transformer, Pooling, optionally Dense, optionally Normalize
    1_Pooling/config.json         how the vectors of the tokens become one vector
    2_Dense/config.json           the size and the activation of a dense layer after it
    2_Normalize/config.json       empty or absent in most folders
    sentence_bert_config.json     the length at which a text is truncated, and whether it is lower-cased
    tokenizer_config.json         the length, if the file above does not give one

An eighth, config_sentence_transformers.json, is read by `settings.py`. Folders of sentence-transformers 2, 5 and 6 use
different keys for the same facts; all are supported. Anything not implemented is an error that names it.
"""

import os
import warnings
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from minilm_np._checks import one_of, short_repr
from minilm_np._files import read_json, shown
from minilm_np.errors import ConfigError
from minilm_np.model_files import dense_module
from minilm_np.model_files.families import DEFAULTS, FAMILIES, REQUIRED

_MODULES = ["Transformer", "Pooling", "Dense", "Normalize"]

POOLING_MODES = ("mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")

# of the feed-forward part, by transformers' names; the two with tanh are the same function
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")

# before version 6, sentence-transformers writes one flag per mode
POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

# Keys of config.json that change the computation, with the only values that are implemented.
_ONLY_IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "quantization_config": (None,),
    "pruned_heads": (None, {}),
}

# The class with a head that `cross_encoder_files.py` reads.
CROSS_ENCODER = "BertForSequenceClassification"

# Keys of config.json that do not change what inference computes: training, generation, bookkeeping.
_NO_EFFECT = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path adapters attention_dropout
    attention_probs_dropout_prob bos_token_id chunk_size_feed_forward classifier_dropout cross_attention_hidden_size
    directionality dropout dtype eos_token_id finetuning_task gradient_checkpointing hidden_dropout_prob id2label
    initializer_range label2id language model_max_length name output_attentions output_hidden_states output_past
    pad_token_id pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type
    prefix problem_type qa_dropout return_dict sep_token_id seq_classif_dropout sinusoidal_pos_embds
    task_specific_params tie_weights_ tie_word_embeddings tokenizer_class torch_dtype torchscript transformers_version
    use_bfloat16 use_cache
    """.split()
)

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


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that determines the vector of a text, except the weights and the vocabulary.

    The letters are those of `reference.py`. The defaults are those of all-MiniLM-L6-v2. Raises ConfigError.
    """

    # config.json: the encoder
    vocab_size: int = 30522  # V
    max_position_embeddings: int = 512  # P
    type_vocab_size: int = 2  # 0: there are no token types
    hidden_size: int = 384  # D
    num_hidden_layers: int = 6  # L
    num_attention_heads: int = 12  # H
    intermediate_size: int = 1536  # F
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"  # of the feed-forward part
    # what differs between the families
    model_type: str = "bert"  # the family, whose files have the keys and the tensors of `families.py`
    padding_idx: int | None = None  # positions count from the next number, and not tokens with this id; None: from 0
    relative_attention_num_buckets: int = 0  # rows of the table of biases by relative position; 0: there is none

    # the other files: from token vectors to one vector
    max_seq_length: int = 256  # tokens per text, including [CLS] and [SEP]; longer texts are truncated
    pooling_mode: str = "mean"
    include_prompt: bool = True  # whether the tokens of a prompt are pooled
    normalize: bool = True  # the folder has a Normalize module
    do_lower_case: bool = False  # lower-case each text before tokenization, regardless of the tokenizer's options
    transformer_path: str = ""  # the subfolder with config.json and the weights; "" in every recent folder
    dense_size: int | None = None  # G, the numbers of a vector after a Dense module; None: the folder has none
    dense_bias: bool = True
    dense_activation: str = "tanh"  # or "identity"
    dense_path: str = dense_module.FOLDER

    def __post_init__(self) -> None:
        """Raise ConfigError for values that are impossible."""
        if self.model_type not in FAMILIES:
            raise ConfigError(f"model_type {shown(self.model_type)} is not implemented: expected {one_of(FAMILIES)}")
        for name in (
            "vocab_size",
            "max_position_embeddings",
            *(("type_vocab_size",) if "type_vocab_size" not in FAMILIES[self.model_type].fixed else ()),
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_seq_length",
        ):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value < 2**31:
                raise ConfigError(f"{name}: expected an integer from 1 to 2**31 - 1, found {shown(value)}")
        eps = self.layer_norm_eps
        if type(eps) not in (int, float) or not 0 < eps <= 1:  # also refuses NaN
            raise ConfigError(f"layer_norm_eps: expected a number above 0 and at most 1, found {shown(eps)}")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size: expected a multiple of num_attention_heads, {self.num_attention_heads}, "
                f"found {self.hidden_size}"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise ConfigError(f"hidden_act {shown(self.hidden_act)} is not implemented: expected {one_of(ACTIVATIONS)}")
        self._check_family()
        if self.pooling_mode not in POOLING_MODES:
            raise ConfigError(f"pooling_mode: expected {one_of(POOLING_MODES)}, found {shown(self.pooling_mode)}")
        self._check_dense()
        positions = self.max_position_embeddings
        if self.max_tokens < 2:
            least = 2 + positions - self.max_tokens
            raise ConfigError(
                f"max_position_embeddings: expected at least {least} ([CLS] and [SEP]), found {positions}"
            )
        if not 2 <= self.max_seq_length <= self.max_tokens:
            offset = "" if self.padding_idx is None else " - padding_idx - 1"
            raise ConfigError(
                f"max_seq_length: expected an integer from 2 ([CLS] and [SEP]) to {self.max_tokens} "
                f"(max_position_embeddings{offset}), found {self.max_seq_length}"
            )

    def _check_family(self) -> None:
        """Raise ConfigError for values that no model of this family has."""
        fixed, where = FAMILIES[self.model_type].fixed, f"in a model of type {self.model_type!r}"
        for name, value in fixed.items():
            found = getattr(self, name)
            if type(found) is not type(value) or found != value:
                raise ConfigError(f"{name}: expected {shown(value)} {where}, found {shown(found)}")
        index = self.padding_idx
        if "padding_idx" not in fixed and (type(index) is not int or not 0 <= index < self.vocab_size):
            raise ConfigError(f"padding_idx: expected a token id {where}, found {shown(index)}")

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest text for which the model has positions."""
        return self.max_position_embeddings - (0 if self.padding_idx is None else self.padding_idx + 1)

    def _check_dense(self) -> None:
        """Raise ConfigError for a Dense module that is impossible."""
        size = self.dense_size
        if size is not None and (type(size) is not int or not 1 <= size < 2**31):
            raise ConfigError(f"dense_size: expected an integer from 1 to 2**31 - 1, or None, found {shown(size)}")
        if self.dense_activation not in dense_module.ACTIVATIONS:
            raise ConfigError(
                f"dense_activation: expected {one_of(dense_module.ACTIVATIONS)}, found {shown(self.dense_activation)}"
            )

    @property
    def vector_size(self) -> int:
        """The numbers of a vector: D, or G after a Dense module."""
        return self.hidden_size if self.dense_size is None else self.dense_size

    @property
    def head_size(self) -> int:
        """E, the size of the query, key and value vectors of one head."""
        return self.hidden_size // self.num_attention_heads


def require_plain_bert(config: ModelConfig, what: str, types: Sequence[str] = ("bert",)) -> None:
    """Raise ConfigError unless the model is BERT with GELU and without Dense, for `what`: code for no other model.

    types: the values of `model_type` for which that code is written.
    """
    if config.model_type not in types or config.hidden_act != "gelu":
        raise ConfigError(
            f"{what}: expected a model of type {' or '.join(map(repr, types))} with the activation 'gelu', found "
            f"{config.model_type!r} with {config.hidden_act!r}: this is not implemented for other encoders"
        )
    require_no_dense(config, what)


def require_no_dense(config: ModelConfig, what: str) -> None:
    """Raise ConfigError if the model has a Dense module, for `what`: code that is not written for one."""
    if config.dense_size is not None:
        raise ConfigError(
            f"{what}: expected a model without a Dense module, found one with {config.dense_size} outputs: this is not "
            "implemented for it"
        )


def load_config(folder: Path) -> ModelConfig:
    """Read the JSON files of a model folder.

    Raises ConfigError: a file is missing or broken, a value is out of range, or something is not implemented.
    """
    paths = _read_modules(folder)
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


def _read_modules(folder: Path) -> dict[str, str]:
    """modules.json -> the path of each module, by its kind."""
    path = folder / "modules.json"
    modules = _read_json(path, default=())
    if modules == ():  # no such file: JSON has no tuples
        # a plain transformers folder, for which sentence-transformers uses mean pooling and no normalisation
        warnings.warn(f"{folder} has no modules.json: assuming mean pooling without normalisation", stacklevel=4)
        return {"Transformer": ""}
    kinds, paths = _kinds_and_paths(folder, path, modules)
    for number, kind in enumerate(kinds):
        if kind not in _MODULES:
            raise ConfigError(
                f"{path}: module {number}: {short_repr(kind)} is not implemented: expected {one_of(_MODULES)}"
            )
    if kinds[:2] != _MODULES[:2] or kinds[2:] not in ([], ["Dense"], ["Normalize"], ["Dense", "Normalize"]):
        found = ", ".join(kinds[:9]) or "none"
        if kinds == _MODULES[:1]:
            values = read_object(folder / paths[0] / "config.json", optional=True)
            _check_architectures(
                folder / paths[0] / "config.json", values.get("architectures"), FAMILIES["bert"].architectures
            )
        raise ConfigError(
            f"{path}: expected the modules Transformer, Pooling, optionally Dense, optionally Normalize, found {found}"
        )
    if kinds[-1] == "Normalize":
        _check_normalize(folder / paths[-1] / "config.json")
    return dict(zip(kinds, paths, strict=True))


def read_modules(folder: Path) -> list[tuple[str, str]]:
    """modules.json, which must exist -> (name of the class, path) of each module. Raises ConfigError."""
    path = folder / "modules.json"
    return list(zip(*_kinds_and_paths(folder, path, _read_json(path)), strict=True))


def _kinds_and_paths(folder: Path, path: Path, modules: Any) -> tuple[list[str], list[str]]:
    """The names of the classes and the paths of the modules in the value of modules.json, checked."""
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ConfigError(f"{path}: expected a list of objects, found {shown(modules)}")
    kinds: list[str] = []
    paths: list[str] = []
    for number, module in enumerate(modules):
        kind, where = module.get("type"), module.get("path", "")
        if not isinstance(kind, str) or not isinstance(where, str):
            raise ConfigError(f"{path}: module {number}: expected type and path to be strings, found {shown(module)}")
        _check_inside(folder, where, f"{path}: module {number}")
        # the class path changes between releases (sentence_transformers.models.Pooling, ...modules.pooling.Pooling)
        kinds.append(kind.rpartition(".")[2])
        paths.append(where)
    return kinds, paths


def _check_inside(folder: Path, where: str, what: str) -> None:
    """Refuse a module's path that leaves the model folder, by its words or by a link. what: starts the message."""
    if "\\" in where or PurePosixPath(where).is_absolute() or ".." in PurePosixPath(where).parts:
        raise ConfigError(f"{what}: the path {short_repr(where)} is outside the model folder")
    try:
        target = Path(os.path.realpath(folder / where))
    except ValueError as error:  # NUL, or a lone surrogate
        raise ConfigError(f"{what}: the path {short_repr(where)} is not valid: {error}") from None
    if not target.is_relative_to(os.path.realpath(folder)):
        raise ConfigError(
            f"{what}: the path {short_repr(where)} is a link to {target}, outside the model folder: copy that folder "
            "into it"
        )


def read_encoder(path: Path, architectures: Sequence[str] = (), known: Set[str] = frozenset()) -> dict[str, Any]:
    """config.json -> the encoder's fields of ModelConfig.

    architectures: the classes of transformers that are accepted; none: those of the family's encoder.
    known: further keys that the caller reads.
    """
    values = read_object(path)
    if "model_type" not in values:
        raise ConfigError(f"{path}: model_type is missing: expected {one_of(FAMILIES)}")
    model_type = values["model_type"]
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ConfigError(f"{path}: model_type {shown(model_type)} is not implemented: expected {one_of(FAMILIES)}")
    if CROSS_ENCODER in architectures and model_type != "bert":
        raise ConfigError(
            f"{path}: model_type {shown(model_type)} is not implemented for a cross-encoder: expected 'bert'"
        )
    family = FAMILIES[model_type]
    for key, implemented in _ONLY_IMPLEMENTED.items():
        if key in values and not any(type(values[key]) is type(v) and values[key] == v for v in implemented):
            raise ConfigError(
                f"{path}: {key} {shown(values[key])} is not implemented: expected {shown(implemented[0])}"
            )
    _check_architectures(path, values.get("architectures"), architectures or family.architectures)
    fields: dict[str, Any] = {"model_type": model_type}
    used = {"model_type", "architectures", "embedding_size"}
    for field in (*REQUIRED, *DEFAULTS):
        fields[field] = family.fixed.get(field, DEFAULTS.get(field))
        if stored := family.key(field):
            used.add(stored)
            if field in REQUIRED and stored not in values:
                raise ConfigError(f"{path}: {stored} is missing")
            fields[field] = values.get(stored, fields[field])
    if values.get("embedding_size", fields["hidden_size"]) != fields["hidden_size"]:
        raise ConfigError(
            f"{path}: embedding_size {shown(values['embedding_size'])} is not implemented: expected hidden_size, "
            f"{shown(fields['hidden_size'])}"
        )
    _warn_of_unknown(path, values.keys() - used - _ONLY_IMPLEMENTED.keys() - _NO_EFFECT - known)
    try:
        ModelConfig(**fields, max_seq_length=2)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return fields


def _check_architectures(path: Path, found: Any, expected: Sequence[str]) -> None:
    """Refuse a model whose result is not the expected one: labels, scores or spans, by a head that is not implemented.

    Sentence encoders may lack the key. Cross-encoders may not: it names their head.
    """
    wants_head = CROSS_ENCODER in expected
    names = found if isinstance(found, list) else [None]
    if (found is None and not wants_head) or (isinstance(found, list) and all(name in expected for name in names)):
        return
    where = f"{path}: architectures {shown(found)}"
    if names == [CROSS_ENCODER]:
        raise ConfigError(f"{where}: this is a cross-encoder: use minilm_np.CrossEncoder")
    if wants_head and all(name is None or name in FAMILIES["bert"].architectures for name in names):
        raise ConfigError(
            f"{where}: expected {CROSS_ENCODER}, found no classifier: use minilm_np.SentenceEncoder for a model that "
            "gives a vector of each text"
        )
    advice = "save it alone (transformers: AutoModel.from_pretrained, save_pretrained)"
    raise ConfigError(
        f"{where} is not implemented: expected {', '.join(expected)}"
        + ("" if wants_head else f": to use the encoder without its head, {advice}")
    )


def _warn_of_unknown(path: Path, keys: Set[str]) -> None:
    """Warn of the keys of a file that this package does not know, if there are any."""
    if keys:
        names = ", ".join(map(short_repr, sorted(keys)[:5])) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
        warnings.warn(f"{path}: unknown keys are ignored: {names}", stacklevel=5)


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
    _warn_of_unknown(path, values.keys() - _SENTENCE_KEYS - set(_ONLY_EMPTY))
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


def read_object(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """The object in a JSON file; {} for a missing optional file. Raises ConfigError."""
    values = _read_json(path, {} if optional else None)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a JSON object, found {shown(values)}")
    return values


def _read_json(path: Path, default: Any = None) -> Any:
    """The value in a JSON file; the default, if there is one, for a missing file. Raises ConfigError."""
    try:
        return read_json(path)
    except FileNotFoundError:
        if default is not None:
            return default
        raise ConfigError(f"{path} is missing: expected it in the model folder, next to the weights") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
