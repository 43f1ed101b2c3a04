"""`minilm-np diagnose`: say what another implementation of the model does differently."""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from minilm_np.cli.options import add_command, add_model_options
from minilm_np.cli.verify import read_texts
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.verify.diagnose import diagnose
from minilm_np.verify.diagnosis import Diagnosis, Finding
from minilm_np.verify.implementations import SOURCES, is_source


def add(commands: Any) -> None:
    command = add_command(
        commands, "diagnose", _diagnose, "say what another implementation of the model does differently",
        "minilm-np diagnose --against sentence-transformers",
    )  # fmt: skip
    command.add_argument(
        "--vectors", "--against", dest="source", required=True, metavar="X",
        help=f"a file of vectors, or what else `verify` takes: {SOURCES}",
    )  # fmt: skip
    command.add_argument(
        "--texts",
        metavar="FILE",
        help="their texts: a text a line, or .jsonl with `text` (default: those of X, or the built-in ones)",
    )
    command.add_argument("--format", choices=("text", "json"), default="text", help="(default: %(default)s)")
    add_model_options(command)
    command.epilog = f"{command.epilog}\n\nexit code: 0 the vectors match, 1 they do not or it failed, 2 wrong usage"


def _diagnose(options: argparse.Namespace) -> int:
    if not is_source(options.source):
        options.parser.error(f"argument --vectors/--against: expected one of {SOURCES}, found {options.source!r}")
    texts = None if options.texts is None else read_texts(options.texts)
    encoder = SentenceEncoder(options.model, backend=options.backend, threads=options.threads)
    diagnosis = diagnose(encoder, options.source, texts, progress=sys.stderr is not None and sys.stderr.isatty())
    if options.format == "json":
        print(json.dumps(diagnosis.as_dict(), indent=1))
    else:
        for line in report(diagnosis):
            print(line)
    return 0 if diagnosis.matches else 1


def report(diagnosis: Diagnosis) -> Iterator[str]:
    """A diagnosis for people, line by line."""
    yield diagnosis.sentence
    yield from diagnosis.what
    for remedy in diagnosis.remedies:
        yield f"What to do: {remedy}"
    if diagnosis.before is not None:
        rows = [("the model as it is", diagnosis.before)]
        unit = ", at unit length" if diagnosis.verdict == "scaled" else ""
        rows += [(f"{' and '.join(one.deviations) or 'the model'}{unit}", one) for one in diagnosis.findings]
        width = max(len(name) for name, _ in rows)
        yield ""
        yield f"{'':{width}}  max abs  relative  rounding  min cosine"
        yield from (_line(name, finding, width) for name, finding in rows)
        some = f", on {diagnosis.n_measured} of {diagnosis.n_texts} texts: a few of each kind, the worst among them"
        yield f"(in float64{some if diagnosis.n_measured < diagnosis.n_texts else ''};"
        yield "relative: to the largest number of the same vector; rounding: how much of that rounding may do)"
    if diagnosis.matches:
        return
    if diagnosis.indistinguishable:
        yield ""
        yield "Have the same effect on these texts:"
        yield from (f"  {' = '.join(names)}" for names in diagnosis.indistinguishable)
    if diagnosis.no_effect:
        yield ""
        yield "Would not be seen on these texts:"
        yield from (f"  {name}" for name in diagnosis.no_effect)


def _line(name: str, finding: Finding, width: int) -> str:
    return (
        f"{name:{width}}  {finding.max_abs_error:7.1e}  {finding.relative_error:8.1e}  {finding.rounding:8.1e}  "
        f"{finding.min_cosine:10.7f}{'  explains' if finding.explains and finding.deviations else ''}"
    )
