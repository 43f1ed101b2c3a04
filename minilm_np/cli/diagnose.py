"""`minilm-np diagnose`: explain how another implementation of the model differs."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from minilm_np.cli.files import check_output, read_texts
from minilm_np.cli.options import add_command, add_format_option, add_model_options, add_page_option, load
from minilm_np.cli.printing import write_lines
from minilm_np.verify.diagnose import diagnose
from minilm_np.verify.diagnosis import Diagnosis, Finding
from minilm_np.verify.implementations import SOURCES, is_source

if TYPE_CHECKING:
    from minilm_np.cli.options import Commands

WIDEST = 29  # columns of a name in the table, whose rows then have 80; a longer name gets a separate line


def add(commands: "Commands") -> None:
    """Add `diagnose`."""
    command = add_command(
        commands, "diagnose", _diagnose, "explain how another implementation of the model differs",
        "minilm-np diagnose --against sentence-transformers",
        notes="exit code: 0 the vectors match, 1 they do not match or an error occurred, 2 wrong usage",
    )  # fmt: skip
    command.add_argument(
        "--vectors", "--against", dest="source", required=True, metavar="X",
        help=f"a file of vectors, or another source of `verify`: {SOURCES}",
    )  # fmt: skip
    command.add_argument(
        "--texts",
        metavar="FILE",
        help="the texts of the vectors: one per line, or .jsonl with `text` (default: the texts of X if X has texts, "
        "else the built-in ones)",
    )
    add_page_option(command, "with the candidates, their distances, and the errors of each step")
    add_format_option(command)
    add_model_options(command)


def _diagnose(options: argparse.Namespace) -> int:
    if not is_source(options.source):
        options.parser.error(f"argument --vectors/--against: expected one of {SOURCES}, found {options.source!r}")
    if options.page is not None:
        check_output(Path(options.page), "--page")
    texts = None if options.texts is None else read_texts(options.texts)
    encoder = load(options)
    diagnosis = diagnose(encoder, options.source, texts, progress=True)
    if options.page is not None:
        from minilm_np.pages import write
        from minilm_np.verify.compare import compare
        from minilm_np.verify.page import diagnosis_page

        write(options.page, diagnosis_page(diagnosis, compare(encoder, options.source, texts, progress=True)))
    if options.format == "json":
        print(json.dumps(diagnosis.as_dict(), indent=1))
    else:
        write_lines(report(diagnosis))
    return 0 if diagnosis.matches else 1


def report(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield the lines of a diagnosis for people."""
    yield diagnosis.sentence
    yield from diagnosis.what
    for remedy in diagnosis.remedies:
        yield f"What to do: {remedy}"
    if diagnosis.tell_apart:
        yield "What would confirm or exclude the nearest deviations:"
        yield from (f"  {check}" for check in diagnosis.tell_apart)
    if diagnosis.before is not None:
        yield ""
        yield from _table(diagnosis, diagnosis.before)
    if diagnosis.matches:
        return
    if diagnosis.indistinguishable:
        yield ""
        yield "Not distinguished by these texts (one group per line):"
        yield from (f"  {' = '.join(names)}" for names in diagnosis.indistinguishable)
    if diagnosis.no_effect:
        yield ""
        yield "Neither found nor excluded, because they have no effect on these texts:"
        yield from (f"  {name}" for name in diagnosis.no_effect)


def _table(diagnosis: Diagnosis, before: Finding) -> Iterator[str]:
    unit = ", at unit length" if diagnosis.verdict == "scaled" else ""
    rows = [("no deviation", before)]
    rows += [(f"{' and '.join(one.deviations) or 'the model'}{unit}", one) for one in diagnosis.findings]
    width = max(len(name) for name, _ in rows if len(name) <= WIDEST)
    yield f"{'':{width}}  max abs  relative  rounding  min cosine"
    for name, finding in rows:
        if len(name) > WIDEST:
            yield name
        yield (
            f"{name if len(name) <= WIDEST else '':{width}}  {finding.max_abs_error:7.1e}  "
            f"{finding.relative_error:8.1e}  {finding.rounding:8.1e}  {finding.min_cosine:10.7f}"
            f"{'  explains' if finding.explains and finding.deviations else ''}"
        )
    some = ""
    if diagnosis.n_measured < diagnosis.n_texts:
        some = f" {diagnosis.n_measured} of {diagnosis.n_texts} texts: a few of each kind, and the worst;"
    yield f"(errors: against the model in float64, with the deviation of the row;{some}"
    yield " relative: max abs / the largest number of the vector;"
    yield " rounding: the largest relative error that rounding can cause)"
