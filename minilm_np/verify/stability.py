"""Whether another implementation returns one vector per text, however it is asked: alone, in a batch, concurrently.

Servers mix up the responses of concurrent requests, attend to the padding of a batch, or round differently in each
batch. `compare` asks for all texts once, so it can miss each of these.
"""

import math
import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from minilm_np._checks import check_texts
from minilm_np._progress import tracked
from minilm_np.errors import ImplementationError, InputValueError
from minilm_np.reference import Array
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.verify.array_errors import errors
from minilm_np.verify.comparison import TOLERANCE
from minilm_np.verify.endpoint import Endpoint
from minilm_np.verify.implementations import as_implementation
from minilm_np.verify.interface import Implementation
from minilm_np.verify.onnx_model import OnnxModel
from minilm_np.verify.stored_vectors import StoredVectors
from minilm_np.verify.texts import built_in_texts
from minilm_np.verify.torch_models import TransformersModel
from minilm_np.verify.vector_errors import FLOOR

MOST = 64  # texts; of a longer list, evenly spaced ones
IN_FLIGHT = 8  # requests to a server at a time
ROUNDS = 2  # requests per text while others are in flight

AGAIN, BATCH, ORDER = "asked again", "in one batch", "in another order"
CONCURRENT = f"with {IN_FLIGHT} requests at a time"


@dataclass(frozen=True)
class Change:
    """How the vectors change when the texts are asked for in one way, compared with each text alone.

    "in another order" is compared with "in one batch".
    """

    way: str
    changed: int  # vectors with any other bit
    max_abs: float  # largest difference of a number; infinite if a vector becomes NaN or infinite
    relative: float  # the same over the vector's length
    min_cosine: float
    worst_text: str | None  # the text with the largest difference; None if no vector changes
    of_other_texts: int  # changed vectors that are those of other texts
    by_padding: bool  # beyond rounding, and only where a longer text is in the batch

    @property
    def is_rounding(self) -> bool:
        """Whether the changes are no larger than those of a float32 sum in another order."""
        return self.relative <= TOLERANCE


@dataclass(frozen=True)
class Stability:
    """The result of `check_stability`."""

    source: str
    texts: int
    changes: tuple[Change, ...]
    not_tested: str | None  # the ways that are impossible with this implementation, and why
    failure: str | None = None  # the error of a request that failed while others were in flight, such as 429

    @property
    def is_stable(self) -> bool:
        """Whether no vector changes beyond rounding."""
        return all(change.is_rounding for change in self.changes)

    @property
    def sentence(self) -> str:
        """The result in words."""
        if not self.changes:
            return f"Stability is not tested: {self.not_tested}."
        changes = [change for change in self.changes if change.changed]
        but = f" But a request failed while others were in flight: {self.failure}" if self.failure else ""
        if not changes:
            return f"Stable: no bit of any vector changes.{but}"
        if self.is_stable:
            return f"Stable within rounding: {'; '.join(_count(change, self.texts) for change in changes)}.{but}"
        said = [_explained(change, self.texts) for change in changes if not change.is_rounding]
        return f"Not stable: {' '.join(said)}{but}"

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON-compatible values; an infinite error is None."""
        found = asdict(self)
        for change in found["changes"]:
            change |= {key: None for key in ("max_abs", "relative") if not math.isfinite(change[key])}
        return {"sentence": self.sentence, "is_stable": self.is_stable, **found}


def check_stability(
    encoder: SentenceEncoder,
    source: str | Implementation,
    texts: Sequence[str] | None = None,
    *,
    progress: bool = False,
) -> Stability:
    """Ask an implementation for the same texts in several ways, and return which ways change a vector.

    source: an argument of `open_implementation`, or its result.
    texts: None: the built-in texts. Of more than 64 texts, 64 evenly spaced ones are used.
    progress: show progress on stderr: after a few seconds a bar on a terminal, elsewhere a line every ten seconds.

    Each text is asked for alone, and alone again; then all in one batch, and in a batch of another order; then, from a
    server, alone while 7 requests for other texts are in flight. If one of these fails, `failure` of the result is its
    error. A file of vectors is not tested.
    Raises InputTypeError and InputValueError (texts, source), ImplementationError (the other implementation fails),
    MissingExtraError (a package is not installed).
    """
    other = as_implementation(source, encoder)
    if isinstance(other, StoredVectors):
        return Stability(other.name, 0, (), "a file of vectors cannot be asked again")
    if texts is None:
        texts = other.texts if other.texts is not None else [text for _, text in built_in_texts(encoder)]
    texts = check_texts(texts)
    if not texts:
        raise InputValueError("texts: expected at least one, found none")
    texts = list(dict.fromkeys(texts))  # two equal texts cannot be told apart
    if len(texts) > MOST:
        texts = [texts[place * len(texts) // MOST] for place in range(MOST)]

    def each(what: str) -> Iterable[str]:
        return tracked(texts, what, "text", delay=3, leave=False) if progress else texts

    alone = np.concatenate([_asked(other, [text]) for text in each("asking for each text")])
    again = np.concatenate([_asked(other, [text]) for text in each("asking again")])
    changes = [_change(AGAIN, again, alone, alone, texts)]
    if not isinstance(other, TransformersModel | OnnxModel):  # these are run with one text at a time
        batch = _asked(other, texts)
        changes.append(_change(BATCH, batch, alone, alone, texts, by_padding=_is_padding(other, texts, batch, alone)))
        order = random.Random(0).sample(range(len(texts)), len(texts))
        reordered = np.empty_like(batch)
        reordered[order] = _asked(other, [texts[row] for row in order])
        changes.append(_change(ORDER, reordered, batch, alone, texts))
    failure = None
    if isinstance(other, Endpoint):
        try:
            rounds = [_concurrently(other, texts, seed) for seed in range(ROUNDS)]
        except ImplementationError as error:
            failure = str(error)
        else:
            found = [_change(CONCURRENT, vectors, alone, alone, texts) for vectors in rounds]
            changes.append(max(found, key=lambda change: (change.relative, change.changed)))
    return Stability(other.name, len(texts), tuple(changes), _not_tested(other), failure)


def _not_tested(other: Implementation) -> str | None:
    if isinstance(other, TransformersModel | OnnxModel):
        return "batches, because this comparison runs it with one text at a time; and concurrent requests"
    return None if isinstance(other, Endpoint) else "concurrent requests, because it is not a server"


def _asked(other: Implementation, texts: Sequence[str]) -> Array:
    """The vectors of some texts, checked. Raises ImplementationError: other than one vector per text."""
    found = np.asarray(other.vectors(texts))
    if found.ndim != 2 or len(found) != len(texts):
        raise ImplementationError(f"{other.name}: expected {len(texts)} vectors, found an array of shape {found.shape}")
    return found


def _concurrently(other: Implementation, texts: Sequence[str], seed: int) -> Array:
    """The vectors of texts in separate requests, IN_FLIGHT at a time, in a random order."""
    order = random.Random(seed).sample(range(len(texts)), len(texts))
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        found = list(pool.map(lambda row: _asked(other, [texts[row]])[0], order))
    vectors = np.empty((len(texts), len(found[0])), found[0].dtype)
    vectors[order] = found
    return vectors


def _is_padding(other: Implementation, texts: Sequence[str], batch: Array, alone: Array) -> bool:
    """Whether only longer neighbours change a vector: in a batch with itself, without padding, no text changes."""
    changed = [row for row in range(len(texts)) if _relative(batch[row], alone[row]) > TOLERANCE]
    pairs = ((_asked(other, [texts[row]] * 2), alone[row]) for row in changed)
    return bool(changed) and all(_relative(vector, truth) <= TOLERANCE for pair, truth in pairs for vector in pair)


def _change(
    way: str, found: Array, expected: Array, alone: Array, texts: Sequence[str], *, by_padding: bool = False
) -> Change:
    if found.shape != expected.shape:
        raise ImplementationError(
            f"vectors {way}: expected the shape {expected.shape}, as in the requests before, found {found.shape}"
        )
    rows = [row for row in range(len(texts)) if not np.array_equal(found[row], expected[row], equal_nan=True)]
    if not rows:
        return Change(way, 0, 0.0, 0.0, 1.0, None, 0, False)
    apart = {row: _difference(found[row], expected[row]) for row in rows}
    worst = max(rows, key=lambda row: apart[row][1])
    swapped = sum(
        apart[row][1] > TOLERANCE and any(_relative(found[row], one) <= TOLERANCE for one in alone) for row in rows
    )
    return Change(
        way,
        len(rows),
        max(max_abs for max_abs, _, _ in apart.values()),
        apart[worst][1],
        min(cosine for _, _, cosine in apart.values()),
        texts[worst],
        swapped,
        by_padding and not swapped,
    )


def _difference(found: Array, expected: Array) -> tuple[float, float, float]:
    """The largest difference of a number, the same over the length of the vector, and the cosine."""
    if not (np.isfinite(found).all() and np.isfinite(expected).all()):
        return math.inf, math.inf, -1.0
    apart = errors(found, expected)
    return apart.max_abs, apart.max_abs / max(float(np.linalg.norm(expected)), FLOOR), apart.min_cosine


def _relative(found: Array, expected: Array) -> float:
    return _difference(found, expected)[1]


def _count(change: Change, texts: int) -> str:
    return f"{change.way}, {change.changed} of {texts} vectors change by at most {change.max_abs:.1e}"


def _explained(change: Change, texts: int) -> str:
    """One or two sentences about a change beyond rounding, without a capital letter at the beginning."""
    said = f"{_count(change, texts)} (smallest cosine {change.min_cosine:.4f})."
    if change.of_other_texts:
        number = change.of_other_texts
        what = "is the vector of another text" if number == 1 else "are vectors of other texts"
        said += f" {number} of them {what}: the responses are mixed up."
    if change.by_padding:
        said += (
            " Only longer texts in the same batch change a vector: the padding is attended to or pooled. Check the "
            "attention mask, or send one text per request."
        )
    return said
