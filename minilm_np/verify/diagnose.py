"""Why another implementation's vectors differ: which known deviation, or which pair, explains them.

The search runs the reference in float32 on a few texts on which each deviation can show, and leaves out what cannot be:
every deviation alone first, then the pairs. What is reported is measured in float64 afterwards, and what explains them
is checked on the other texts. It does when what is left is no more than float32 rounding makes of that variation.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minilm_np.errors import InputValueError
from minilm_np.reference import Array
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.text.tokenizer import check_texts
from minilm_np.verify.deviations import Deviation, deviations
from minilm_np.verify.diagnosis import Diagnosis, Finding, Verdict
from minilm_np.verify.low_precision import LEAST_ALIKE, is_like, low_precisions
from minilm_np.verify.variations import Variation, VariedModel
from minilm_np.verify.vector_errors import alike, norms, owners, relative_errors, storage_rounding, units

ROUNDING = 8.0  # times the error of our own float32 is still rounding: another order of the sums may be worse than ours
OR_SO = 3.0  # times what another way to do the same differs by, where there is one
LEAST_ROUNDING = 4e-6  # of a vector's largest number
STUDIED = 1000  # texts that the search may choose from; all are compared with the model as it is
# how many tokens, padding included, a step of the work may look at
SEARCH_TOKENS = 1500  # all of the search
SCREEN_TOKENS = 600  # one deviation that acts on every text
CHECK_TOKENS = 8000  # what explains the searched texts, on the others
SHOWN, MEASURED = 4, 12  # findings of a diagnosis, and how many of those that explain are measured
EXAMPLES = 3  # vectors that a sentence names


def diagnose(
    encoder: SentenceEncoder, vectors: str | Array, texts: Sequence[str] | None = None, *, progress: bool = False
) -> Diagnosis:
    """Say whether vectors are those of the encoder's model, and if not, what was done differently.

    vectors: an (n, D) array of floats, or a source as `open_implementation` takes it.
    texts: what the vectors are of; None for the texts that the source has, else for the built-in ones.
    progress: draw a bar on stderr where it takes more than some seconds.

    Raises InputTypeError, InputValueError (no vectors, not as many as texts, a vector that is not finite), and what
    `open_implementation` raises.
    """
    given, texts = _given(encoder, vectors, texts)
    D = encoder.config.hidden_size
    if given.shape[1] != D:
        sentence = f"These are vectors of another model: they have {given.shape[1]} numbers, this model's have {D}."
        return Diagnosis("unrelated", sentence, None, (), (), (), (), (), len(texts), 0)
    with np.errstate(all="ignore"):  # what overflows explains nothing
        return _Search(encoder, given, texts, progress).diagnosis()


def _given(encoder: SentenceEncoder, vectors: str | Array, texts: Sequence[str] | None) -> tuple[Array, list[str]]:
    """The vectors (n, D), and their texts."""
    texts = None if texts is None else check_texts(texts)
    if isinstance(vectors, str):
        from minilm_np.verify.implementations import open_implementation
        from minilm_np.verify.texts import built_in_texts

        source = open_implementation(vectors, encoder)
        if texts is None:
            texts = source.texts
        if texts is None:
            texts = [text for _, text in built_in_texts(encoder)]
        given = np.asarray(source.vectors(texts))
    else:
        given = np.asarray(vectors)
        if texts is None:
            raise InputValueError("texts: an array of vectors does not say what they are of: give their texts")
    if given.ndim != 2 or given.dtype.kind != "f":
        raise InputValueError(
            f"vectors: expected floats of shape (texts, numbers), found {given.dtype} of shape {given.shape}"
        )
    if not len(given):
        raise InputValueError("vectors: there are none, so there is nothing to diagnose")
    if len(given) != len(texts):
        raise InputValueError(f"vectors: expected one a text, found {len(given)} for {len(texts)} texts")
    finite = np.isfinite(given).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise InputValueError(
            f"vector {row} holds NaN or infinity ({len(given) - int(finite.sum())} of {len(given)} vectors do): "
            f"something overflowed, or divided by zero, where it was made; its text is {texts[row][:60]!r}"
        )
    return given, texts


class _Search:
    """The work of one diagnosis. Rows are of `texts`, places are of `rows`."""

    def __init__(self, encoder: SentenceEncoder, given: Array, texts: list[str], progress: bool) -> None:
        self.progress, self.n_texts = progress, len(texts)
        ours = encoder.encode(texts, prompt="", truncate_dim=encoder.config.hidden_size, on_truncation="ignore")
        self.same_bits = given.dtype == np.float32 and given.tobytes() == ours.tobytes()
        self.stored_as, self.storage = storage_rounding(given)
        self.all_given, self.all_ours = given.astype(np.float64), ours.astype(np.float64)
        self.all_error = relative_errors(self.all_given, self.all_ours)
        self.studied = studied = _studied(self.all_error, encoder.tokenizer(texts).n_tokens)
        self.given, self.error = self.all_given[studied], self.all_error[studied]
        self.model = VariedModel(encoder, [texts[row] for row in studied])
        self.texts, self.known, self.low_precisions = texts, deviations(encoder.config), low_precisions(encoder.config)
        self.variation = {one.name: one.vary(self.model.base) for one in self.known}
        self.acts = {name: self.model.acts_on(variation) for name, variation in self.variation.items()}
        self.lengths = self.model.lengths(self.model.base)
        self.rows = self._searched()
        self.base = self.model.vectors(self.model.base, self.rows).astype(np.float64)
        noise = relative_errors(self.base, self.model.vectors(self.model.base, self.rows, np.float64))
        self.rounding = max(LEAST_ROUNDING, ROUNDING * float(noise.max()))
        self.tolerance = 2.0 * self.rounding + self.storage  # both sides round
        # by deviation: its float32 vectors of `rows`, what is left of the error, and how much of that may be rounding
        self.found: dict[str, Array] = {}
        self.left: dict[str, Array] = {}
        self.limit: dict[str, float] = {}

    def diagnosis(self) -> Diagnosis:
        before = self._measure(())
        wrong = np.flatnonzero(~(self.all_error <= self.tolerance))
        if not before.explains and (reordered := self._reordered(before, wrong)) is not None:
            return reordered
        for one in self._bar(self.known, "deviations"):
            self._screen(one.name)
        moving = [one for one in self.known if self._is_seen(one.name)]
        still = [one.name for one in self.known if one not in moving]
        if before.explains:
            return self._match(before, still)
        singles = [(one.name,) for one in moving if np.nanmax(self.left[one.name]) <= self.limit[one.name]]
        findings = [self._measure(names) for names in singles[:MEASURED]]
        if not any(finding.explains for finding in findings):
            scaled = self._scaled(before, moving, still)
            if scaled is not None:
                return scaled
            pairs = [self._measure(names) for names in self._pairs(itertools.combinations(moving, 2))[:MEASURED]]
            findings += [pair for pair in pairs if pair.explains or self._needs_both(pair)]
            if not any(finding.explains for finding in findings) and 2 * len(wrong) <= self.n_texts:
                return self._some_wrong(before, wrong, still)
        nearest = [(one.name,) for one in sorted(moving, key=lambda one: self._remains(one.name))]
        others = [names for names in nearest if names not in {finding.deviations for finding in findings}]
        findings += [self._measure(names) for names in others[: max(0, SHOWN - len(findings))]]
        findings = [finding for finding in findings if finding.relative_error < np.inf]
        findings.sort(key=lambda finding: (not finding.explains, finding.relative_error))
        return self._explained(before, findings, still)

    # which texts are looked at

    def _searched(self) -> list[int]:
        """A few texts of every kind: texts on which the same deviations act are of one kind."""
        partial = [acts for acts in self.acts.values() if acts.any() and not acts.all()]
        kinds: dict[bytes, list[int]] = {}
        for row in range(len(self.lengths)):
            kinds.setdefault(np.array([acts[row] for acts in partial], bool).tobytes(), []).append(row)
        first, more = [], []
        for rows in kinds.values():
            cheap = sorted(rows, key=lambda row: (self.lengths[row] < 6, self.lengths[row]))  # not the emptiest ones
            first.append(cheap[0])
            more += [*cheap[1:3], max(rows, key=self.error.__getitem__)]
        by_length = sorted(range(len(self.lengths)), key=self.lengths.__getitem__)
        spread = [by_length[place] for place in np.linspace(0, len(by_length) - 1, 12).astype(int)]
        return sorted(_within([int(np.argmax(self.error)), *first, *more, *spread], self.lengths, SEARCH_TOKENS))

    def _few(self, variation: Variation, rows: Iterable[int], budget: int) -> list[int]:
        """The shortest of some rows, the emptiest last, as many as fit into so many tokens."""
        lengths = self.model.lengths(variation)
        return _within(sorted(rows, key=lambda row: (self.lengths[row] < 6, lengths[row])), lengths, budget)

    def _screen(self, name: str) -> None:
        """Run one deviation on a few short texts; if it acts on the input only, on all that it acts on."""
        variation, acts = self.variation[name], self.acts[name]
        everywhere = variation.pad_to or acts.all()
        rows = (row for row in self.rows if acts[row])
        few = self._few(variation, rows, SCREEN_TOKENS if everywhere else SEARCH_TOKENS)
        found = np.where(acts[self.rows, None], np.nan, self.base)
        single = self.model.vectors(variation, few).astype(np.float64)
        exact = self.model.vectors(variation, few[:1], np.float64)
        found[[self.rows.index(row) for row in few]] = single
        self.found[name], self.left[name] = found, relative_errors(self.given[self.rows], found)
        rounding = max(self.rounding, self._rounding((name,), few[:1], single[:1], exact))
        self.limit[name] = 2.0 * rounding + self.storage

    def _rounding(self, names: tuple[str, ...], rows: list[int], single: Array, exact: Array) -> float:
        """How much of an error may be rounding, by what it is in some rows: of float32, and of what others may do."""
        rounding = ROUNDING * float(np.nanmax(relative_errors(single, exact), initial=0.0))
        for one in self.known:
            if one.name in names and one.or_so is not None:
                variation = one.or_so(self._vary(name for name in names if name != one.name))
                other = self.model.vectors(variation, rows).astype(np.float64)
                rounding = max(rounding, OR_SO * float(np.nanmax(relative_errors(other, exact), initial=0.0)))
        return rounding

    def _moves(self, name: str) -> Array:  # (places,) bool
        """Where a deviation is seen; it is where nobody looked."""
        moved = ~(relative_errors(self.found[name], self.base) <= self.tolerance)
        return moved & self.acts[name][self.rows]

    def _is_seen(self, name: str) -> bool:
        return bool((self._moves(name) & np.isfinite(self.left[name])).any())

    def _remains(self, name: str) -> float:
        """How much of the error remains, from 1 (or more) to 0: the geometric mean over texts."""
        before, after = self.error[self.rows], self.left[name]
        return float(np.exp(np.nanmean(np.log((after + self.rounding) / (before + self.rounding)))))

    # what explains the vectors

    def _pairs(self, pairs: Iterable[tuple[Deviation, Deviation]]) -> list[tuple[str, ...]]:
        """The pairs that explain the vectors; where there is none the two that come nearest on one text."""
        possible = []
        twins = {name for names in self._classes() for name in names[1:]}  # whose pairs would be the same
        for a, b in pairs:
            in_a, in_b = self._moves(a.name), self._moves(b.name)
            # a text that one of them moves must be explained by that one, a text that neither moves by neither
            left = np.where(in_a, self.left[a.name] - self.limit[a.name], self.error[self.rows] - self.tolerance)
            left = np.where(in_b, self.left[b.name] - self.limit[b.name], left)
            if a.kind != b.kind and not {a.name, b.name} & twins and not (left[~(in_a & in_b)] > 0.0).any():
                possible.append((a, b, np.flatnonzero(in_a & in_b)))
        explaining: list[tuple[str, ...]] = []
        nearest: dict[tuple[str, ...], float] = {}
        for a, b, places in self._bar(possible, "pairs of deviations"):
            names, variation = (a.name, b.name), b.vary(a.vary(self.model.base))
            lengths = self.model.lengths(variation)
            rows = sorted((self.rows[place] for place in places), key=lengths.__getitem__)
            limit = max(self.limit[a.name], self.limit[b.name])
            for some in (rows[:1], rows[1:4]):
                left = relative_errors(self.given[some], self.model.vectors(variation, some).astype(np.float64))
                nearest[names] = float(np.nanmax(left, initial=nearest.get(names, 0.0)))
                if nearest[names] > limit:
                    break
            else:
                explaining.append(names)
        return explaining or sorted(nearest, key=nearest.__getitem__)[:2]

    def _needs_both(self, pair: Finding) -> bool:
        """Whether a pair at least halves what the better one of the two leaves."""
        singles = [self._measure((name,)).relative_error for name in pair.deviations]
        return pair.relative_error <= min(singles) / 2

    def _scaled(self, before: Finding, moving: list[Deviation], still: list[str]) -> Diagnosis | None:
        """The diagnosis where vectors differ in length only: from the model's, or from those of one deviation."""
        given = units(self.given[self.rows])
        candidates: list[tuple[tuple[str, ...], Array, float]] = [((), self.base, self.tolerance)]
        candidates += [((one.name,), self.found[one.name], self.limit[one.name]) for one in moving]
        for names, found, limit in candidates:
            if np.nanmax(relative_errors(given, units(found))) <= limit:
                finding = self._measure(names, unit=True)
                if not finding.explains:
                    continue
                # with or without normalisation it may be more than a matter of length
                lengths = [one for one in moving if one.kind == "normalisation"]
                pairs = [(one, other) for one in moving if one.name in names for other in lengths]
                exact = [pair for pair in map(self._measure, self._pairs(pairs)) if pair.explains]
                if exact:
                    return self._explained(before, exact, still)
                return self._conclude("scaled", self._scaled_sentence(names, found), before, [finding], still)
        return None

    def _scaled_sentence(self, names: tuple[str, ...], found: Array) -> str:
        known = np.isfinite(found).all(axis=1)
        factors = norms(self.given[self.rows][known]) / norms(found[known])
        low, high = factors.min(), factors.max()
        times = f"{low:.6g}" if high - low <= 1e-4 * high else f"{low:.4g} to {high:.4g}"
        whose = f"those of the model with {names[0]}" if names else "the model's"
        return (
            f"The vectors are {whose} times {times}: only their length differs, their directions are within rounding."
        )

    # what is left under some deviations

    def _vary(self, names: Iterable[str]) -> Variation:
        variation = self.model.base
        for name in names:
            known = (*self.known, *self.low_precisions)
            variation = next(one for one in known if one.name == name).vary(variation)
        return variation

    def _measure(self, names: tuple[str, ...], unit: bool = False) -> Finding:
        """The error under these deviations in float64; with `unit`, of vectors that are scaled to unit length."""
        variation = self._vary(names)
        exact = self.model.vectors(variation, self.rows, np.float64)
        few = self._few(variation, self.rows, SCREEN_TOKENS)
        single = self.model.vectors(variation, few).astype(np.float64)
        rounding = self._rounding(names, few, single, exact[[self.rows.index(row) for row in few]])
        rounding = max(self.rounding, rounding) + self.storage
        given = self.given[self.rows]
        if unit:
            given, exact = units(given), units(exact)
        known = np.isfinite(exact).all(axis=1)
        if not known.any():
            return Finding(names, np.inf, np.inf, rounding, 0.0, False)
        given, exact = given[known], exact[known]
        relative = float(relative_errors(given, exact).max())
        # where rounding alone moves a variation far, as it does in a table of float16, that explains little
        explains = relative <= min(rounding, np.inf if not names else float(self.error.max()) / 4)
        cosine = float((units(given) * units(exact)).sum(axis=1).min())
        return Finding(names, float(np.abs(given - exact).max()), relative, rounding, cosine, explains)

    # which vectors are not those of their texts

    def _reordered(self, before: Finding, wrong: Array) -> Diagnosis | None:
        """The diagnosis where the vectors that do not fit their texts are those of each other's."""
        if not 2 <= len(wrong) <= 5000:
            return None
        order = owners(self.all_given[wrong], self.all_ours[wrong], self.tolerance)
        if order is None:
            return None
        moved = [f"vector {row} is that of text {wrong[place]}" for row, place in zip(wrong, order, strict=True)]
        sentence = f"These are the model's vectors in another order (counted from 0): {_some(moved)}."
        remedy = "Give the texts in the order of the vectors (--texts FILE), or the vectors in that of the texts."
        return self._conclude("reordered", sentence, before, [], [], remedy)

    def _some_wrong(self, before: Finding, wrong: Array, still: list[str]) -> Diagnosis:
        """The diagnosis where most vectors are the model's, and some have nothing to do with them."""
        worst = wrong[np.argsort(-self.all_error[wrong], kind="stable")]
        named = [f"vector {row} (text {_shown(self.texts[row])}) {self._state(row)}" for row in worst[:EXAMPLES]]
        many = len(wrong) > 1
        sentence = (
            f"{self.n_texts - len(wrong)} of {self.n_texts} vectors match, {len(wrong)} {'do' if many else 'does'} not "
            f"(counted from 0{', worst first' if many else ''}): {_some(named, len(wrong))}."
        )
        remedy = (
            "See that each is the vector of its own text; where it is, compare the text's token ids with ours "
            "(`minilm-np trace TEXT`)."
        )
        return self._conclude("unexplained", sentence, before, [], still, remedy)

    def _state(self, row: int) -> str:
        """What a vector is that is not that of its text."""
        vector = self.all_given[row]
        if not vector.any():
            return "is all zeros"
        fitting = np.flatnonzero(relative_errors(vector[None], self.all_ours) <= self.tolerance)
        if len(fitting):
            return f"is that of text {fitting[0]}"
        return f"is off by {np.abs(vector - self.all_ours[row]).max():.1e}"

    def _low_precision(self) -> Finding | None:
        """The arithmetic in fewer bits that the errors are most like, if they are like any, and like nothing else."""
        error = self.given[self.rows] - self.base
        others = [one.name for one in self.known if one.kind != "weights"]
        if any(alike(error, np.nan_to_num(self.found[name] - self.base)) >= LEAST_ALIKE for name in others):
            return None
        changes = {
            one.name: self.model.vectors(one.vary(self.model.base), self.rows) - self.base
            for one in self._bar(self.low_precisions, "arithmetic in fewer bits")
        }
        like = [name for name, change in changes.items() if is_like(error, change)]
        if not like:
            return None
        return replace(self._measure((max(like, key=lambda name: alike(error, changes[name])),)), explains=False)

    # what is said

    def _match(self, before: Finding, still: list[str]) -> Diagnosis:
        if self.same_bits:
            return self._conclude("same bits", "The same bits: every number is the model's own.", before, [], still)
        stored = f" and the rounding of numbers stored {self.stored_as}" if self.stored_as else ""
        sentence = f"A match: the largest difference, {before.max_abs_error:.1e}, is within float32 rounding{stored}."
        return self._conclude("match", sentence, before, [], still)

    def _explained(self, before: Finding, findings: list[Finding], still: list[str]) -> Diagnosis:
        best = findings[0] if findings else before
        if best.explains and best.relative_error <= self.tolerance:
            # what a noisy variation merely does not exclude is no rival of one that leaves nothing
            findings = [
                replace(one, explains=one.explains and one.relative_error <= self.tolerance) for one in findings
            ]
        falls = f"the largest error falls from {before.max_abs_error:.1e} to {best.max_abs_error:.1e}"
        name = " and ".join(best.deviations)
        if best.explains:
            explain = "explains" if len(best.deviations) == 1 else "together explain"
            claim = f"{name[0].upper()}{name[1:]} {explain}"
            if odd := self._unexplained(best):
                sentence = f"{claim} most vectors ({falls}), but not that of text {odd[0]} (counted from 0)."
                return self._conclude("unexplained", sentence, before, findings, still)
            rounding = "rounding" if best.relative_error <= self.tolerance else "what two ways to round so differ by"
            sentence = f"{claim} the vectors: {falls}, which is {rounding}."
            others = [" and ".join(finding.deviations) for finding in findings[1:] if finding.explains]
            if others:
                sentence += f" So would {'; '.join(others)}: these texts do not tell them apart."
            return self._conclude("explained", sentence, before, findings, still)
        if not self._related():
            sentence = (
                "These are vectors of another model, or of other texts: they are no nearer to this model's vectors of "
                f"their own texts than to those of others (smallest cosine {before.min_cosine:.2f})."
            )
            remedy = "See that texts and vectors belong together, and that the vectors are this model's (--model)."
            return self._conclude("unrelated", sentence, before, [], still, remedy)
        if (low := self._low_precision()) is not None:
            sentence = (
                f"The errors, at most {before.max_abs_error:.1e}, are consistent with {low.deviations[0]} (not bit for "
                "bit to be told: each implementation rounds elsewhere); nothing known explains them exactly."
            )
            return self._conclude("unexplained", sentence, before, [low], still)
        sentence = "No known deviation, and no pair, explains the vectors."
        if best.relative_error < before.relative_error / 2:
            sentence += f" Nearest comes {name}: {falls}, but what is left is more than rounding."
        remedy = (
            "Compare step by step: `minilm-np verify --against` an ONNX export of the other side, or `transformers`, "
            "names the first step that differs."
        )
        return self._conclude("unexplained", sentence, before, findings, still, remedy)

    def _conclude(
        self, verdict: Verdict, sentence: str, before: Finding, findings: list[Finding], still: list[str],
        remedy: str = "",
    ) -> Diagnosis:  # fmt: skip
        names = {name for finding in findings if finding.explains for name in finding.deviations}
        named = [one for one in self.known if one.name in names]
        named += [one for one in self.low_precisions if (one.name,) in [finding.deviations for finding in findings]]
        remedies = [one.remedy for one in named] + ([remedy] if remedy else [])
        what, remedies = (list(dict.fromkeys(of)) for of in ([one.what for one in named], remedies))
        return Diagnosis(
            verdict, sentence, before, tuple(findings), self._classes(), tuple(still), tuple(what), tuple(remedies),
            self.n_texts, len(self.rows),
        )  # fmt: skip

    def _classes(self) -> tuple[tuple[str, ...], ...]:
        """The deviations that are seen on these texts, and have the same effect as another one."""
        classes: list[list[str]] = []
        for name, found in self.found.items():
            known = np.isfinite(found).all(axis=1)
            if not self._is_seen(name):
                continue
            for names in classes:
                other = self.found[names[0]]
                same_rows = np.array_equal(known, np.isfinite(other).all(axis=1))
                if same_rows and relative_errors(found[known], other[known]).max() <= self.tolerance:
                    names.append(name)
                    break
            else:
                classes.append([name])
        return tuple(tuple(names) for names in classes if len(names) > 1)

    def _unexplained(self, finding: Finding) -> list[int]:
        """Texts that the search did not look at, and that what it found does not explain."""
        variation = self._vary(finding.deviations)
        others = [row for row in range(len(self.lengths)) if row not in self.rows]
        rows = self._few(variation, others, CHECK_TOKENS) if others else []
        left = relative_errors(self.given[rows], self.model.vectors(variation, rows).astype(np.float64))
        return [self.studied[row] for row, error in zip(rows, left, strict=True) if error > 2.0 * finding.rounding]

    def _related(self) -> bool:
        """Whether vectors are near those of their own texts, and nearer than to others', under any deviation."""
        given = units(self.given[self.rows])
        for found in (self.base, *self.found.values()):
            known = np.isfinite(found).all(axis=1)
            cosines = given[known] @ units(found[known]).T
            own = np.diagonal(cosines)
            if own.size and own.mean() > 0.5 and (own >= cosines.max(axis=1) - 1e-6).mean() > 0.5:
                return True
        return False

    def _bar(self, items: Sequence[Any], what: str) -> Iterable[Any]:
        if not self.progress:
            return items
        from tqdm import tqdm

        return tqdm(items, desc=f"trying {what}", delay=3, leave=False)


def _some(named: list[str], count: int | None = None) -> str:
    """The first few of so many, and how many more there are."""
    more = (len(named) if count is None else count) - EXAMPLES
    return "; ".join(named[:EXAMPLES]) + (f"; and {more} more" if more > 0 else "")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _within(rows: Iterable[int], lengths: Sequence[int], budget: int) -> list[int]:
    """The rows, each once, that fit into so many tokens; at least the first one."""
    kept: list[int] = []
    for row in dict.fromkeys(rows):
        if not kept or lengths[row] <= budget:
            kept.append(row)
            budget -= lengths[row]
    return kept


def _studied(errors: Array, lengths: Sequence[int]) -> list[int]:
    """Of very many texts some: the longest one, those of the largest errors, and others spread evenly."""
    n = len(errors)
    if n <= STUDIED:
        return list(range(n))
    worst = np.argsort(-errors)[: STUDIED // 2].tolist()
    spread = np.linspace(0, n - 1, STUDIED // 2 - 1).astype(int).tolist()
    return sorted({int(np.argmax(lengths)), *worst, *spread})
