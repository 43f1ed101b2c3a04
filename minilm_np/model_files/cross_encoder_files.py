"""The files of a cross-encoder's folder, read and written: a BERT encoder with a pooler and a classifier.

    config.json                        the encoder's sizes, the labels, and in most folders the activation
    tokenizer_config.json              the length at which a pair is truncated

sentence-transformers 6 adds these, and older versions do not read them:

    modules.json                       one module, Transformer
    sentence_bert_config.json          the task, the length
    config_sentence_transformers.json  the prompts, the activation
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import minilm_np
from minilm_np._checks import one_of
from minilm_np._files import shown
from minilm_np.errors import ConfigError
from minilm_np.model_files import saving
from minilm_np.model_files.config import ModelConfig
from minilm_np.model_files.encoder_config import CROSS_ENCODER, read_encoder
from minilm_np.model_files.folder_config import Output, read_sentence_config, sequence_limit
from minilm_np.model_files.json_files import read_object
from minilm_np.model_files.modules import FILE as MODULES_FILE
from minilm_np.model_files.modules import read_modules
from minilm_np.model_files.settings import FILE as SETTINGS_FILE
from minilm_np.model_files.settings import ModelSettings, load_settings

# The functions from logits to scores that are implemented, by the names of torch's classes.
ACTIVATIONS = ("Identity", "ReLU", "Sigmoid", "Tanh")

LOGITS = Output("sequence-classification", "logits", "scores")
MODEL_TYPE = "CrossEncoder"
MOST_LABELS = 10_000

_OLD_ACTIVATION = "sbert_ce_default_activation_function"  # before sentence-transformers 4
_KNOWN = frozenset({"sentence_transformers", _OLD_ACTIVATION, "num_labels"})


@dataclass(frozen=True)
class Head:
    """What a folder says about the head of a cross-encoder."""

    labels: tuple[str, ...]  # C names
    activation: str  # one of ACTIVATIONS: from logits to scores


def load_cross_encoder_config(folder: Path, activation: str | None = None) -> tuple[ModelConfig, Head, ModelSettings]:
    """Read the JSON files of a cross-encoder's folder.

    activation: one of ACTIVATIONS, to use instead of that of the folder.
    Returns the encoder's config, which takes the first token's vector; the head; the prompts.
    Raises ConfigError: a file is missing or broken, a value is out of range, or something is not implemented.
    """
    modules = read_modules(folder)
    settings, saved, sentence = ModelSettings(prompts={}), {}, {}
    if modules is not None:
        settings, saved = load_settings(folder, MODEL_TYPE), read_object(folder / SETTINGS_FILE, optional=True)
        _check_modules(folder / MODULES_FILE, modules)
        sentence = read_sentence_config(folder / "sentence_bert_config.json", LOGITS)
    path = folder / "config.json"
    encoder = read_encoder(path, (CROSS_ENCODER,), _KNOWN)
    values = read_object(path)
    labels = _labels(path, values)
    if activation is None:
        activation = _activation(folder, saved, values) or ("Sigmoid" if len(labels) == 1 else "Identity")
    config = ModelConfig(
        **encoder,
        **sequence_limit(folder, sentence, encoder["max_position_embeddings"]),
        pooling_mode="cls",
        normalize=False,
    )
    return config, Head(labels, activation), settings


def activation_name(value: object) -> str | None:
    """One of ACTIVATIONS, given by its name, by the path of torch's class, or as torch's object; None for others."""
    if isinstance(value, str):
        name = value.rpartition(".")[2] if value.startswith("torch.") else value
    else:
        name = type(value).__name__ if type(value).__module__.startswith("torch.nn.") else ""
    return name if name in ACTIVATIONS else None


def _check_modules(path: Path, modules: list[tuple[str, str]]) -> None:
    """Refuse modules other than one Transformer in the folder itself. path: of modules.json."""
    kinds = [kind for kind, _ in modules]
    if "Pooling" in kinds:
        raise ConfigError(f"{path}: this model gives a vector of each text: use minilm_np.SentenceEncoder")
    if modules != [("Transformer", "")]:
        raise ConfigError(
            f'{path}: expected one module, Transformer, with the path "", found {", ".join(kinds[:9]) or "none"}'
        )


def _labels(path: Path, values: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the labels, from id2label; transformers' default names if there is only their number, or nothing."""
    named = values.get("id2label")
    if named is None:
        number = values.get("num_labels", 2)  # BertConfig's default
        if type(number) is not int or not 1 <= number <= MOST_LABELS:
            raise ConfigError(f"{path}: num_labels: expected an integer from 1 to {MOST_LABELS}, found {shown(number)}")
        return tuple(f"LABEL_{label}" for label in range(number))
    if (
        not isinstance(named, dict)
        or not 1 <= len(named) <= MOST_LABELS
        or named.keys() != {str(label) for label in range(len(named))}
        or not all(isinstance(name, str) for name in named.values())
    ):
        raise ConfigError(
            f'{path}: id2label: expected an object of the labels\' names, with the keys "0", "1" and so on, found '
            f"{shown(named)}"
        )
    return tuple(named[str(label)] for label in range(len(named)))


def _activation(folder: Path, saved: Mapping[str, Any], values: Mapping[str, Any]) -> str | None:
    """The activation that the folder names; None if it names none."""
    of_library = values.get("sentence_transformers")
    for file, key, value in (
        (SETTINGS_FILE, "activation_fn", saved.get("activation_fn")),
        (
            "config.json",
            "sentence_transformers.activation_fn",
            of_library.get("activation_fn") if isinstance(of_library, dict) else None,
        ),
        ("config.json", _OLD_ACTIVATION, values.get(_OLD_ACTIVATION)),
    ):
        if value is None:
            continue
        if not isinstance(value, str) or not value.startswith("torch.") or (name := activation_name(value)) is None:
            raise ConfigError(
                f"{folder / file}: {key} {shown(value)} is not implemented: expected a class of torch, "
                f"{one_of(ACTIVATIONS)}: pass activation_fn to use one of them"
            )
        return name
    return None


def save_cross_encoder(
    path: str | os.PathLike[str],
    config: ModelConfig,
    head: Head,
    settings: ModelSettings,
    tokenizer: saving.SavableTokenizer,
    weights: Mapping[str, NDArray[np.float32]],
) -> None:
    """Write a folder that sentence-transformers (2 and later) and this package load as a cross-encoder.

    weights: those of `checkpoint.parameter_shapes` and of `checkpoint.head_shapes`.
    Otherwise as `saving.save_model`. Raises SaveError.
    """
    package = "linear" if head.activation == "Identity" else "activation"
    activation = f"torch.nn.modules.{package}.{head.activation}"
    contents = {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
        ],
        "config.json": {
            **saving.encoder_config(config, tokenizer),
            "architectures": [CROSS_ENCODER],
            "id2label": {str(number): label for number, label in enumerate(head.labels)},
            "label2id": {label: number for number, label in enumerate(head.labels)},
            "sentence_transformers": {"activation_fn": activation, "version": f"minilm_np {minilm_np.__version__}"},
        },
        "sentence_bert_config.json": {
            "transformer_task": LOGITS.task,
            "modality_config": {"text": {"method": "forward", "method_output_name": LOGITS.method_output}},
            "module_output_name": LOGITS.module_output,
            "max_seq_length": config.max_seq_length,
            **({"do_lower_case": True} if config.do_lower_case else {}),
        },
        "tokenizer_config.json": {
            **saving.tokenizer_config(config, tokenizer),
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        },
        SETTINGS_FILE: {
            "__version__": {"minilm_np": minilm_np.__version__},
            "model_type": MODEL_TYPE,
            "prompts": settings.prompts,
            "default_prompt_name": settings.default_prompt_name,
            "activation_fn": activation,
        },
    }
    named = {name if name.startswith("classifier.") else f"bert.{name}": array for name, array in weights.items()}
    saving.save_folder(path, lambda folder: saving.write_files(folder, contents, tokenizer, named))
