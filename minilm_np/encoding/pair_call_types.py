"""The types of `CrossEncoder.predict` and `rank` for type checkers: which arguments give which result."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NotRequired, Protocol, TypedDict, overload

import numpy as np
from numpy.typing import NDArray

from minilm_np.encoding.pair_inputs import Pairs

if TYPE_CHECKING:
    from torch import Tensor

Scores = NDArray[np.float32]


class Ranked(TypedDict):
    """One document in the result of `CrossEncoder.rank`."""

    corpus_id: int  # its index in the documents
    score: float
    text: NotRequired[str]


class PredictCall(Protocol):
    """A call of `predict`."""

    @overload
    def __call__(
        self, inputs: Pairs | None = ..., prompt_name: str | None = ..., prompt: str | None = ...,
        batch_size: int = ..., show_progress_bar: bool | None = ..., activation_fn: object = ...,
        apply_softmax: bool | None = ..., convert_to_numpy: Literal[True] = ...,
        convert_to_tensor: Literal[False] = ..., device: str | None = ..., pool: None = ..., chunk_size: None = ..., *,
        on_truncation: str = ..., **others: Any,
    ) -> Scores: ...  # fmt: skip
    @overload
    def __call__(
        self, inputs: Pairs | None = ..., prompt_name: str | None = ..., prompt: str | None = ...,
        batch_size: int = ..., show_progress_bar: bool | None = ..., activation_fn: object = ...,
        apply_softmax: bool | None = ..., convert_to_numpy: bool = ..., *, convert_to_tensor: Literal[True],
        device: str | None = ..., pool: None = ..., chunk_size: None = ..., on_truncation: str = ..., **others: Any,
    ) -> "Tensor": ...  # fmt: skip
    @overload
    def __call__(
        self, inputs: Pairs | None = ..., prompt_name: str | None = ..., prompt: str | None = ...,
        batch_size: int = ..., show_progress_bar: bool | None = ..., activation_fn: object = ...,
        apply_softmax: bool | None = ..., *, convert_to_numpy: Literal[False], convert_to_tensor: Literal[False] = ...,
        device: str | None = ..., pool: None = ..., chunk_size: None = ..., on_truncation: str = ..., **others: Any,
    ) -> list[Scores]: ...  # fmt: skip


def typed_as_predict(method: Callable[..., Any]) -> PredictCall:
    """Give a method of `CrossEncoder` the overloads of `PredictCall`."""
    return method
