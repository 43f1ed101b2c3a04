"""Pages of `verify` and `diagnose`: where two implementations part, and which deviations come near.

`comparison_page` and `diagnosis_page` return self-contained HTML pages: what `minilm-np verify --page` and `minilm-np
diagnose --page` write.
"""

import html
import math
from collections.abc import Sequence

from minilm_np.pages.marks import Column, Series, log_bar, log_chart, table, text
from minilm_np.pages.plain import document
from minilm_np.pages.plain import write as write
from minilm_np.verify.array_errors import Errors, Row, summarised
from minilm_np.verify.compare import PARTING, Comparison
from minilm_np.verify.diagnosis import Diagnosis, Finding

EPS = 2.0**-23  # of float32: a smaller error of ours counts as this in the limit
STEPS = (
    Column("step"), Column("ours", True), Column("theirs", True), Column("theirs / ours", True),
    Column("min cosine", True), Column("worst text"), Column("token"),
)  # fmt: skip


def comparison_page(comparison: Comparison) -> str:
    """Return the page of a comparison."""
    introduction = (
        '<p class="introduction">Two implementations of one sentence-embedding model are compared: '
        f"{text(comparison.ours)} (ours) and {text(comparison.theirs)} (theirs).</p>"
    )
    return document(f"minilm_np against {comparison.theirs}", introduction, comparison_sections(comparison))


def diagnosis_page(diagnosis: Diagnosis, comparison: Comparison | None = None) -> str:
    """Return the page of a diagnosis, followed by the comparison of the same vectors if it is given."""
    introduction = (
        '<p class="introduction">Vectors of another implementation, and the known deviations from the model that could '
        "explain them.</p>"
    )
    sections = diagnosis_sections(diagnosis)
    if comparison is not None:
        sections += comparison_sections(comparison)[1:]
    of = "" if comparison is None else f" of {comparison.theirs}"
    return document(f"Diagnosis{of}", introduction, sections)


def comparison_sections(comparison: Comparison) -> list[tuple[str, str]]:
    """Return the sections of a comparison, (title, HTML): the verdict, the chart, the tables, the problems."""
    sections = [("Result", _facts(comparison))]
    rows = list(comparison.intermediates)
    if rows:
        sections.append(("Where they part", _chart(comparison)))
    else:
        note = "<p>The other implementation shows no intermediate arrays: only the vectors are compared.</p>"
        sections.append(("Where they part", note))
    last = [] if comparison.vector is None else [comparison.vector]
    if rows or last:
        caption = "The worst errors of each layer, and of the vector" if rows else "The worst errors of the vectors"
        sections.append(("Layer by layer" if rows else "Vectors", _table(caption, summarised(rows) + last, comparison)))
    if comparison.problems:
        items = "".join(f"<li>{text(problem)}</li>" for problem in comparison.problems)
        sections.append((f"Problems ({len(comparison.problems)})", f"<ul>{items}</ul>"))
    return sections


def _facts(comparison: Comparison) -> str:
    largest = "nothing was compared" if comparison.largest is None else number(comparison.largest)
    facts = (
        ("ours", text(comparison.ours)),
        ("theirs", text(comparison.theirs)),
        ("texts", str(comparison.texts)),
        ("tolerance", number(comparison.tolerance)),
        ("largest difference", largest),
        ("our largest error", number(comparison.our_largest)),
    )
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    state, word = ("yes", "Equal up to rounding") if comparison.within else ("no", "Different")
    return (
        f'<p class="verdict {state}"><strong>{word}:</strong> {text(comparison.verdict)}.</p>'
        f'<dl class="facts">{items}</dl>'
        "<p>Differences of vectors are relative to the length of the vector. Both sides are measured against the same "
        "model in float64.</p>"
    )


def _chart(comparison: Comparison) -> str:
    """The relative error of each step on both sides, and the limit beyond which the other side parts."""
    rows = comparison.intermediates
    names = [row.name for row in rows]
    ours = [row.ours.max_rel for row in rows]
    series = (
        Series("ours (float32)", "ours", ours, "circle"),
        Series("theirs", "theirs", [row.theirs.max_rel for row in rows], "diamond"),
        Series(f"limit: {PARTING:g} times ours", "limit", [PARTING * max(error, EPS) for error in ours]),
    )
    arrow = None if comparison.parts_at is None else names.index(comparison.parts_at)
    parted = (
        "<p>The other implementation stays below the limit at every step.</p>"
        if comparison.parts_at is None
        else f"<p>They part first at <code>{text(comparison.parts_at)}</code>: there, the other side's error exceeds "
        "the limit for the first time. Larger errors after this step may be its consequences.</p>"
    )
    drawn = log_chart(
        "Relative error of each step against float64, on a logarithmic scale", names, _groups(names), series, arrow,
        f"they part: {comparison.parts_at}",
    )  # fmt: skip
    return (
        f"{parted}<p>Relative error of every step against float64: the largest difference of a number, over the "
        "largest number of the array; of the worst text. The scale is logarithmic: one line up is ten times the error. "
        f"A zero lies on the lowest line.</p>{drawn}<details><summary>All {len(rows)} steps as a table</summary>"
        f"{_table('Relative error of each step', rows, comparison)}</details>"
    )


def _groups(names: Sequence[str]) -> list[tuple[str, int]]:
    """Consecutive names of one layer: its short label, and how many they are."""
    groups: list[tuple[str, int]] = []
    for name in names:
        parts = name.split(".")
        label = f"layer {parts[2]}" if parts[0] == "encoder" else "embed." if parts[0] == "embeddings" else "out"
        if groups and groups[-1][0] == label:
            groups[-1] = (label, groups[-1][1] + 1)
        else:
            groups.append((label, 1))
    return groups


def _table(caption: str, rows: Sequence[Row], comparison: Comparison) -> str:
    cells = [
        (
            f"<code>{text(row.name)}</code>{' <strong>parts here</strong>' if _is_parting(row, comparison) else ''}",
            number(row.ours.max_rel),
            number(row.theirs.max_rel),
            _times(row),
            _cosine(row.theirs),
            text(row.worst_text),
            "" if row.worst_token is None else f"{text(row.worst_token)} ({row.worst_position})",
        )
        for row in rows
    ]
    marked = [place for place, row in enumerate(rows) if _is_parting(row, comparison)]
    note = (
        "<p>ours, theirs: relative error against float64. Worst text and token (with its position): where the two "
        "sides differ most.</p>"
    )
    return table(caption, STEPS, cells, marked) + note


def _is_parting(row: Row, comparison: Comparison) -> bool:
    where = comparison.parts_at
    return where is not None and (where == row.name or where.startswith(f"{row.name}."))


def _times(row: Row) -> str:
    ours = max(row.ours.max_rel, EPS)
    times = row.theirs.max_rel / ours
    return "∞" if math.isinf(times) else f"{times:.1f}" if times < 1e4 else f"{times:.0e}"


def _cosine(errors: Errors) -> str:
    return f"{errors.min_cosine:.7f}"


def number(value: float) -> str:
    """An error for people: two digits and the exponent; 0 and infinity as such."""
    return "0" if value == 0 else "∞" if math.isinf(value) else f"{value:.1e}"


def diagnosis_sections(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    """Return the sections of a diagnosis, (title, HTML): the result, the candidates, what cannot be excluded."""
    what = "".join(f"<p>{text(line)}</p>" for line in diagnosis.what)
    remedies = "".join(f"<li>{text(remedy)}</li>" for remedy in diagnosis.remedies)
    state = "yes" if diagnosis.matches else "no"
    result = (
        f'<p class="verdict {state}"><strong>{html.escape(diagnosis.verdict)}.</strong> {text(diagnosis.sentence)}</p>'
    )
    sections = [("Diagnosis", result + what + (f"<h3>What to do</h3><ul>{remedies}</ul>" if remedies else ""))]
    if diagnosis.before is not None:
        sections.append(("Candidates and their distances", _candidates(diagnosis, diagnosis.before)))
    if diagnosis.indistinguishable and not diagnosis.matches:
        items = "".join(f"<li>{' = '.join(map(text, names))}</li>" for names in diagnosis.indistinguishable)
        sections.append(("The same effect on these texts", f"<ul>{items}</ul>"))
    if diagnosis.no_effect and not diagnosis.matches:
        items = "".join(f"<li>{text(name)}</li>" for name in diagnosis.no_effect)
        sections.append(("No effect on these texts, so neither found nor excluded", f"<ul>{items}</ul>"))
    return sections


def _candidates(diagnosis: Diagnosis, before: Finding) -> str:
    """The error that each candidate leaves, as bars and numbers."""
    unit = ", at unit length" if diagnosis.verdict == "scaled" else ""
    found = [("the model as it is", before)]
    found += [(f"{' and '.join(one.deviations) or 'the model'}{unit}", one) for one in diagnosis.findings]
    errors = [value for _, one in found for value in (one.relative_error, one.rounding) if 0 < value < math.inf]
    low, high = min(errors, default=1e-8) / 4, max(errors, default=1.0) * 2
    cells = [
        (
            f"{text(name)}{' <strong>explains</strong>' if one.explains and one.deviations else ''}",
            log_bar(one.relative_error, one.rounding, low, high, f"{number(one.relative_error)} remains"),
            number(one.relative_error),
            number(one.rounding),
            number(one.max_abs_error),
            f"{one.min_cosine:.7f}",
        )
        for name, one in found
    ]
    columns = (
        Column("the model with"), Column("remaining error, logarithmic"), Column("relative", True),
        Column("rounding", True), Column("max abs", True), Column("min cosine", True),
    )  # fmt: skip
    marked = [place for place, (_, one) in enumerate(found) if one.explains and one.deviations]
    some = (
        f" Measured on {diagnosis.n_measured} of {diagnosis.n_texts} texts: a few of each kind, with the worst."
        if diagnosis.n_measured < diagnosis.n_texts
        else ""
    )
    return (
        "<p>Each row runs the model with one deviation, or with two, and measures the error that remains. The shorter "
        "the bar, the nearer the candidate; the upright line is the error that rounding explains. A candidate whose "
        f"bar ends before its line explains the vectors.{some}</p>"
        f"{table('Candidates, nearest first', columns, cells, marked)}"
        "<p>relative: the largest difference over the largest number of the vector, of the worst text; max abs: the "
        "largest difference of a number. All in float64.</p>"
    )
