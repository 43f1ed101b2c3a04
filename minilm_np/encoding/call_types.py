"""The types of `SentenceEncoder.encode` for type checkers: which arguments give which result.

`encode`, `encode_query` and `encode_document` share these overloads through the decorator `typed_as_encode`, which does
nothing at run time.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, overload

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing import Unpack

    from torch import Tensor

Vector = np.ndarray[tuple[int], np.dtype[np.float32]]  # (d,)
Matrix = np.ndarray[tuple[int, int], np.dtype[np.float32]]  # (n, d), or the hidden states (T, D) of one text
Features = dict[str, Any]  # sentence-transformers' features of one text, by name

Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"] | None
Quantized = Literal["int8", "uint8", "binary", "ubinary"]
OnTruncation = Literal["warn", "ignore", "error"]


class PaddedTokens(TypedDict):
    """Tokens of B texts as torch's BertModel takes them, (B, T) each."""

    input_ids: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]


class TokenizedTexts(PaddedTokens):
    """The result of `SentenceEncoder.tokenize`."""

    n_tokens: list[int]
    truncated: list[bool]


class EncodeOptions(TypedDict, total=False):
    """Arguments that do not change the type of the result."""

    prompt_name: str | None
    prompt: str | None
    batch_size: int
    show_progress_bar: bool | None
    device: Literal["cpu"] | None
    normalize_embeddings: bool
    truncate_dim: int | None
    pool: None
    chunk_size: None
    on_truncation: OnTruncation


class EncodeCall(Protocol):
    """A call of `encode`. Arguments that are not named here, or are positional, have the types of `EncodeOptions`."""

    # One text.
    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is an iterable of str, too
        self,
        inputs: str,
        *,
        output_value: Literal["sentence_embedding"] = ...,
        precision: Literal["float32"] | None = ...,
        convert_to_numpy: bool = ...,
        convert_to_tensor: Literal[False] = ...,
        **options: "Unpack[EncodeOptions]",
    ) -> Vector: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self,
        inputs: str,
        *,
        output_value: Literal["token_embeddings"],
        precision: Literal["float32"] | None = ...,
        convert_to_numpy: bool = ...,
        convert_to_tensor: Literal[False] = ...,
        **options: "Unpack[EncodeOptions]",
    ) -> Matrix: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self,
        inputs: str,
        *,
        output_value: Literal["sentence_embedding", "token_embeddings"] = ...,
        precision: Precision = ...,
        convert_to_numpy: bool = ...,
        convert_to_tensor: Literal[True],
        **options: "Unpack[EncodeOptions]",
    ) -> "Tensor": ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self,
        inputs: str,
        *,
        output_value: None,
        precision: Literal["float32"] | None = ...,
        convert_to_numpy: bool = ...,
        convert_to_tensor: bool = ...,
        **options: "Unpack[EncodeOptions]",
    ) -> Features: ...

    # Several texts.
    @overload
    def __call__(
        self,
        inputs: Iterable[str],
        *,
        output_value: Literal["sentence_embedding"] = ...,
        precision: Literal["float32"] | None = ...,
        convert_to_numpy: Literal[True] = ...,
        convert_to_tensor: Literal[False] = ...,
        **options: "Unpack[EncodeOptions]",
    ) -> Matrix: ...
    @overload
    def __call__(
        self,
        inputs: Iterable[str],
        *,
        output_value: Literal["sentence_embedding"] = ...,
        precision: Literal["float32"] | None = ...,
        convert_to_numpy: Literal[False],
        convert_to_tensor: Literal[False] = ...,
        **options: "Unpack[EncodeOptions]",
    ) -> list[Vector]: ...
    @overload
    def __call__(
        self,
        inputs: Iterable[str],
        *,
        output_value: Literal["token_embeddings"],
        precision: Literal["float32"] | None = ...,
        convert_to_numpy: bool = ...,
        convert_to_tensor: Literal[False] = ...,
        **options: "Unpack[EncodeOptions]",
    ) -> list[Matrix]: ...
    @overload
    def __call__(
        self,
        inputs: Iterable[str],
        *,
        output_value: Literal["sentence_embedding"] = ...,
        precision: Quantized,
        convert_to_numpy: Literal[True] = ...,
        convert_to_tensor: Literal[False] = ...,
        **options: "Unpack[EncodeOptions]",
    ) -> NDArray[np.integer[Any]]: ...
    @overload
    def __call__(
        self,
        inputs: Iterable[str],
        *,
        output_value: Literal["sentence_embedding"] = ...,
        precision: Precision = ...,
        convert_to_numpy: bool = ...,
        convert_to_tensor: Literal[True],
        **options: "Unpack[EncodeOptions]",
    ) -> "Tensor": ...
    @overload
    def __call__(
        self,
        inputs: Iterable[str],
        *,
        output_value: Literal["token_embeddings"],
        precision: Literal["float32"] | None = ...,
        convert_to_numpy: bool = ...,
        convert_to_tensor: Literal[True],
        **options: "Unpack[EncodeOptions]",
    ) -> "list[Tensor]": ...
    @overload
    def __call__(
        self,
        inputs: Iterable[str],
        *,
        output_value: None,
        precision: Literal["float32"] | None = ...,
        convert_to_numpy: bool = ...,
        convert_to_tensor: bool = ...,
        **options: "Unpack[EncodeOptions]",
    ) -> list[Features]: ...

    # Values that are known only at run time, positional options, sentence-transformers' older names.
    @overload
    def __call__(
        self,
        inputs: str | Iterable[str] | None = ...,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
        output_value: str | None = ...,
        precision: str | None = ...,
        convert_to_numpy: bool = ...,
        convert_to_tensor: bool = ...,
        device: str | None = ...,
        normalize_embeddings: bool = ...,
        truncate_dim: int | None = ...,
        pool: None = ...,
        chunk_size: None = ...,
        *,
        on_truncation: str = ...,
        **others: Any,
    ) -> Any: ...


def typed_as_encode(method: Callable[..., Any]) -> EncodeCall:
    """Give a method of `SentenceEncoder` the overloads of `EncodeCall`."""
    return method


def with_signature_of(model: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Show the arguments of `model` in `help` and `inspect.signature` of a method that passes its own on to it."""

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        method.__signature__ = inspect.signature(model)  # type: ignore[attr-defined]
        return method

    return decorate
