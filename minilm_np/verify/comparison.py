"""`Comparison`: the result of a comparison with another implementation, and the rules that every comparison shares."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from minilm_np.errors import InputValueError
from minilm_np.reference import Array
from minilm_np.verify.array_errors import Row, row, worst

# The largest difference of any number of a vector, relative to the vector's length: some 50 times the difference of two
# float32 implementations, and a thirtieth of that from tanh GELU, eps 1e-5 or float16 weights (3e-4 to 5e-4).
TOLERANCE = 1e-5

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

    noun: ClassVar[str] = "text"  # what is compared,
    result: ClassVar[str] = "vector"  # and what is computed of each

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
                f"our own {self.result}s are outside the tolerance: the largest error against float64 is "
                f"{self.our_largest:.1e}, {self.tolerance:g} is allowed"
            )
        elif self.largest <= self.tolerance:
            rest = f"everything else is within the tolerance: {_of_allowed(self.largest, self.tolerance)}"
            where = f"{self.problems[0]}; {rest}"
        else:
            where = (
                f"outside the tolerance: {_of_allowed(self.largest, self.tolerance)}; the worst is "
                f"{named(self.noun, self.vector.worst_text)}"
            )
        return "; ".join(filter(None, (where, parted, closer)))

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON-compatible values; an infinite error is None."""
        found = _without_infinities(asdict(self))
        return {"verdict": self.verdict, "within": self.within, **found}


class PairComparison(Comparison):
    """The result of `compare_pairs`. `vector` is the row of the scores, and `largest` is over the largest score."""

    noun: ClassVar[str] = "pair"
    result: ClassVar[str] = "score"

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-compatible values, as for texts, but with the keys `pairs`, `score` for `texts`, `vector`."""
        names = {"texts": "pairs", "vector": "score"}
        return {names.get(key, key): value for key, value in super().as_dict().items()}


class Results:
    """The errors of the results so far: vectors, or scores. The fields are those of `Comparison`.

    name: of the row of the worst one.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.worst: Row | None = None
        self.largest: float | None = None
        self.our_largest = 0.0

    def add(self, ours: Array, theirs: Array | None, truth: Array, label: str, scale: float) -> None:
        """Compare the results of one text. theirs: None if they cannot be compared. scale: what errors refer to."""
        found = row(self._name, ours, theirs, truth, label)
        self.our_largest = max(self.our_largest, found.ours.max_abs / scale)
        if theirs is not None:
            self.largest = max(self.largest or 0.0, found.difference.max_abs / scale)
            self.worst = worst(self.worst, found)


def check_tolerance(tolerance: float) -> None:
    """Raise InputValueError unless this is a tolerance."""
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < math.inf:
        raise InputValueError(f"tolerance: expected a number of at least 0, found {tolerance!r}")


def token_problems(
    labels: Sequence[str], ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]] | None
) -> list[str]:
    """Return a sentence for each text whose token ids differ; none if theirs are not known."""
    if theirs is None:
        return []
    problems = []
    for label, our_ids, their_ids in zip(labels, ours, theirs, strict=True):
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


def named(noun: str, label: str) -> str:
    """Return a text or a pair as a sentence names it; one that is not built in has its number, counted from 0."""
    return f"{label} (counted from 0)" if label.startswith(f"{noun} ") else f"{noun} {label!r}"


def usable(
    theirs: Array, shape: tuple[int, ...], labels: Sequence[str], problems: list[str], noun: str, result: str
) -> list[bool]:
    """Return whether each of their results can be compared, and add the reasons why not to the problems.

    noun, result: those of `Comparison`.
    """
    if theirs.shape != shape:
        problems.append(f"the {result}s have shape {theirs.shape}, expected {shape}")
        return [False] * len(labels)
    finite = [bool(np.isfinite(one).all()) for one in theirs]
    bad = [label for label, is_finite in zip(labels, finite, strict=True) if not is_finite]
    if bad:
        shown = ", ".join(label if label.startswith(f"{noun} ") else f"{noun} {label!r}" for label in bad[:SHOWN])
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        verb = "are" if len(bad) > 1 else "is"
        problems.append(f"{len(bad)} of {len(labels)} {result}s {verb} not finite (NaN or infinity): {shown}{more}")
    return finite


def _without_infinities(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_infinities(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
