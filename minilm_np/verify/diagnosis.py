"""The result of `diagnose`: a verdict, its numbers, and advice."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["same bits", "match", "explained", "scaled", "reordered", "unexplained", "unrelated"]


@dataclass(frozen=True)
class Finding:
    """The error that remains if the model is run with these deviations."""

    deviations: tuple[str, ...]  # none, one or two
    kinds: tuple[str, ...]  # of each deviation: "pooling", "text", ...
    max_abs_error: float  # the largest difference of a number
    relative_error: float  # the largest difference over the largest number of that vector; of the worst text
    rounding: float  # the relative error that rounding explains: of float32, and of the stored numbers
    min_cosine: float
    explains: bool  # the relative error is rounding
    odd: tuple[int, ...] = ()  # texts, counted from 0, that are not explained, while those of the measurement are


@dataclass(frozen=True)
class Diagnosis:
    """What differs between vectors and the model's, how sure that is, and what to do."""

    verdict: Verdict
    sentence: str
    before: Finding | None  # the model without deviations; None if the vectors have another size
    findings: tuple[Finding, ...]  # the best few; those that explain the vectors come first
    indistinguishable: tuple[tuple[str, ...], ...]  # groups of deviations that have the same effect on these texts
    no_effect: tuple[str, ...]  # deviations that these texts do not show
    what: tuple[str, ...]  # for each deviation that explains the vectors: what it is, and which software does it
    remedies: tuple[str, ...]  # what to do
    tell_apart: tuple[str, ...]  # if nothing explains the vectors: what would confirm or exclude the nearest findings
    n_texts: int
    n_measured: int  # texts on which the findings were measured

    @property
    def matches(self) -> bool:
        """Whether the vectors are the model's, up to rounding."""
        return self.verdict in ("same bits", "match")

    def as_dict(self) -> dict[str, Any]:
        """Return the diagnosis as JSON-compatible values."""
        return asdict(self)
