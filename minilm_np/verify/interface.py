"""The interface of every other implementation, and how their packages are imported."""

import importlib
import warnings
from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from minilm_np.errors import MissingExtraError

Array = NDArray[Any]
TextPair = tuple[str, str]

DISTRIBUTIONS = {  # by module, where pip needs more than that name
    "sentence_transformers": "sentence-transformers torch",
    "transformers": "transformers torch",
    "onnxruntime": "onnxruntime onnx",
    "faiss": "faiss-cpu",
}


class Implementation(Protocol):
    """A source of vectors: a program that computes them, or a file that contains them."""

    @property
    def name(self) -> str:
        """The name in reports."""

    @property
    def texts(self) -> list[str] | None:
        """The texts for which it has vectors; None if it takes any text, or does not say."""

    def vectors(self, texts: Sequence[str]) -> Array:
        """Return the vectors of B texts, (B, D) floats, unchecked: D may differ from the model's, values may be NaN."""

    def intermediates(self, texts: Sequence[str]) -> list[dict[str, Array]] | None:
        """Return one dict per text: arrays with the names and shapes of `reference.forward`. None if it has none.

        They are computed from this package's token ids, so that arithmetic is judged apart from tokenization.
        """

    def token_ids(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Return the token ids of its own tokenizer; None if it has none, or does not show them."""


class PairImplementation(Protocol):
    """A source of scores: a program that computes them, or a file that contains them."""

    @property
    def name(self) -> str:
        """The name in reports."""

    @property
    def pairs(self) -> list[TextPair] | None:
        """The pairs for which it has scores; None if it takes any pair, or does not say."""

    @property
    def activation(self) -> str | None:
        """The function from logits to its scores, such as "Identity"; None: that of the model."""

    def scores(self, pairs: Sequence[TextPair]) -> Array:
        """Return the scores of n pairs, (n,) or (n, C) floats, unchecked."""

    def intermediates(self, pair: TextPair) -> dict[str, Array]:
        """Return arrays with the names and shapes of `reference.classify`, from this package's token ids; or {}."""

    def token_ids(self, pairs: Sequence[TextPair]) -> list[list[int]] | None:
        """Return the token ids of its own tokenizer; None if it has none, or does not show them."""


def load_extra(module: str) -> Any:
    """Import a module of the extra `verify`, without the warnings of its import. Raises MissingExtraError.

    The error names the libraries and not the extra: that works from a checkout, from a wheel and from an index.
    """
    package = module.partition(".")[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"this comparison needs {package}, which cannot be imported ({error}): pip install "
            f"{DISTRIBUTIONS.get(package, package)}"
        ) from error
