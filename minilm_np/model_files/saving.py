"""Write a model folder that sentence-transformers (2 and later) and this package load.

Another process finds the old model or the new one (`_files.py` writes, `steady.py` reads), and what is saved survives a
loss of power. Flushing to the disk (ext4 on an SSD) takes 0.02 s of 0.22 s for all-MiniLM-L6-v2, 0.03 s of 0.07 s for a
small model.
"""

import json
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import minilm_np
from minilm_np._files import reason, remove_left, replace_folder, staging_folder
from minilm_np.errors import CheckpointError, SaveError
from minilm_np.model_files import dense_module
from minilm_np.model_files.checkpoint import DENSE, write_checkpoint
from minilm_np.model_files.config import ModelConfig
from minilm_np.model_files.families import DEFAULTS, FAMILIES, REQUIRED
from minilm_np.model_files.folder_config import POOLING_FLAGS
from minilm_np.model_files.settings import FILE as SETTINGS_FILE
from minilm_np.model_files.settings import ModelSettings

WRITTEN = frozenset(
    """
    1_Pooling 2_Dense 2_Normalize 3_Normalize config.json config_sentence_transformers.json model.safetensors
    modules.json sentence_bert_config.json tokenizer.json tokenizer_config.json
    """.split()
)


class SavableTokenizer(Protocol):
    """A tokenizer that can be saved, such as `text.tokenizer.TextTokenizer`."""

    pad_id: int
    special_tokens: dict[str, str]  # by the keys of tokenizer_config.json, such as "pad_token"

    def to_json(self) -> str: ...


def save_model(
    path: str | os.PathLike[str],
    config: ModelConfig,
    settings: ModelSettings,
    tokenizer: SavableTokenizer,
    weights: Mapping[str, NDArray[np.float32]],
) -> None:
    """Write a model folder, atomically and durably.

    A model that this function saved at `path` before is replaced; the folder keeps its permissions and its owner.
    weights: those of `checkpoint.parameter_shapes`, and those of the pooler if the model has one.
    Raises SaveError: `path` contains other files, is the current directory or a mount point, or cannot be written.
    """
    save_folder(path, lambda folder: _write(folder, config, settings, tokenizer, weights))


def save_folder(path: str | os.PathLike[str], write: Callable[[Path], None]) -> None:
    """Write a model folder, atomically and durably, as `save_model` describes.

    write: writes files of WRITTEN to an empty folder.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    try:
        present = set(os.listdir(target)) if target.is_dir() else set()
        foreign = present if "modules.json" not in present else present - WRITTEN
        if (target.exists() and not target.is_dir()) or foreign:
            found = ", ".join(sorted(foreign)[:3]) or "a file"
            raise SaveError(
                f"{target}: expected a new or empty folder, or one with a model saved by this package, found {found}"
            )
        _check_replaceable(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{target.name}.saving-"
        with staging_folder(target.parent, prefix) as staged:
            write(staged)
            _copy_access(target, staged)
            replace_folder(target, staged)
        remove_left(target.parent, prefix, with_old=True)  # the model is at its place: no other copy is the only one
    except (OSError, CheckpointError) as error:
        if isinstance(error, SaveError):
            raise
        raise SaveError(f"{target}: the model cannot be saved: {reason(error)}") from error


def _check_replaceable(target: Path) -> None:
    """Refuse a folder that cannot be renamed, or in which this process works."""
    found = "a mount point" if os.path.ismount(target) else ""
    with suppress(FileNotFoundError):  # the current directory was removed
        if Path.cwd().is_relative_to(target):
            found = "the current directory"
    if found:
        raise SaveError(
            f"{target}: expected a folder that can be replaced, found {found}: save to another folder, such as "
            f"{target / 'model'}"
        )


def _copy_access(source: Path, folder: Path) -> None:
    """Give a folder the owner and the permissions of `source`, if that exists."""
    with suppress(FileNotFoundError):
        before = source.stat()
        # only root may change the owner, and must, or permissions such as 0700 would lock the owner out;
        # Windows has no chown
        with suppress(PermissionError, AttributeError):
            os.chown(folder, before.st_uid, before.st_gid)
        folder.chmod(stat.S_IMODE(before.st_mode))


def _write(
    folder: Path,
    config: ModelConfig,
    settings: ModelSettings,
    tokenizer: SavableTokenizer,
    weights: Mapping[str, NDArray[np.float32]],
) -> None:
    """Write the files named in WRITTEN."""
    kinds = ["Transformer", "Pooling"] + ["Dense"] * (config.dense_size is not None) + ["Normalize"] * config.normalize
    modules = [(f"{number}_{kind}" if number else "", kind) for number, kind in enumerate(kinds)]
    for name, _ in modules:
        (folder / name).mkdir(exist_ok=True)
    contents: dict[str, Any] = {
        "modules.json": [
            {"idx": number, "name": str(number), "path": name, "type": f"sentence_transformers.models.{kind}"}
            for number, (name, kind) in enumerate(modules)
        ],
        "config.json": encoder_config(config, tokenizer),
        "sentence_bert_config.json": {
            "max_seq_length": config.max_seq_length,
            "do_lower_case": config.do_lower_case,
        },
        "1_Pooling/config.json": {"word_embedding_dimension": config.hidden_size}
        | {flag: mode == config.pooling_mode for flag, mode in POOLING_FLAGS.items()}
        | ({} if config.include_prompt else {"include_prompt": False}),
        "tokenizer_config.json": tokenizer_config(config, tokenizer),
        SETTINGS_FILE: _settings_config(settings),
    }
    dense = {name.removeprefix(DENSE): array for name, array in weights.items() if name.startswith(DENSE)}
    if config.dense_size is not None:
        values = dense_module.dense_config(
            config.hidden_size, config.dense_size, config.dense_bias, config.dense_activation
        )
        contents[f"{dense_module.FOLDER}/config.json"] = values
        write_checkpoint(folder / dense_module.FOLDER / "model.safetensors", dense)
    stored_name = FAMILIES[config.model_type].stored_name
    encoder = {stored_name(name): array for name, array in weights.items() if not name.startswith(DENSE)}
    write_files(folder, contents, tokenizer, encoder)


def write_files(
    folder: Path,
    contents: Mapping[str, Any],
    tokenizer: SavableTokenizer,
    weights: Mapping[str, NDArray[np.float32]],
) -> None:
    """Write the JSON files of `contents`, tokenizer.json and model.safetensors."""
    for name, values in contents.items():
        (folder / name).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    write_checkpoint(folder / "model.safetensors", weights)


def encoder_config(config: ModelConfig, tokenizer: SavableTokenizer) -> dict[str, Any]:
    """config.json of an encoder without a head."""
    family = FAMILIES[config.model_type]
    values = {
        "architectures": [family.architectures[0]],
        "attention_probs_dropout_prob": 0.1,  # the dropout rates matter for further training only
        "hidden_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "model_type": config.model_type,
        "pad_token_id": tokenizer.pad_id,
        "position_embedding_type": "absolute",
    }
    fields = {family.key(field): getattr(config, field) for field in (*REQUIRED, *DEFAULTS)}
    return values | {key: value for key, value in fields.items() if key is not None}


def tokenizer_config(config: ModelConfig, tokenizer: SavableTokenizer) -> dict[str, Any]:
    """tokenizer_config.json. PreTrainedTokenizerFast uses tokenizer.json as it is; BertTokenizer would change it."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.max_seq_length,
        "padding_side": "right",
        "truncation_side": "right",
        **tokenizer.special_tokens,
    }


def _settings_config(settings: ModelSettings) -> dict[str, Any]:
    return {
        "__version__": {"minilm_np": minilm_np.__version__},
        "model_type": "SentenceTransformer",
        "prompts": settings.prompts,
        "default_prompt_name": settings.default_prompt_name,
        "similarity_fn_name": settings.similarity_fn_name,
        **({} if settings.truncate_dim is None else {"truncate_dim": settings.truncate_dim}),
    }
