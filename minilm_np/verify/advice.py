"""The words of a diagnosis, one function per verdict: what differs, how sure that is, and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass

from minilm_np.verify import misfits
from minilm_np.verify.diagnosis import Diagnosis, Finding, Verdict
from minilm_np.verify.evidence import Evidence
from minilm_np.verify.misfits import Scaled
from minilm_np.verify.scoring import Candidate, indistinguishable

EXAMPLES = 3  # vectors that a sentence names

_IDS = "Token ids: compare those of one text on both sides; `minilm-np trace TEXT` prints ours."
_POOLED = "Pooling: average the hidden states of one text by hand, and compare that with the vector of the other side."
_FIRST = "The encoder: compare the arrays of the first layer; `minilm-np trace TEXT --save FILE` writes ours."
_ALONE = "Padding and masks: encode one text alone, and again with a longer one; its vector must not change."
_LONG = "Truncation: encode a text of 200 words and its first 100 words; look for the length at which the vectors part."
_WEIGHTS = "Weights: compare one matrix, such as encoder.layer.0.output.dense.weight, with model.safetensors."

# By kind of deviation: a check on the other side that shows whether the deviation, or one like it, is present.
CHECKS = {
    "text": _IDS, "vocabulary": _IDS, "prompt": _IDS, "special tokens": _IDS, "truncation": _LONG,
    "padding": _ALONE, "mask": _ALONE, "token types": _FIRST, "positions": _FIRST, "eps": _FIRST,
    "activation": _FIRST, "order of LayerNorm": _FIRST, "weights": _WEIGHTS, "arithmetic": _WEIGHTS,
    "pooling": _POOLED, "layers": _POOLED, "normalisation": _POOLED,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What every verdict is based on."""

    evidence: Evidence
    before: Finding  # the model without deviations
    candidates: list[Candidate]  # all deviations, after the screen; none if a diagnosis was made without it


def other_size(size: int, expected: int, n_texts: int, how: str | None) -> Diagnosis:
    """Vectors with another number of numbers than the model's. how: what was done after the others were left out."""
    if how is None:
        sentence = f"These are vectors of another model: they have {size} numbers, this model's have {expected}."
        return Diagnosis("unrelated", sentence, None, (), (), (), (), (), (), n_texts, 0)
    sentence = f"These are the first {size} of the {expected} numbers of each of the model's vectors, {how}."
    what = "Vectors are cut to fewer dimensions, as with truncate_dim; this model was not trained for that."
    remedy = f"Keep all {expected} numbers; or compare with `encode(..., truncate_dim={size})`."
    return Diagnosis("explained", sentence, None, (), (), (), (what,), (remedy,), (), n_texts, 0)


def match(case: Case) -> Diagnosis:
    """Vectors that are the model's, up to rounding."""
    given = case.evidence.given
    if given.same_bits:
        return _conclude(case, "same bits", "The same bits: every number equals the model's.", [])
    stored = f" and the rounding of numbers stored {given.stored_as}" if given.stored_as else ""
    difference = f"the largest difference, {case.before.max_abs_error:.1e}"
    return _conclude(case, "match", f"A match: {difference}, is within float32 rounding{stored}.", [])


def made_here(case: Case, compute_type: str) -> Diagnosis:
    """Vectors that this package made with this compute type."""
    sentence = (
        f"The same bits as compute_type={compute_type!r} of this package. The largest difference to float32 is "
        f"{case.before.max_abs_error:.1e}."
    )
    return _conclude(case, "same bits", sentence, [])


def reordered(case: Case, wrong: Sequence[int], texts: Sequence[int]) -> Diagnosis:
    """The model's vectors in another order: each wrong vector is that of another text."""
    moved = [f"vector {row} is that of text {text}" for row, text in zip(wrong, texts, strict=True)]
    sentence = f"These are the model's vectors in another order (counted from 0): {_listed(moved, len(moved))}."
    remedy = "Put the texts into the order of the vectors (--texts FILE), or the vectors into the order of the texts."
    return _conclude(case, "reordered", sentence, [], remedy)


def permuted(case: Case, places: Sequence[int]) -> Diagnosis:
    """The model's vectors with their numbers in another order."""
    moved = [f"number {here} is number {there} of the model's" for here, there in enumerate(places) if here != there]
    order = "reversed" if list(places) == [*range(len(places))][::-1] else "in another order"
    sentence = f"The numbers of each vector are {order} (counted from 0): {_listed(moved, len(moved))}."
    remedy = "Keep the order of the dimensions: look where vectors are transposed, sorted, or put together from parts."
    return _conclude(case, "reordered", sentence, [], remedy)


def some_wrong(case: Case, wrong: Sequence[int]) -> Diagnosis:
    """Most vectors match, and no deviation explains the others; `wrong` has the worst first."""
    given, tolerance = case.evidence.given, case.evidence.tolerance
    n, many = len(given.texts), len(wrong) > 1
    named = [
        f"vector {row} (text {_quoted(given.texts[row])}) {misfits.state(given, row, tolerance)}"
        for row in wrong[:EXAMPLES]
    ]
    sentence = (
        f"{n - len(wrong)} of {n} vectors match, {len(wrong)} {'do' if many else 'does'} not "
        f"(counted from 0{', worst first' if many else ''}): {_listed(named, len(wrong))}."
    )
    remedy = (
        "Check that each of these vectors belongs to its text. If it does, compare the token ids of both sides "
        "(`minilm-np trace TEXT` shows ours)."
    )
    return _conclude(case, "unexplained", sentence, [], remedy)


def scaled(case: Case, found: Scaled) -> Diagnosis:
    """Vectors with the right directions and other lengths."""
    low, high = found.factors.min(), found.factors.max()
    times = f"{low:.6g}" if high - low <= 1e-4 * high else f"{low:.4g} to {high:.4g}"
    names = found.finding.deviations
    whose = f"those of the model with {names[0]}" if names else "the model's"
    sentence = (
        f"The vectors are {whose} times {times}: only their lengths differ, their directions are within rounding."
    )
    return _conclude(case, "scaled", sentence, [found.finding])


def explained(case: Case, findings: list[Finding]) -> Diagnosis:
    """The first finding explains the vectors; others may explain them, too."""
    best = findings[0]
    rounding = "rounding" if best.relative_error <= case.evidence.tolerance else "the difference between ways to round"
    sentence = f"{_claim(best)} the vectors: {_falls(case, best)}, which is within {rounding}."
    others = [_joined(finding) for finding in findings[1:] if finding.explains]
    if others:
        sentence += f" These texts do not distinguish it from {'; '.join(others)}."
    return _conclude(case, "explained", sentence, findings)


def mostly_explained(case: Case, findings: list[Finding]) -> Diagnosis:
    """The first finding explains the texts of its measurement, but not all others."""
    best = findings[0]
    others = f" and of {len(best.odd) - 1} more" if len(best.odd) > 1 else ""
    sentence = (
        f"{_claim(best)} most vectors ({_falls(case, best)}), but not that of text {best.odd[0]}{others} "
        "(counted from 0)."
    )
    return _conclude(case, "unexplained", sentence, findings)


def unrelated(case: Case) -> Diagnosis:
    """Vectors of another model, or of other texts."""
    sentence = (
        "These are vectors of another model, or of other texts: on average they are no closer to this model's vectors "
        f"of the same texts than to those of other texts (smallest cosine {case.before.min_cosine:.2f})."
    )
    remedy = "Check that texts and vectors belong together, and that this model made the vectors (--model)."
    return _conclude(case, "unrelated", sentence, [], remedy)


def low_precision(case: Case, finding: Finding) -> Diagnosis:
    """Errors that resemble those of arithmetic in fewer bits."""
    sentence = (
        f"The errors, at most {case.before.max_abs_error:.1e}, are consistent with {finding.deviations[0]}. This is a "
        "resemblance, not a proof: implementations round at different places, and no known deviation explains the "
        "vectors exactly."
    )
    return _conclude(case, "unexplained", sentence, [finding])


def unexplained(case: Case, findings: list[Finding]) -> Diagnosis:
    """Vectors of this model with a deviation that is not known."""
    sentence = "No known deviation, and no pair of them, explains the vectors."
    near = [one for one in findings if one.relative_error < case.before.relative_error / 2]
    if near:
        sentence += f" The nearest is {_joined(near[0])}: {_falls(case, near[0])}, but that is not rounding."
    elif findings:
        sentence += (
            f" None comes near: with {_joined(findings[0])}, the best of them, the largest error is "
            f"{findings[0].max_abs_error:.1e}, without it {case.before.max_abs_error:.1e}."
        )
    checks = dict.fromkeys(CHECKS[kind] for one in findings for kind in one.kinds)
    remedy = (
        "Compare the steps: `minilm-np verify --against X` names the first step that differs. X is the other "
        "implementation, exported to ONNX; or `transformers`, if that made the vectors."
    )
    return _conclude(case, "unexplained", sentence, findings, remedy, tell_apart=tuple(checks))


def _conclude(
    case: Case, verdict: Verdict, sentence: str, findings: list[Finding], remedy: str = "",
    tell_apart: tuple[str, ...] = (),
) -> Diagnosis:  # fmt: skip
    evidence = case.evidence
    explaining = {name for finding in findings if finding.explains or finding.odd for name in finding.deviations}
    found = [finding.deviations for finding in findings]
    named = [one for one in evidence.known if one.name in explaining]
    named += [one for one in evidence.low_precisions if (one.name,) in found]
    remedies = [one.remedy for one in named] + ([remedy] if remedy else [])
    base = evidence.model.base
    if case.candidates:
        void = [one.name for one in case.candidates if one.is_void]
    else:
        void = [one.name for one in evidence.known if not evidence.model.acts_on(one.vary(base)).any()]
    return Diagnosis(
        verdict,
        sentence,
        case.before,
        tuple(findings),
        indistinguishable(evidence, case.candidates),
        tuple(void),
        tuple(dict.fromkeys(one.what for one in named)),
        tuple(dict.fromkeys(remedies)),
        tell_apart,
        len(evidence.given.texts),
        len(evidence.telling(base)),
    )


def _joined(finding: Finding) -> str:
    return " and ".join(finding.deviations)


def _claim(finding: Finding) -> str:
    name = _joined(finding)
    return f"{name[0].upper()}{name[1:]} {'explains' if len(finding.deviations) == 1 else 'together explain'}"


def _falls(case: Case, finding: Finding) -> str:
    return f"the largest error falls from {case.before.max_abs_error:.1e} to {finding.max_abs_error:.1e}"


def _listed(named: Sequence[str], count: int) -> str:
    """The first few of `count` items, and how many more there are."""
    more = f"; and {count - EXAMPLES} more" if count > EXAMPLES else ""
    return "; ".join(named[:EXAMPLES]) + more


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
