"""The arguments of the public class: what they may be, and what they ask for. For those of sentence-transformers that
this package has no use for, what to do instead.
"""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from minilm_np.errors import InputTypeError, InputValueError
from minilm_np.model_files.config import ModelConfig

OUTPUT_VALUES = ("sentence_embedding", "token_embeddings", None)
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary", None)

# Arguments of SentenceTransformer() that are accepted where they ask for nothing.
_INSTEAD = {
    "cache_folder": "set HF_HUB_CACHE or MINILM_NP_CACHE",
    "config_kwargs": "change config.json in a copy of the folder",
    "model_card_data": "no model card is written",
    "model_kwargs": "the weights are read as float32",
    "modules": "save the modules, and name the folder",
    "processor_kwargs": "change tokenizer_config.json in a copy of the folder",
    "revision": "fetch that revision with `hf download`, and name its folder",
    "token": "set HF_TOKEN",
    "tokenizer_kwargs": "change tokenizer_config.json in a copy of the folder",
    "use_auth_token": "set HF_TOKEN",
}


def check_others(others: Mapping[str, Any]) -> None:
    """Raise unless the constructor's other arguments are sentence-transformers' and ask for nothing.

    `trust_remote_code` may be anything: no code of a model is ever run.
    """
    for name, value in others.items():
        if name not in _INSTEAD and name != "trust_remote_code":
            raise InputTypeError(f"SentenceEncoder has no argument {name!r}")
        if name in _INSTEAD and value not in (None, False, {}):
            raise InputValueError(f"{name}: expected None, found {value!r:.80}: {_INSTEAD[name]}")


def take_inputs(inputs: Any, others: dict[str, Any]) -> Any:
    """The texts of `encode`, under their present name or their old one.

    Raises InputValueError for an argument that `encode` does not know. `task` chooses among modules of sentence-
    transformers that no model here has.
    """
    others = dict(others)
    old = others.pop("sentences", None)
    others.pop("task", None)
    if others.pop("processing_kwargs", None):
        raise InputValueError("processing_kwargs: expected None; set max_seq_length to cut texts elsewhere")
    if others:
        raise InputValueError(f"encode has no argument {next(iter(others))!r}")
    return old if inputs is None else inputs


def check_encode(output_value: Any, precision: Any, device: Any, pool: Any, chunk_size: Any) -> None:
    """Raise InputValueError for what this package does not do."""
    _check_choice("output_value", output_value, OUTPUT_VALUES)
    _check_choice("precision", precision, PRECISIONS)
    if output_value is None and precision not in ("float32", None):
        raise InputValueError(f"precision: expected 'float32' with output_value=None, found {precision!r}")
    check_device(device)
    for name, value in (("pool", pool), ("chunk_size", chunk_size)):
        if value is not None:
            raise InputValueError(
                f"{name}: expected None, found {value!r:.80}: one process uses all processors already"
            )


def check_device(device: Any) -> None:
    """Raise InputValueError unless it is the CPU, by name or as torch names it."""
    if device is not None and str(device) != "cpu":
        raise InputValueError(f"device: expected 'cpu' or None, found {device!r:.80}: this package runs on processors")


def check_batch_size(batch_size: int) -> None:
    """Raise InputTypeError or InputValueError unless it is a number of at least 1."""
    check_int("batch_size", batch_size, 1)


def check_truncate_dim(truncate_dim: int | None) -> None:
    """Raise InputTypeError or InputValueError unless it is None or a number of at least 1."""
    if truncate_dim is not None:
        check_int("truncate_dim", truncate_dim, 1)


def check_limit(limit: int, config: ModelConfig) -> int:
    """A max_seq_length that the model has positions for. Raises InputTypeError, InputValueError."""
    return check_int("max_seq_length", limit, 2, config.max_position_embeddings, " (the model's positions)")


def check_int(name: str, value: Any, least: int, most: int | None = None, why: str = "") -> int:
    """An int within bounds. Raises InputTypeError, InputValueError."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InputTypeError(f"{name}: expected an int, found {type(value).__name__}") from None
    if isinstance(value, bool) or number < least or (most is not None and number > most):
        expected = f"of at least {least}" if most is None else f"from {least} to {most}{why}"
        raise InputValueError(f"{name}: expected an int {expected}, found {value!r}")
    return number


def _check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    if not isinstance(value, str | None) or value not in choices:
        raise InputValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, found {value!r:.80}")
