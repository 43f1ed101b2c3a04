"""Compare an encoder with another implementation: how far apart, who is nearer to the truth, where they part.

The truth is `reference.py` in float64, one text at a time. Errors are of whole arrays: the largest difference, that
over the largest value of the array that is judged by, and in units of the last place of float32 at that value.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from minilm_np import reference
from minilm_np.errors import InputValueError
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.text.tokenizer import check_texts
from minilm_np.verify.implementations import Implementation, open_implementation
from minilm_np.verify.interface import Array
from minilm_np.verify.texts import built_in_texts
from minilm_np.verify.vector_errors import FLOOR, norms, units

# The largest difference of any number of a vector, as a part of the vector's length: some 50 times what two float32
# implementations differ by, and a thirtieth of what tanh GELU, eps 1e-5 or float16 weights do (3e-4 to 5e-4).
TOLERANCE = 1e-5

# Two implementations part where the other one's error is more than this many times that of float32 rounding.
PARTING = 16.0

SHOWN = 3  # texts that a problem names


@dataclass(frozen=True)
class Errors:
    """How far an array is from the one that it is judged by; of several texts, the worst of each."""

    max_abs: float = 0.0
    max_rel: float = 0.0  # max|difference| / max|judged by|
    max_ulp: float = 0.0  # units of the last place of float32, at the largest value of what it is judged by
    min_cosine: float = 1.0  # of the vectors along the last axis


@dataclass(frozen=True)
class Row:
    """One intermediate, or the vector, over all texts."""

    name: str
    difference: Errors  # the other one against ours
    ours: Errors  # against float64
    theirs: Errors  # against float64
    worst_text: str  # where the difference is largest


@dataclass(frozen=True)
class Comparison:
    """What `compare` found."""

    ours: str
    theirs: str
    texts: int
    tolerance: float
    largest: float | None  # difference of a vector's number, over the vector's length; None where nothing was compared
    our_largest: float  # the same of our vectors against float64
    intermediates: list[Row]  # in the model's order; none where the other side shows none
    vector: Row | None
    parts_at: str | None  # the first intermediate whose error is no float32 rounding
    problems: list[str]  # what could not be compared, or is wrong as such: tokens, shapes, NaN

    @property
    def within(self) -> bool:
        """Both sides are what they should be: no problems, and both errors are within the tolerance."""
        errors = (math.inf if self.largest is None else self.largest, self.our_largest)
        return not self.problems and max(errors) <= self.tolerance

    @property
    def verdict(self) -> str:
        """All of it in one sentence."""
        parted = f"they part first at {self.parts_at}" if self.parts_at else ""
        if self.vector is None or self.largest is None:
            return "; ".join(filter(None, ("not comparable", *self.problems[:1], parted)))
        ours, theirs = self.vector.ours.max_abs, self.vector.theirs.max_abs
        side = "both alike" if ours == theirs else "ours" if ours < theirs else "theirs"
        nearer = f"nearer to float64: {side} (ours {ours:.1e}, theirs {theirs:.1e})"
        if self.within:
            where = f"within the tolerance ({self.largest:.1e} of {self.tolerance:g})"
        elif self.largest <= self.tolerance < self.our_largest:
            where = f"our own vectors are outside the tolerance ({self.our_largest:.1e} of {self.tolerance:g})"
        elif self.largest <= self.tolerance:
            rest = f"what was compared is within the tolerance ({self.largest:.1e} of {self.tolerance:g})"
            where = f"{self.problems[0]}; {rest}"
        else:
            where = (
                f"outside the tolerance ({self.largest:.1e}, expected at most {self.tolerance:g}; worst text: "
                f"{self.vector.worst_text})"
            )
        return "; ".join(filter(None, (where, parted, nearer)))

    def as_dict(self) -> dict[str, Any]:
        """For JSON, in which an infinite error is null."""
        found = _without_infinities(asdict(self))
        return {"verdict": self.verdict, "within": self.within, **found}


def compare(
    encoder: SentenceEncoder,
    source: str | Implementation,
    texts: Sequence[str] | None = None,
    *,
    tolerance: float = TOLERANCE,
) -> Comparison:
    """Compare an encoder's vectors and intermediates with another implementation's.

    source: what `open_implementation` takes, or gives.
    texts: None for those that the source has vectors of, or else the built-in ones.
    tolerance: the largest difference of a number of a vector, as a part of the vector's length (1 for most models).

    Ours are the vectors of the encoder's own backend; the intermediates are those of the reference in float32, which
    computes what the kernels fuse. Intermediates are computed from the same token ids on both sides, vectors from text;
    no prompt is put before it, and the vectors are whole, whatever the encoder has been set to.
    Raises InputTypeError and InputValueError (texts, tolerance, source), ImplementationError (the other side fails),
    MissingExtraError (a package is not installed).
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < math.inf:
        raise InputValueError(f"tolerance: expected a number of at least 0, found {tolerance!r}")
    other = open_implementation(source, encoder) if isinstance(source, str) else source
    labels, texts = _labelled(encoder, other, texts)
    problems = _token_problems(encoder, other, labels, texts)
    ours = encoder.encode(texts, prompt="", truncate_dim=encoder.config.hidden_size, on_truncation="ignore")
    theirs = np.asarray(other.vectors(texts))
    usable = _usable(theirs, ours.shape, labels, problems)

    weights, weights64 = (reference.nest(encoder.weights, dtype) for dtype in (np.float32, np.float64))
    rows: dict[str, Row] = {}
    vector: Row | None = None
    largest, our_largest = None, 0.0
    for number, (label, ids) in enumerate(zip(labels, encoder.tokenizer(texts).ids, strict=True)):
        steps = other.intermediates([texts[number]])
        shown = {} if steps is None else steps[0]
        truth = _compare_steps(encoder, np.array(ids, np.int64), (weights, weights64), shown, label, rows, problems)
        length = max(float(np.linalg.norm(truth)), FLOOR)
        found = _row("vector", ours[number], theirs[number] if usable[number] else None, truth, label)
        our_largest = max(our_largest, found.ours.max_abs / length)
        if usable[number]:
            largest = max(largest or 0.0, found.difference.max_abs / length)
            vector = _worst(vector, found)
    return Comparison(
        ours=f"minilm_np ({encoder.backend})",
        theirs=other.name,
        texts=len(texts),
        tolerance=float(tolerance),
        largest=largest,
        our_largest=our_largest,
        intermediates=list(rows.values()),
        vector=vector,
        parts_at=next((row.name for row in rows.values() if _parted(row)), None),
        problems=problems,
    )


def summarised(rows: Sequence[Row]) -> list[Row]:
    """A line for the embeddings and for each layer, with the worst of what is in it; pooling and normalize stay."""
    found: dict[str, Row] = {}
    for row in rows:
        parts = row.name.split(".")
        name = ".".join(parts[:3]) if parts[0] == "encoder" else parts[0]
        found[name] = _worst(found.get(name), replace(row, name=name))
    return list(found.values())


def _labelled(
    encoder: SentenceEncoder, other: Implementation, texts: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """What each text is called in a report, and the texts."""
    built_in = built_in_texts(encoder)
    if texts is None:
        texts = other.texts if other.texts is not None else [text for _, text in built_in]
    texts = check_texts(texts)
    if not texts:
        raise InputValueError("texts: expected at least one to compare on, found none")
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
                f"{label}: the token ids differ from number {first} on: ours {_excerpt(our_ids, first)}, theirs "
                f"{_excerpt(their_ids, first)}"
            )
    return problems


def _excerpt(ids: Sequence[int], first: int) -> str:
    return f"{' '.join(map(str, ids[first : first + 4])) or '(end)'} ({len(ids)} in all)"


def _usable(theirs: Array, shape: tuple[int, ...], labels: Sequence[str], problems: list[str]) -> list[bool]:
    """Which of the other side's vectors can be compared; the others go into the problems."""
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


def _compare_steps(
    encoder: SentenceEncoder, ids: Array, weights: tuple[reference.Nested, reference.Nested],
    theirs: dict[str, Array], label: str, rows: dict[str, Row], problems: list[str],
) -> Array:  # fmt: skip
    """One text through the reference in both precisions; its intermediates go into the rows. Returns its vector."""
    ours: dict[str, Array] = {}

    def keep(name: str, x: Array) -> Array:
        if name in theirs:
            ours[name] = x
        return x

    def judge(name: str, truth: Array) -> Array:  # as they come: the float64 ones need not be kept
        if name not in ours:
            return truth
        their = np.asarray(theirs[name])
        if their.shape != truth.shape:
            problems.append(f"{label}: {name} has shape {their.shape}, expected {truth.shape}")
            return truth
        finite = bool(np.isfinite(their).all())
        if not finite:
            problems.append(f"{label}: {name} is not finite")
        rows[name] = _worst(rows.get(name), _row(name, ours.pop(name), their if finite else None, truth, label))
        return truth

    if theirs:
        reference.forward(ids, weights[0], encoder.config, record=keep)
    return reference.forward(ids, weights[1], encoder.config, record=judge)


def _row(name: str, ours: Array, theirs: Array | None, truth: Array, label: str) -> Row:
    infinite = Errors(math.inf, math.inf, math.inf, -1.0)
    difference, error = (infinite, infinite) if theirs is None else (errors(theirs, ours), errors(theirs, truth))
    return Row(name, difference, errors(ours, truth), error, label)


def errors(found: Array, judged_by: Array) -> Errors:
    """How far one array is from another of its shape; both finite."""
    a, b = found.astype(np.float64), judged_by.astype(np.float64)
    max_abs, size = float(np.abs(a - b).max(initial=0.0)), float(np.abs(b).max(initial=0.0))
    if size <= FLOOR:
        wrong = 0.0 if max_abs <= FLOOR else math.inf
        return Errors(max_abs, wrong, wrong, 1.0 if wrong == 0.0 else 0.0)
    last_place = float(np.spacing(np.float32(min(size, float(np.finfo(np.float32).max)))))
    # 1 - |u - v|^2 / 2 of unit vectors, where u . v would round
    apart = np.square(units(a) - units(b)).sum(axis=-1)
    apart = np.where((norms(a) <= FLOOR) != (norms(b) <= FLOOR), 2.0, apart)  # a vector of zeros has no direction
    cosine = 1.0 - float(apart.max(initial=0.0)) / 2.0
    return Errors(max_abs, max_abs / size, max_abs / last_place, cosine)


def _worst(known: Row | None, new: Row) -> Row:
    """Two rows in one: the larger of their errors, the smaller of their cosines."""
    if known is None:
        return new
    worst = new if new.difference.max_abs > known.difference.max_abs else known
    return Row(
        new.name,
        _worst_errors(known.difference, new.difference),
        _worst_errors(known.ours, new.ours),
        _worst_errors(known.theirs, new.theirs),
        worst.worst_text,
    )


def _worst_errors(a: Errors, b: Errors) -> Errors:
    return Errors(
        max(a.max_abs, b.max_abs), max(a.max_rel, b.max_rel), max(a.max_ulp, b.max_ulp), min(a.min_cosine, b.min_cosine)
    )


def _parted(row: Row) -> bool:
    return row.theirs.max_rel > PARTING * max(row.ours.max_rel, float(np.finfo(np.float32).eps))


def _without_infinities(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_infinities(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
