"""The interface of every engine: token ids in, vectors out. `registry.py` lists the engines."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Weights = dict[str, Vectors]
Arrays = dict[str, NDArray[Any]]
Report = Callable[[int], object]  # called with the number of texts finished since the last call


@dataclass(frozen=True)
class Packed:
    """Weights in the layout of one kind of engine. read: returns what `packed` of such an engine returned."""

    read: Callable[[], Arrays]


class Engine(Protocol):
    """A model's weights in the layout of one backend, and the arithmetic on them. B texts, T tokens each, D numbers.

    Encoding does not change an engine, so several threads may use one at the same time.
    """

    @property
    def threads(self) -> int | None:
        """The number of threads per call, the calling thread included; None if the engine does not decide."""

    def encode(
        self,
        texts: Sequence[Sequence[int]],
        *,
        normalize: bool,
        report: Report,
        token_type_ids: Sequence[Sequence[int]] | None = None,
    ) -> Vectors:
        """Return the vectors of ragged token ids, (B, D).

        normalize: scale the vectors to unit length even if the model does not.
        token_type_ids: the type of each token, 1 for the second text of a pair; None: all are 0.
        """

    def encode_with_hidden_states(
        self, texts: Sequence[Sequence[int]], *, normalize: bool, report: Report
    ) -> tuple[Vectors, list[Vectors]]:
        """Return what `encode` returns, and for each text the hidden states after the last layer, (T, D)."""

    def output(self, pooled: Vectors, *, normalize: bool) -> Vectors:
        """Return the vectors of texts that are pooled elsewhere, (B, D): what `encode` does after its pooling."""

    def intermediates(
        self, text: Sequence[int], token_type_ids: Sequence[int] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Return the named arrays of one text in the model's order, without a batch axis.

        token_type_ids: as for `encode`. The names are those of `reference.py`. An engine leaves out the steps that it
        fuses.
        """

    def weights(self) -> Weights:
        """Return the float32 weights by Hugging Face's names, in the model's order; read-only."""

    def iter_weights(self) -> Iterator[tuple[str, Vectors]]:
        """Yield the items of `weights()`, one in memory at a time where the engine can do that."""


@runtime_checkable
class PackingEngine(Protocol):
    """An engine with weights in a layout that takes time to make."""

    def packed(self) -> Arrays:
        """Return the C-contiguous arrays of that layout, from which `Packed` makes the engine again."""
