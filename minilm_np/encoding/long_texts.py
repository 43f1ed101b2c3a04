"""Encode texts of any length: as overlapping windows, each with its own vector, or pooled to one vector per text.

`text/windows.py` splits the texts. Apart from the results, memory holds one piece of a text and one batch of windows.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from minilm_np._checks import check_choice, check_optional_int, check_texts
from minilm_np.encoding.call_types import Matrix, Vector
from minilm_np.encoding.loaded_model import HasModel, LoadedModel, model_of
from minilm_np.encoding.prompts import encode, pooling_start
from minilm_np.engine.doubles import unit_length
from minilm_np.engine.protocol import Vectors
from minilm_np.errors import InputValueError, NonFiniteError
from minilm_np.text.windows import Part, cut, surrounded

POOLINGS = ("mean", "max", None)

BATCH_TOKENS = 65536  # of windows encoded at a time, across texts; enough to divide evenly among threads


class Window(NamedTuple):
    """A part of a text, and its vector."""

    start: int  # in characters of the text
    end: int
    text: str  # the text's [start:end], without white space at either end
    vector: Vector  # (d,)
    n_tokens: int  # [CLS] and [SEP] included


@overload
def encode_long(  # type: ignore[overload-overlap]  # a str is an iterable of str, too
    encoder: LoadedModel | HasModel,
    texts: str,
    window: int | None = ...,
    stride: int | None = ...,
    pooling: Literal["mean", "max"] = ...,
    *,
    prompt_name: str | None = ...,
    prompt: str | None = ...,
) -> Vector: ...
@overload
def encode_long(
    encoder: LoadedModel | HasModel,
    texts: Iterable[str],
    window: int | None = ...,
    stride: int | None = ...,
    pooling: Literal["mean", "max"] = ...,
    *,
    prompt_name: str | None = ...,
    prompt: str | None = ...,
) -> Matrix: ...
@overload
def encode_long(  # type: ignore[overload-overlap]
    encoder: LoadedModel | HasModel,
    texts: str,
    window: int | None = ...,
    stride: int | None = ...,
    *,
    pooling: None,
    prompt_name: str | None = ...,
    prompt: str | None = ...,
) -> list[Window]: ...
@overload
def encode_long(
    encoder: LoadedModel | HasModel,
    texts: Iterable[str],
    window: int | None = ...,
    stride: int | None = ...,
    *,
    pooling: None,
    prompt_name: str | None = ...,
    prompt: str | None = ...,
) -> list[list[Window]]: ...
def encode_long(
    encoder: LoadedModel | HasModel,
    texts: str | Iterable[str],
    window: int | None = None,
    stride: int | None = None,
    pooling: Literal["mean", "max"] | None = "mean",
    *,
    prompt_name: str | None = None,
    prompt: str | None = None,
) -> Vectors | list[Window] | list[list[Window]]:
    """Encode texts of any length completely.

    texts: a str, or several in a list, an array or a column of a table.
    window: the number of tokens per window, [CLS] and [SEP] included; None: the model's limit.
    stride: the number of tokens between the starts of consecutive windows, unless a sentence boundary changes it; None:
        three quarters of the window. Consecutive windows overlap in the rest.
    pooling: "mean" of the windows' vectors, weighted by n_tokens; or "max", element by element. Both are scaled to unit
        length if the model normalizes. None: all windows, each with its place in the text.
    prompt_name, prompt: as for `encode`; the prompt is put before each window.

    Returns float32 for "mean" and "max": (d,) for a str, (n, d) for n texts. For None, a list of `Window`s in order, at
    least one, for a str; a list of such lists for several texts. The vector of a text that fits into one window is that
    of `encode`, bit for bit.
    Raises InputTypeError, InputValueError (both name the argument or the text), NonFiniteError.
    """
    model = model_of(encoder)
    check_choice("pooling", pooling, POOLINGS)
    prefix = model.settings.prefix(prompt_name, prompt)
    room, stride = _sizes(model, prefix, window, stride)
    many = check_texts([texts] if isinstance(texts, str) else texts)
    parts = (part for n, text in enumerate(many) for part in cut(model.tokenizer, prefix, n, text, room, stride))
    encoded = itertools.groupby(_encoded(model, parts, pooling_start(model, prefix)), key=lambda found: found[0].number)
    d = model.settings.dimension(model.config.vector_size)
    if pooling is None:
        windows = [
            [
                Window(part.start, part.end, many[number][part.start : part.end], vector[:d], len(part.ids))
                for part, vector in of_text
            ]
            for number, of_text in encoded
        ]
        return windows[0] if isinstance(texts, str) else windows
    vectors = np.empty((len(many), d), np.float32)
    for number, of_text in encoded:
        vectors[number] = _pooled(of_text, pooling, model.config.normalize)[:d]
    return vectors[0] if isinstance(texts, str) else vectors


def _sizes(model: LoadedModel, prefix: str, window: int | None, stride: int | None) -> tuple[int, int]:
    """Return how many word pieces of a text fit into a window, and the stride, both checked."""
    limit, n_special = model.config.max_seq_length, len(surrounded(model.tokenizer, prefix, []))
    if n_special >= limit:
        raise InputValueError(
            f"prompt: with [CLS] and [SEP] it has {n_special} tokens, which leaves no room for a text: the model's "
            f"limit is {limit} tokens: use a shorter prompt"
        )
    hint = f"{n_special} of a window's tokens are [CLS]{', the prompt' * bool(prefix)} and [SEP]"
    window = check_optional_int("window", window, n_special + 1, limit, hint=hint) or limit
    room = window - n_special
    hint = f"a window of {window} tokens holds {room} tokens of the text, and no gap between windows is allowed"
    return room, check_optional_int("stride", stride, 1, room, hint=hint) or room - room // 4


def _encoded(model: LoadedModel, parts: Iterable[Part], start: int) -> Iterator[tuple[Part, Vectors]]:
    """Yield the windows with their vectors, in order, encoded one batch at a time."""
    for batch in _batches(parts):
        for part in batch:
            model.tokenizer.check_tokens([part.ids], part.number)
        ids = [part.ids for part in batch]
        vectors = encode(model.engine, ids, start, model.config.pooling_mode, normalize=False, report=lambda done: None)
        for part, vector in zip(batch, vectors, strict=True):
            if not np.isfinite(vector).all():
                raise NonFiniteError(
                    f"text {part.number}, characters {part.start} to {part.end}: its vector is not finite. The weights "
                    "overflow float32 on this text: check the model that was loaded"
                )
            yield part, vector


def _batches(parts: Iterable[Part]) -> Iterator[list[Part]]:
    batch: list[Part] = []
    n_tokens = 0
    for part in parts:
        batch.append(part)
        n_tokens += len(part.ids)
        if n_tokens >= BATCH_TOKENS:
            yield batch
            batch, n_tokens = [], 0
    if batch:
        yield batch


def _pooled(windows: Iterable[tuple[Part, Vectors]], pooling: str, normalize: bool) -> NDArray[Any]:
    """Return one vector, (D,), of a text's windows: float64 sums in the text's order, for the same bits everywhere."""
    of_text = iter(windows)
    part, only = next(of_text)
    count, n_tokens = 1, len(part.ids)
    pooled: NDArray[Any] = only.astype(np.float64) * (n_tokens if pooling == "mean" else 1)
    for part, vector in of_text:
        count, n_tokens = count + 1, n_tokens + len(part.ids)
        pooled = pooled + vector.astype(np.float64) * len(part.ids) if pooling == "mean" else np.maximum(pooled, vector)
    if count == 1:
        return only
    if pooling == "mean":
        pooled /= n_tokens
    return unit_length(pooled[None])[0] if normalize else pooled
