"""What every other implementation looks like from here."""

import importlib
import warnings
from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from minilm_np.errors import MissingExtraError

Array = NDArray[Any]


class Implementation(Protocol):
    """Something that turns texts into vectors, or has done so."""

    @property
    def name(self) -> str:
        """What a table calls it."""

    @property
    def texts(self) -> list[str] | None:
        """The texts that it has vectors of, and no others; None where it takes any, or does not know."""

    def vectors(self, texts: Sequence[str]) -> Array:
        """B texts -> (B, D) floats as the other side gives them: D may not be the model's, and values not finite."""

    def intermediates(self, texts: Sequence[str]) -> list[dict[str, Array]] | None:
        """One dict a text of what `reference.forward` records, by its names and in its shapes; None where it has none.

        They are computed from this package's token ids, so that arithmetic is judged apart from tokenization.
        """

    def token_ids(self, texts: Sequence[str]) -> list[list[int]] | None:
        """The ids that its own tokenizer gives; None where it has none, or does not show them."""


def load_extra(module: str) -> Any:
    """Import what only comparisons need, without the warnings of its import. Raises MissingExtraError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"this comparison needs {module.partition('.')[0]}, which cannot be imported ({error}): "
            "pip install 'minilm-np[verify]'"
        ) from error
