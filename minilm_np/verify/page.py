"""Pages of `verify` and `diagnose`: where two implementations part, and which deviations come near.

`comparison_page` and `diagnosis_page` return self-contained HTML pages: what `minilm-np verify --page` and `minilm-np
diagnose --page` write.
"""

import math
from collections.abc import Sequence

from minilm_np import __version__, pages
from minilm_np.pages import Html, Section, element, paragraph, token
from minilm_np.pages.marks import Series, log_bar, log_chart
from minilm_np.verify.array_errors import Row, summarised
from minilm_np.verify.comparison import Comparison
from minilm_np.verify.diagnosis import Diagnosis, Finding
from minilm_np.verify.steps import PARTING

EPS = 2.0**-23  # of float32: a smaller error of ours counts as this in the limit
HEADER = ("step", "ours", "theirs", "theirs / ours", "min cosine", "worst text", "token")
NUMBERS = (1, 2, 3, 4)  # the columns of numbers
FOOTER = f"Computed with minilm_np {__version__}. The page requests nothing from any network."
SMALLEST = 1e-12  # errors below this count as 0 in the chart: float64 rounding would stretch its scale


def comparison_page(comparison: Comparison) -> str:
    """Return the page of a comparison."""
    return pages.document(
        f"minilm_np against {comparison.theirs}",
        "Two implementations of one sentence-embedding model, both measured against the same model in float64.",
        comparison_sections(comparison),
        arrays={},
        values={},
        footer=FOOTER,
    )


def diagnosis_page(diagnosis: Diagnosis, comparison: Comparison | None = None) -> str:
    """Return the page of a diagnosis, followed by the comparison of the same vectors if it is given."""
    of = "" if comparison is None else f" of {comparison.theirs}"
    return pages.document(
        f"Diagnosis{of}",
        "Vectors of another implementation, and the known deviations from the model that could explain them.",
        diagnosis_sections(diagnosis) + ([] if comparison is None else comparison_sections(comparison)[1:]),
        arrays={},
        values={},
        footer=FOOTER,
    )


def comparison_sections(comparison: Comparison) -> list[Section]:
    """Return the sections of a comparison: the verdict, the chart, the table of the layers, the problems."""
    rows = list(comparison.intermediates)
    last = [] if comparison.vector is None else [comparison.vector]
    sections = [_result(comparison), _parting(comparison)]
    if rows or last:
        caption = "The worst errors of each layer, and of the vector" if rows else "The worst errors of the vectors"
        sections.append(
            Section(
                "layers",
                "Layer by layer" if rows else "The vectors",
                "ours, theirs: relative errors against float64. Worst text and token (with its position): where the "
                "sides differ most.",
                [_table(caption, summarised(rows) + last, comparison)],
            )
        )
    if comparison.problems:
        items = element("ul", *(element("li", problem) for problem in comparison.problems))
        heading = f"Problems ({len(comparison.problems)})"
        sections.append(Section("problems", heading, "What could not be compared, or is invalid.", [items]))
    return sections


def _result(comparison: Comparison) -> Section:
    word = "within the tolerance" if comparison.within else "different"
    facts = {
        "ours": comparison.ours,
        "theirs": comparison.theirs,
        "texts": str(comparison.texts),
        "tolerance": number(comparison.tolerance),
        "largest difference": "none" if comparison.largest is None else number(comparison.largest),
        "our largest error": number(comparison.our_largest),
    }
    return Section(
        "result",
        f"Result: {word}",
        f"{comparison.verdict[0].upper()}{comparison.verdict[1:]}.",
        [
            pages.facts(facts),
            paragraph("Differences of vectors are relative to the length of the vector.", class_="note"),
        ],
    )


def _parting(comparison: Comparison) -> Section:
    """The relative error of each step on both sides, and the limit beyond which the other side parts."""
    rows, where = comparison.intermediates, comparison.parts_at
    if not rows:
        note = "The other implementation shows no intermediate arrays: only the vectors are compared."
        return Section("parting", "Where they part", note, [])
    names = [row.name for row in rows]
    ours = [_visible(row.ours.max_rel) for row in rows]
    theirs = [_visible(row.theirs.max_rel) for row in rows]
    series = (
        Series("ours (float32)", "ours", ours, "circle"),
        Series("theirs", "theirs", theirs, "diamond"),
        Series(f"limit: {PARTING:g} times ours", "limit", [PARTING * max(error, EPS) for error in ours]),
    )
    marked = None if where is None else names.index(where)
    title = "Relative error of each step against float64"
    drawn = log_chart(title, names, _groups(names), series, marked, f"they part: {where}")
    parted = (
        "The other implementation stays below the limit at every step."
        if where is None
        else f"They part first at {where}: there, the other side's error exceeds the limit for the first time. Larger "
        "errors after this step may be its consequences."
    )
    return Section(
        "parting",
        "Where they part",
        parted,
        [
            drawn,
            paragraph(
                "Relative error: the largest difference of a number, over the largest number of the array; of the "
                "worst text. The scale is logarithmic: one line up is ten times the error. Zeros lie on the lowest "
                "line.",
                class_="note",
            ),
            element(
                "details",
                element("summary", f"All {len(rows)} steps as a table"),
                _table("Relative error of each step", rows, comparison),
            ),
        ],
    )


def _visible(error: float) -> float:
    return 0.0 if error < SMALLEST else error


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


def _table(caption: str, rows: Sequence[Row], comparison: Comparison) -> Html:
    cells = [
        [
            _step(row, comparison),
            number(row.ours.max_rel),
            number(row.theirs.max_rel),
            _times(row),
            f"{row.theirs.min_cosine:.7f}",
            element("bdi", row.worst_text),
            "" if row.worst_token is None or row.worst_position is None else token(row.worst_token, row.worst_position),
        ]
        for row in rows
    ]
    return pages.table(HEADER, cells, caption=caption, numbers=NUMBERS)


def _step(row: Row, comparison: Comparison) -> Html:
    name = element("code", row.name)
    return element("span", name, element("strong", " parts here")) if _is_parting(row, comparison) else name


def _is_parting(row: Row, comparison: Comparison) -> bool:
    where = comparison.parts_at
    return where is not None and (where == row.name or where.startswith(f"{row.name}."))


def _times(row: Row) -> str:
    ours = max(row.ours.max_rel, EPS)
    times = row.theirs.max_rel / ours
    return "∞" if math.isinf(times) else f"{times:.1f}" if times < 1e4 else f"{times:.0e}"


def number(value: float) -> str:
    """An error for people: two digits and the exponent; 0 and infinity as such."""
    return "0" if value == 0 else "∞" if math.isinf(value) else f"{value:.1e}"


def diagnosis_sections(diagnosis: Diagnosis) -> list[Section]:
    """Return the sections of a diagnosis: the result, the candidates, what cannot be told apart or excluded."""
    views = [paragraph(line) for line in diagnosis.what]
    if diagnosis.remedies:
        items = element("ul", *(element("li", remedy) for remedy in diagnosis.remedies))
        views.append(element("div", element("h3", "What to do"), items))
    if diagnosis.tell_apart:
        items = element("ul", *(element("li", check) for check in diagnosis.tell_apart))
        views.append(element("div", element("h3", "What would confirm or exclude the nearest deviations"), items))
    sections = [Section("diagnosis", f"Diagnosis: {diagnosis.verdict}", diagnosis.sentence, views)]
    if diagnosis.before is not None:
        sections.append(_candidates(diagnosis, diagnosis.before))
    if diagnosis.indistinguishable and not diagnosis.matches:
        items = element("ul", *(element("li", " = ".join(names)) for names in diagnosis.indistinguishable))
        note = "These deviations change the vectors of these texts by the same amounts."
        sections.append(Section("same", "The same effect on these texts", note, [items]))
    if diagnosis.no_effect and not diagnosis.matches:
        items = element("ul", *(element("li", name) for name in diagnosis.no_effect))
        note = "These deviations are neither found nor excluded."
        sections.append(Section("none", "No effect on these texts", note, [items]))
    return sections


def _candidates(diagnosis: Diagnosis, before: Finding) -> Section:
    """The error that each candidate leaves, as bars and numbers."""
    unit = ", at unit length" if diagnosis.verdict == "scaled" else ""
    found = [("the model as it is", before)]
    found += [(f"{' and '.join(one.deviations) or 'the model'}{unit}", one) for one in diagnosis.findings]
    errors = [value for _, one in found for value in (one.relative_error, one.rounding) if 0 < value < math.inf]
    low, high = min(errors, default=1e-8) / 4, max(errors, default=1.0) * 2
    rows = [
        [
            element("strong", name) if one.explains and one.deviations else name,
            log_bar(one.relative_error, one.rounding, low, high, f"{number(one.relative_error)} remains"),
            number(one.relative_error),
            number(one.rounding),
            number(one.max_abs_error),
            f"{one.min_cosine:.7f}",
            "yes" if one.explains and one.deviations else "",
        ]
        for name, one in found
    ]
    header = ("the model with", "what remains", "relative", "rounding", "max abs", "min cosine", "explains")
    measured = (
        f"The errors are measured on {diagnosis.n_measured} of {diagnosis.n_texts} texts: a few of each kind, with the "
        "worst."
        if diagnosis.n_measured < diagnosis.n_texts
        else f"The errors are measured on all {diagnosis.n_texts} texts."
    )
    return Section(
        "candidates",
        "Candidates and their distances",
        "Each row runs the model with one deviation, or with two. The shorter the bar, the smaller the error that "
        "remains, on a logarithmic scale. The upright line is the error that rounding explains.",
        [
            pages.table(header, rows, caption="The model as it is, and the nearest candidates", numbers=(2, 3, 4, 5)),
            paragraph(
                "relative: the largest difference over the largest number of the vector, of the worst text; rounding: "
                f"the relative error that rounding explains; max abs: the largest difference of a number. {measured}",
                class_="note",
            ),
        ],
    )
