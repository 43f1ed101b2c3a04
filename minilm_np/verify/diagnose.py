"""Diagnose why another implementation's vectors differ: which known deviation, or which pair, explains them.

The steps of a diagnosis, from the cheapest one to the most expensive one, each in its file:

1. `evidence.py`: compare all vectors with the model, and choose a few texts on which each deviation can show. If all
   match, the diagnosis ends here.
2. `compute_types.py`, `misfits.py`, `dimensions.py`: recognise vectors that this package made with another compute
   type, vectors in another order, numbers in another order.
3. `scoring.py`: run every deviation on a few short texts in float32, and measure the promising ones in float64.
4. `fitting.py`: fit the number of deviations that have one: the length of padding, the size of windows.
5. `misfits.py`: check for other lengths.
6. `pairs.py`: if no deviation explains the vectors, try the pairs that the first run did not exclude.
7. `misfits.py`: check for single wrong vectors, low-precision arithmetic, another model.
8. `advice.py`: put the result into words.
"""

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minilm_np._checks import check_texts
from minilm_np._progress import tracked
from minilm_np.engine.blas import one_blas_thread
from minilm_np.errors import InputValueError
from minilm_np.model_files.config import require_plain_bert
from minilm_np.reference import Array
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.verify import advice, misfits
from minilm_np.verify.advice import Case
from minilm_np.verify.compute_types import compute_type_of
from minilm_np.verify.diagnosis import Diagnosis, Finding
from minilm_np.verify.dimensions import first_numbers, order_of_numbers
from minilm_np.verify.evidence import LEAST_ROUNDING, Evidence, gather
from minilm_np.verify.fitting import fitted
from minilm_np.verify.implementations import open_implementation
from minilm_np.verify.pairs import fitting_pairs, needs_both
from minilm_np.verify.roundings import storage_rounding
from minilm_np.verify.scoring import Bar, Candidate, confirmed, indistinguishable, measure, remains, screen_all
from minilm_np.verify.texts import built_in_texts

SHOWN = 3  # findings of a diagnosis, if fewer explain the vectors
MEASURED = 12  # deviations, and pairs, that are measured in float64


def diagnose(
    encoder: SentenceEncoder, vectors: str | Array, texts: Sequence[str] | None = None, *, progress: bool = False
) -> Diagnosis:
    """Return whether vectors are those of the encoder's model, and if not, what was done differently.

    vectors: an (n, D) array of floats, or a source as `open_implementation` takes it.
    texts: the texts of the vectors. None: the texts of the source, or the built-in texts if the source has none.
    progress: show progress on stderr: after a few seconds a bar on a terminal, elsewhere a line every ten seconds.

    Raises InputTypeError, InputValueError (no vectors, another number of texts, a vector that is not finite), and the
    exceptions of `open_implementation`; ConfigError: the model is not BERT with GELU, or has a Dense module.
    """
    require_plain_bert(encoder.config, "diagnose")
    given, texts = _given(encoder, vectors, texts)
    D = encoder.config.hidden_size
    with np.errstate(all="ignore"), one_blas_thread():  # numbers that overflow explain nothing
        if given.shape[1] != D:
            tolerance = 2.0 * LEAST_ROUNDING + storage_rounding(given)[1]
            how = first_numbers(encoder, given, texts, tolerance) if given.shape[1] < D else None
            return advice.other_size(given.shape[1], D, len(texts), how)
        return _diagnosis(encoder, given, texts, functools.partial(_bar, shown=progress))


def _given(encoder: SentenceEncoder, vectors: str | Array, texts: Sequence[str] | None) -> tuple[Array, list[str]]:
    """The vectors (n, D), and their texts."""
    texts = None if texts is None else check_texts(texts)
    if isinstance(vectors, str):
        source = open_implementation(vectors, encoder)
        if texts is None:
            texts = source.texts
        if texts is None:
            texts = [text for _, text in built_in_texts(encoder)]
        given = np.asarray(source.vectors(texts))
    else:
        given = np.asarray(vectors)
        if texts is None:
            raise InputValueError("texts: expected the texts of the array of vectors, found None")
    if given.ndim != 2 or given.dtype.kind != "f":
        raise InputValueError(
            f"vectors: expected floats of shape (texts, numbers), found {given.dtype} of shape {given.shape}"
        )
    if not len(given):
        raise InputValueError("vectors: expected at least one, found none")
    if len(given) != len(texts):
        raise InputValueError(f"vectors: expected one per text, found {len(given)} for {len(texts)} texts")
    finite = np.isfinite(given).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise InputValueError(
            f"vector {row} contains NaN or infinity ({len(given) - int(finite.sum())} of {len(given)} vectors do); its "
            f"text is {texts[row][:60]!r}. An overflow or a division by zero happened where it was computed"
        )
    return given, texts


def _diagnosis(encoder: SentenceEncoder, vectors: Array, texts: list[str], bar: Bar) -> Diagnosis:
    """The steps, from the cheapest explanation to the most expensive one."""
    evidence = gather(encoder, vectors, texts)
    before = measure(evidence, ())
    case = Case(evidence, before, [])
    if before.explains:
        return advice.match(case)
    if (compute_type := compute_type_of(encoder, evidence.given)) is not None:
        return advice.made_here(case, compute_type)
    wrong = np.flatnonzero(~(evidence.given.errors <= evidence.tolerance)).tolist()
    order = misfits.order(evidence.given, wrong, evidence.tolerance)
    if order is not None:
        return advice.reordered(case, wrong, order)
    places = order_of_numbers(evidence.given, evidence.tolerance)
    if places is not None:
        return advice.permuted(case, places)

    acts = [evidence.model.acts_on(one.vary(evidence.model.base)) for one in evidence.known]
    everywhere = [one for one, some in zip(evidence.known, acts, strict=True) if some.all()]
    partial = [one for one, some in zip(evidence.known, acts, strict=True) if not some.all()]
    case = Case(evidence, before, screen_all(evidence, everywhere, partial, bar))
    findings = _measured(evidence, case.candidates, bar)
    if not any(finding.explains for finding in findings) and (more := fitted(evidence)):
        evidence.known.extend(more)
        candidates = screen_all(evidence, [], more, bar)
        case = Case(evidence, before, [*case.candidates, *candidates])
        findings += _measured(evidence, candidates, bar)
    seen = [one for one in case.candidates if one.is_seen]
    if not any(finding.explains for finding in findings):
        twins = {name for group in indistinguishable(evidence, case.candidates) for name in group[1:]}
        scaled = misfits.scaled(evidence, seen, twins, bar)
        if scaled is not None:
            return _conclusion(case, scaled.exact, bar) if scaled.exact else advice.scaled(case, scaled)
        pairs = fitting_pairs(evidence, itertools.combinations(seen, 2), twins, bar)
        measured = [measure(evidence, names) for names in bar(pairs[:MEASURED], "pairs in float64")]
        measured = confirmed(evidence, measured)
        findings += [pair for pair in measured if pair.explains or pair.odd or needs_both(evidence, pair)]
        if not any(finding.explains or finding.odd for finding in findings) and 2 * len(wrong) <= len(texts):
            wrong.sort(key=lambda row: -evidence.given.errors[row])
            return advice.some_wrong(case, wrong)

    nearest = [(one.name,) for one in sorted(seen, key=lambda one: remains(evidence, one))]
    others = [names for names in nearest if names not in {finding.deviations for finding in findings}]
    findings += [measure(evidence, names) for names in others[: max(0, SHOWN - len(findings))]]
    findings = [finding for finding in findings if finding.relative_error < np.inf]
    findings.sort(key=lambda finding: (not finding.explains, len(finding.odd) or len(texts), finding.relative_error))
    return _conclusion(case, findings, bar)


def _measured(evidence: Evidence, candidates: Sequence[Candidate], bar: Bar) -> list[Finding]:
    """The candidates that may explain the vectors, measured."""
    fitting = [(one.name,) for one in candidates if one.fits]
    found = [measure(evidence, names) for names in bar(fitting[:MEASURED], "explanations in float64")]
    return confirmed(evidence, found)


def _conclusion(case: Case, findings: list[Finding], bar: Bar) -> Diagnosis:
    """What the findings, best first, amount to."""
    evidence = case.evidence
    if findings and findings[0].explains:
        if findings[0].relative_error <= evidence.tolerance:
            # a variation with large rounding errors explains less than one that leaves only small ones
            findings = [
                replace(one, explains=one.explains and one.relative_error <= evidence.tolerance) for one in findings
            ]
        return advice.explained(case, findings)
    if findings and findings[0].odd:
        return advice.mostly_explained(case, findings)
    if not misfits.is_related(evidence, case.candidates):
        return advice.unrelated(case)
    low = misfits.low_precision(evidence, case.candidates, bar)
    if low is not None:
        return advice.low_precision(case, low)
    return advice.unexplained(case, findings)


def _bar(items: Sequence[Any], what: str, *, shown: bool) -> Iterable[Any]:
    """The items, with progress on stderr if `shown`."""
    return tracked(items, f"trying {what}", "trial", delay=3, leave=False) if shown else items
