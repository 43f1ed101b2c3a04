"""What `diagnose` finds."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["same bits", "match", "explained", "scaled", "reordered", "unexplained", "unrelated"]


@dataclass(frozen=True)
class Finding:
    """What is left of the error when the reference deviates so."""

    deviations: tuple[str, ...]  # none, one or two
    max_abs_error: float  # of any number of a vector
    relative_error: float  # to the largest number of that vector; the worst text's
    rounding: float  # how much of `relative_error` rounding may be: of float32, and of how the vectors were stored
    min_cosine: float
    explains: bool


@dataclass(frozen=True)
class Diagnosis:
    """What is the matter with some vectors."""

    verdict: Verdict
    sentence: str
    before: Finding | None  # the model as it is; None where the vectors cannot be compared with it
    findings: tuple[Finding, ...]  # the best few, those that explain first
    indistinguishable: tuple[tuple[str, ...], ...]  # deviations that have the same effect on these texts
    no_effect: tuple[str, ...]  # deviations that would not be seen on these texts
    what: tuple[str, ...]  # a sentence for each deviation that explains: what it is, and who is known to do it
    remedies: tuple[str, ...]  # what to do about them
    n_texts: int
    n_measured: int  # texts that the findings were measured on

    @property
    def matches(self) -> bool:
        return self.verdict in ("same bits", "match")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
