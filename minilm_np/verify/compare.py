"""Compare an encoder with another implementation: how far apart they are, which is closer to float64, where they part.

The reference for both sides is `reference.py` in float64, one text at a time. The errors are those of whole arrays, see
`array_errors.py`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from minilm_np import reference
from minilm_np._checks import check_texts
from minilm_np._progress import tracked
from minilm_np.engine.blas import one_blas_thread
from minilm_np.errors import InputValueError
from minilm_np.reference import Array
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.verify.array_errors import Row, row, worst
from minilm_np.verify.implementations import as_implementation
from minilm_np.verify.interface import Implementation
from minilm_np.verify.texts import built_in_texts
from minilm_np.verify.vector_errors import FLOOR

# The largest difference of any number of a vector, relative to the vector's length: some 50 times the difference of two
# float32 implementations, and a thirtieth of that from tanh GELU, eps 1e-5 or float16 weights (3e-4 to 5e-4).
TOLERANCE = 1e-5

# The other implementation parts from the model where its error is more than this many times our float32 error.
PARTING = 16.0

SHOWN = 3  # texts that a problem names


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`."""

    ours: str
    theirs: str
    texts: int
    tolerance: float
    largest: float | None  # largest difference of a number, over the vector's length; None if nothing was compared
    our_largest: float  # the same of our vectors against float64
    intermediates: list[Row]  # in the model's order; empty if the other implementation shows none
    vector: Row | None
    parts_at: str | None  # the first intermediate whose error is more than float32 rounding
    problems: list[str]  # arrays that could not be compared, or are invalid: tokens, shapes, NaN

    @property
    def within(self) -> bool:
        """Whether there are no problems, and the errors of both sides are within the tolerance."""
        errors = (math.inf if self.largest is None else self.largest, self.our_largest)
        return not self.problems and max(errors) <= self.tolerance

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        parted = f"the first step that differs is {self.parts_at}" if self.parts_at else ""
        if self.vector is None or self.largest is None:
            return "; ".join(filter(None, ("not comparable", *self.problems[:1], parted)))
        ours, theirs = self.vector.ours.max_abs, self.vector.theirs.max_abs
        side = "both equally" if ours == theirs else "ours" if ours < theirs else "theirs"
        closer = f"closer to float64: {side} (largest error: ours {ours:.1e}, theirs {theirs:.1e})"
        if self.within:
            where = f"within the tolerance: {_of_allowed(self.largest, self.tolerance)}"
        elif self.largest <= self.tolerance < self.our_largest:
            where = (
                "our own vectors are outside the tolerance: the largest error against float64 is "
                f"{self.our_largest:.1e}, {self.tolerance:g} is allowed"
            )
        elif self.largest <= self.tolerance:
            rest = f"everything else is within the tolerance: {_of_allowed(self.largest, self.tolerance)}"
            where = f"{self.problems[0]}; {rest}"
        else:
            where = (
                f"outside the tolerance: {_of_allowed(self.largest, self.tolerance)}; the worst is "
                f"{_named(self.vector.worst_text)}"
            )
        return "; ".join(filter(None, (where, parted, closer)))

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON-compatible values; an infinite error is None."""
        found = _without_infinities(asdict(self))
        return {"verdict": self.verdict, "within": self.within, **found}


def compare(
    encoder: SentenceEncoder,
    source: str | Implementation,
    texts: Sequence[str] | None = None,
    *,
    tolerance: float = TOLERANCE,
    progress: bool = False,
) -> Comparison:
    """Compare an encoder's vectors and intermediates with another implementation's.

    source: an argument of `open_implementation`, or its result.
    texts: None: the texts for which the source has vectors, or the built-in ones.
    tolerance: the largest difference of a number of a vector, relative to the vector's length (1 in most models).
    progress: show progress on stderr: after a few seconds a bar on a terminal, elsewhere a line every ten seconds.

    Our vectors are those of the encoder's own backend; our intermediates are those of the reference in float32, which
    has the steps that the kernels fuse. Both sides compute intermediates from the same token ids, and vectors from the
    texts. Prompts and `truncate_dim` of the encoder are not used.
    Raises InputTypeError and InputValueError (texts, tolerance, source), ImplementationError (the other implementation
    fails), MissingExtraError (a package is not installed).
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < math.inf:
        raise InputValueError(f"tolerance: expected a number of at least 0, found {tolerance!r}")
    other = as_implementation(source, encoder)
    labels, texts = _labelled(encoder, other, texts)
    problems = _token_problems(encoder, other, labels, texts)
    ours = encoder.encode(texts, prompt="", truncate_dim=encoder.config.vector_size, on_truncation="ignore")
    theirs = np.asarray(other.vectors(texts))
    usable = _usable(theirs, ours.shape, labels, problems)

    steps = _Steps(encoder, problems)
    vector: Row | None = None
    largest, our_largest = None, 0.0
    labelled = list(zip(labels, encoder.tokenizer(texts).ids, strict=True))
    items: Iterable[tuple[str, list[int]]] = labelled
    if progress:
        items = tracked(labelled, "comparing", "text", delay=3, leave=False)
    for number, (label, ids) in enumerate(items):
        shown = other.intermediates([texts[number]])
        truth = steps.compare(np.array(ids, np.int64), {} if shown is None else shown[0], label)
        length = max(float(np.linalg.norm(truth)), FLOOR)
        found = row("vector", ours[number], theirs[number] if usable[number] else None, truth, label)
        our_largest = max(our_largest, found.ours.max_abs / length)
        if usable[number]:
            largest = max(largest or 0.0, found.difference.max_abs / length)
            vector = worst(vector, found)
    rows = list(steps.rows.values())
    return Comparison(
        ours=f"minilm_np ({encoder.model.kind.name})",
        theirs=other.name,
        texts=len(texts),
        tolerance=float(tolerance),
        largest=largest,
        our_largest=our_largest,
        intermediates=rows,
        vector=vector,
        parts_at=next((one.name for one in rows if _parted(one)), None),
        problems=problems,
    )


class _Steps:
    """The worst errors of each intermediate so far, by name, in the model's order."""

    def __init__(self, encoder: SentenceEncoder, problems: list[str]) -> None:
        self.rows: dict[str, Row] = {}
        self.problems, self.config, self.tokenizer = problems, encoder.config, encoder.tokenizer
        weights = encoder.weights
        self.single, self.double = (reference.nest(weights, dtype) for dtype in (np.float32, np.float64))

    @one_blas_thread()
    def compare(self, ids: Array, theirs: dict[str, Array], label: str) -> Array:
        """Compare the intermediates of one text, and return its vector in float64."""
        ours: dict[str, Array] = {}

        def keep(name: str, x: Array) -> Array:
            if name in theirs:
                ours[name] = x
            return x

        def judge(name: str, truth: Array) -> Array:  # immediately, so that the float64 arrays need not be stored
            if name in ours:
                self._judge(name, ours.pop(name), np.asarray(theirs[name]), truth, label, ids)
            return truth

        if theirs:
            reference.forward(ids, self.single, self.config, record=keep)
        return reference.forward(ids, self.double, self.config, record=judge)

    def _judge(self, name: str, ours: Array, theirs: Array, truth: Array, label: str, ids: Array) -> None:
        if theirs.shape != truth.shape:
            self.problems.append(f"{label}: {name} has shape {theirs.shape}, expected {truth.shape}")
            return
        finite = bool(np.isfinite(theirs).all())
        if not finite:
            self.problems.append(f"{label}: {name} is not finite")
        found = row(name, ours, theirs if finite else None, truth, label)
        if found.worst_position is not None:
            found = replace(found, worst_token=self.tokenizer.token(int(ids[found.worst_position])))
        self.rows[name] = worst(self.rows.get(name), found)


def _parted(one: Row) -> bool:
    return one.theirs.max_rel > PARTING * max(one.ours.max_rel, float(np.finfo(np.float32).eps))


def _labelled(
    encoder: SentenceEncoder, other: Implementation, texts: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """The name of each text in a report, and the texts."""
    built_in = built_in_texts(encoder)
    if texts is None:
        texts = other.texts if other.texts is not None else [text for _, text in built_in]
    texts = check_texts(texts)
    if not texts:
        raise InputValueError("texts: expected at least one, found none")
    known = {text: label for label, text in built_in}
    shown = (text if len(text) <= 40 else text[:37] + "..." for text in texts)
    return [
        known.get(text, f"text {number} {start!r}")
        for number, (text, start) in enumerate(zip(texts, shown, strict=True))
    ], texts


def _token_problems(
    encoder: SentenceEncoder, other: Implementation, labels: Sequence[str], texts: Sequence[str]
) -> list[str]:
    theirs = other.token_ids(texts)
    if theirs is None:
        return []
    problems = []
    for label, our_ids, their_ids in zip(labels, encoder.tokenizer(texts).ids, theirs, strict=True):
        if our_ids != their_ids:
            both = zip(our_ids, their_ids, strict=False)
            first = next((place for place, (a, b) in enumerate(both) if a != b), min(len(our_ids), len(their_ids)))
            problems.append(
                f"{label}: the token ids differ from position {first} on: ours {_excerpt(our_ids, first)}, theirs "
                f"{_excerpt(their_ids, first)}"
            )
    return problems


def _excerpt(ids: Sequence[int], first: int) -> str:
    return f"{' '.join(map(str, ids[first : first + 4])) or '(end)'} ({len(ids)} in total)"


def _of_allowed(largest: float, tolerance: float) -> str:
    return f"the largest difference is {largest:.1e}, {tolerance:g} is allowed"


def _named(label: str) -> str:
    """A text as a sentence names it; a text that is not built in has its number in its label, counted from 0."""
    return f"{label} (counted from 0)" if label.startswith("text ") else f"text {label!r}"


def _usable(theirs: Array, shape: tuple[int, ...], labels: Sequence[str], problems: list[str]) -> list[bool]:
    """Whether each of their vectors can be compared; the reasons why not are added to the problems."""
    if theirs.shape != shape:
        problems.append(f"the vectors have shape {theirs.shape}, expected {shape}")
        return [False] * len(labels)
    finite = [bool(np.isfinite(vector).all()) for vector in theirs]
    bad = [label for label, usable in zip(labels, finite, strict=True) if not usable]
    if bad:
        named = ", ".join(label if label.startswith("text ") else f"text {label!r}" for label in bad[:SHOWN])
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        verb = "are" if len(bad) > 1 else "is"
        problems.append(f"{len(bad)} of {len(labels)} vectors {verb} not finite (NaN or infinity): {named}{more}")
    return finite


def _without_infinities(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_infinities(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
