"""`minilm-np verify`: compare this package with another implementation of the same model."""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from minilm_np._checks import printable
from minilm_np.cli.files import check_output, read_pairs, read_texts
from minilm_np.cli.options import (
    add_command,
    add_format_option,
    add_model_options,
    add_page_option,
    load,
    load_cross_encoder,
)
from minilm_np.cli.printing import columns, one_line, write_lines
from minilm_np.model_files.kinds import is_cross_encoder
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.verify.array_errors import Row, summarised
from minilm_np.verify.compare import compare
from minilm_np.verify.comparison import TOLERANCE, Comparison, PairComparison
from minilm_np.verify.implementations import PAIR_SOURCES, SOURCES, is_source, open_implementation
from minilm_np.verify.interface import Implementation
from minilm_np.verify.retrieval import Retrieval, compare_retrieval
from minilm_np.verify.stability import Stability, check_stability
from minilm_np.verify.stored_vectors import StoredVectors
from minilm_np.verify.texts import built_in_texts

if TYPE_CHECKING:
    from minilm_np.cli.options import Commands

SHOWN_PROBLEMS = 5
COLUMNS = 80  # of the table of layers
DETAILED, LEAST_TEXT = 65, 15  # columns of the numbers and of the text in the table of intermediates


def add(commands: "Commands") -> None:
    """Add `verify`."""
    verify = add_command(
        commands, "verify", _verify, "compare with another implementation of the model",
        "minilm-np verify --against sentence-transformers",
        notes="exit code: 0 within the tolerance, 1 outside it, not stable (--stability) or failed, 2 wrong usage",
    )  # fmt: skip
    what = verify.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--against",
        type=_source,
        metavar="X",
        help=f"the other implementation: one of {SOURCES}; for a cross-encoder, one of {PAIR_SOURCES}",
    )
    what.add_argument(
        "--print-texts",
        action="store_true",
        help="print the built-in texts, one JSON object with label and text per line, for another program to encode; "
        "for a cross-encoder, with label, query and document",
    )
    verify.add_argument(
        "--texts",
        metavar="FILE",
        help="compare on these texts: one per line, or .jsonl with `text`; for a cross-encoder on these pairs: .jsonl "
        'with ["query", "document"], or .tsv (default: those of X if X has texts, else the built-in ones)',
    )
    verify.add_argument(
        "--tolerance",
        type=_tolerance,
        default=TOLERANCE,
        metavar="ERROR",
        help="largest difference of a number that is allowed, relative to the vector's length, or to the largest score "
        "of a cross-encoder (default: %(default)s)",
    )
    verify.add_argument(
        "--all", action="store_true", help="one row per intermediate with all errors, instead of one row per layer"
    )
    verify.add_argument(
        "--stability",
        action="store_true",
        help="also ask X for the texts alone, again, in one batch, in another order and, if X is a server, "
        "concurrently, and print which of these change a vector",
    )
    verify.add_argument(
        "--retrieval",
        action="store_true",
        help="also search 300 built-in sentences with the vectors of both sides, and compare the 10 nearest neighbours "
        "of each; if X is a file of vectors, search the texts of X",
    )
    verify.add_argument(
        "--corpus", metavar="FILE", help="as --retrieval, but search these texts: one per line, or .jsonl with `text`"
    )
    add_page_option(verify, "with the errors of each step as a chart")
    add_format_option(verify)
    add_model_options(verify)


def _verify(options: argparse.Namespace) -> int:
    if is_cross_encoder(options.model):
        return _verify_pairs(options)
    if options.page is not None:
        check_output(Path(options.page), "--page")
    texts = None if options.texts is None else read_texts(options.texts)
    corpus = None if options.corpus is None else read_texts(options.corpus)
    encoder = load(options)
    if options.print_texts:
        for label, text in built_in_texts(encoder):
            print(json.dumps({"label": label, "text": text}))
        return 0
    other = open_implementation(options.against, encoder)

    def show(lines: Iterator[str]) -> None:
        if options.format == "text":
            write_lines(lines)
            sys.stdout.flush()  # now: the next comparison may take long, or fail

    comparison = compare(encoder, other, texts, tolerance=options.tolerance, progress=True)
    found = comparison.as_dict()
    show(table(comparison, every=options.all))
    if options.page is not None:
        from minilm_np.pages import write
        from minilm_np.verify.page import comparison_page

        write(options.page, comparison_page(comparison))
    is_stable = True
    if options.stability:
        stability = check_stability(encoder, other, texts, progress=True)
        found["stability"], is_stable = stability.as_dict(), stability.is_stable and stability.failure is None
        show(stability_table(stability))
    if options.retrieval or corpus is not None:
        retrieval = compare_retrieval(encoder, other, _corpus(encoder, other, texts) if corpus is None else corpus)
        found["retrieval"] = retrieval.as_dict()
        show(retrieval_table(retrieval))
    if options.format == "json":
        print(json.dumps(found, indent=1))
    return 0 if comparison.within and is_stable else 1


def _verify_pairs(options: argparse.Namespace) -> int:
    """`_verify` for a cross-encoder."""
    from minilm_np.verify.compare_pairs import built_in_pairs, compare_pairs  # here, to keep the start short

    for name in ("page", "stability", "retrieval", "corpus"):
        if getattr(options, name):
            options.parser.error(f"--{name} needs a model for vectors, and {options.model} is a cross-encoder")
    pairs = None if options.texts is None else read_pairs(options.texts)
    model = load_cross_encoder(options, options.model)
    if options.print_texts:
        for label, (query, document) in built_in_pairs(model):
            print(json.dumps({"label": label, "query": query, "document": document}))
        return 0
    comparison = compare_pairs(model, options.against, pairs, tolerance=options.tolerance, progress=True)
    if options.format == "json":
        print(json.dumps(comparison.as_dict(), indent=1))
    else:
        write_lines(table(comparison, every=options.all))
    return 0 if comparison.within else 1


def _corpus(encoder: SentenceEncoder, other: Implementation, texts: list[str] | None) -> list[str] | None:
    """The corpus if none is given: the texts of a file of vectors without texts; else None, the default of X."""
    if not isinstance(other, StoredVectors) or other.texts is not None:
        return None
    return texts if texts is not None else [text for _, text in built_in_texts(encoder)]


def table(comparison: Comparison, *, every: bool = False) -> Iterator[str]:
    """Yield the lines of a comparison for people: one per layer, or with `every` one per intermediate."""
    yield f"ours: {comparison.ours}; theirs: {comparison.theirs}; {comparison.texts} {comparison.noun}s"
    rows = comparison.intermediates if every else summarised(comparison.intermediates)
    rows = rows + ([] if comparison.vector is None else [comparison.vector])
    if rows:
        yield from _detailed(rows, columns()) if every else _short(rows)
    if comparison.intermediates:
        yield f"(our `{comparison.result}`: the backend; our other rows: the NumPy reference in float32)"
    for problem in comparison.problems[:SHOWN_PROBLEMS]:
        yield f"problem: {printable(problem)}"
    if len(comparison.problems) > SHOWN_PROBLEMS:
        yield f"problem: and {len(comparison.problems) - SHOWN_PROBLEMS} more (--format json lists all)"
    yield printable(comparison.verdict)
    can_diagnose = not isinstance(comparison, PairComparison)
    if can_diagnose and comparison.largest is not None and comparison.largest > comparison.tolerance:
        yield "What to do: run `minilm-np diagnose` with the same --against and --texts; it looks for the cause."


def stability_table(stability: Stability) -> Iterator[str]:
    """Yield the lines of the result of `check_stability` for people."""
    yield ""
    if stability.changes:
        title = f"stability of {stability.texts} texts"
        width = max(len(title), *(len(change.way) for change in stability.changes))
        yield f"{title:{width}}  changed  max abs  min cosine  worst text"
        for change in stability.changes:
            start = f"{change.way:{width}}  {change.changed:7}  {change.max_abs:7.1e}  {change.min_cosine:10.7f}  "
            yield (start + one_line(change.worst_text or "", max(LEAST_TEXT, COLUMNS - len(start)))).rstrip()
        if stability.not_tested:
            yield printable(f"(not tested: {stability.not_tested})")
    yield printable(stability.sentence)


def retrieval_table(retrieval: Retrieval) -> Iterator[str]:
    """Yield the lines of the result of `compare_retrieval` for people."""
    k = retrieval.neighbours
    yield ""
    yield f"retrieval: {retrieval.queries} queries, taken from {printable(retrieval.corpus)}"
    yield (
        f"equal neighbours        {retrieval.mean_overlap:.2f} of {k} per query on average, {retrieval.worst_overlap} "
        "for the worst query"
    )
    yield f"equal nearest neighbour for {retrieval.first_equal} of {retrieval.queries} queries"
    yield f"Kendall's tau           {retrieval.kendall_tau:.6f}  (order of the similarities; 1: the same order)"
    yield f"max change of a cosine  {retrieval.max_cosine_change:.1e}"
    if not retrieval.is_same:
        yield f"worst query             {one_line(retrieval.worst_query, COLUMNS - 24)}"
    yield printable(retrieval.sentence)


def _short(rows: list[Row]) -> Iterator[str]:
    width = max(len(row.name) for row in rows)
    yield f"{'':{width}}  theirs against ours  against float64"
    yield f"{'':{width}}  max abs  min cosine     ours   theirs  worst text"
    for row in rows:
        apart = row.difference
        start = (
            f"{row.name:{width}}  {apart.max_abs:7.1e}  {apart.min_cosine:10.7f}  {row.ours.max_abs:7.1e}  "
            f"{row.theirs.max_abs:7.1e}  "
        )
        text, room = printable(row.worst_text), max(16, COLUMNS - len(start))
        yield start + (text if len(text) <= room else f"{text[: room - 3]}...")


def _detailed(rows: list[Row], columns: int) -> Iterator[str]:
    """One row per intermediate; on a narrow terminal its name has a separate line."""
    width = max(len(row.name) for row in rows)
    apart = width + DETAILED + LEAST_TEXT > columns
    width = 0 if apart else width
    yield f"{'':{width}}  |-------- theirs against ours --------|  |- against float64 -|"
    yield f"{'':{width}}  max abs  max rel      ULP  min cosine       ours    theirs   worst text"
    for row in rows:
        errors, text = row.difference, printable(row.worst_text)
        if apart:
            yield row.name
            text = one_line(text, columns - DETAILED)
        yield (
            f"{'' if apart else row.name:{width}}  {errors.max_abs:7.1e}  {errors.max_rel:7.1e}  "
            f"{_ulp(errors.max_ulp)}  {errors.min_cosine:10.7f}    {row.ours.max_abs:7.1e}   "
            f"{row.theirs.max_abs:7.1e}   {text}"
        )


def _ulp(ulp: float) -> str:
    return f"{ulp:7.1f}" if ulp < 99999 else f"{ulp:7.1e}"


def _source(text: str) -> str:
    if not is_source(text):  # the sources of pairs are among them
        raise argparse.ArgumentTypeError(f"expected one of {SOURCES}, found {text!r}")
    return text


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, found {text!r}")
    return value
