"""The arguments of `CrossEncoder`, checked: pairs of texts, and the activation."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from minilm_np._checks import check_texts, one_of
from minilm_np.errors import InputTypeError, InputValueError, MiniLMError
from minilm_np.model_files.cross_encoder_files import ACTIVATIONS, activation_name

Pair = Sequence[str]  # two texts
Pairs = Pair | Iterable[Pair]


def checked_activation(activation_fn: object) -> str:
    """The name of an activation. Raises InputValueError."""
    name = activation_name(activation_fn)
    if name is None:
        raise InputValueError(
            f"activation_fn: expected {one_of(ACTIVATIONS)}, or such an object of torch.nn, found {activation_fn!r:.80}"
        )
    return name


def read_pairs(inputs: Pairs | None) -> tuple[list[tuple[str, str]], bool]:
    """The pairs as tuples of checked texts, and whether `inputs` is one pair.

    Raises InputTypeError, InputValueError; both name the pair.
    """
    if inputs is None:
        raise InputTypeError("inputs: expected pairs of texts, found None")
    if hasattr(type(inputs), "columns"):  # a table: iterating gives the names of its columns, or the columns
        raise InputTypeError(
            f"inputs: expected pairs of texts, found {type(inputs).__name__}: pass its columns as pairs, such as "
            'zip(df["query"], df["document"])'
        )
    if isinstance(inputs, str | bytes | Mapping) or not hasattr(inputs, "__iter__"):
        raise InputTypeError(
            f"inputs: expected a pair of texts or several, found {type(inputs).__name__}: pass (query, document)"
        )
    items: list[Any] = inputs.tolist() if isinstance(inputs, np.ndarray) else list(inputs)
    is_single = bool(items) and isinstance(items[0], str)
    return [_read_pair(number, item) for number, item in enumerate([items] if is_single else items)], is_single


def _read_pair(number: int, item: Any) -> tuple[str, str]:
    if isinstance(item, str | bytes | Mapping) or not hasattr(item, "__iter__"):
        raise InputTypeError(f"pair {number}: expected two texts, found {type(item).__name__}")
    texts = list(item)
    if len(texts) != 2:
        raise InputValueError(f"pair {number}: expected two texts, found {len(texts)}")
    try:
        first, second = check_texts(texts)
    except MiniLMError as error:
        raise type(error)(f"pair {number}: {error}") from None
    return first, second
