"""`minilm-np verify`: compare this package with another implementation of the same model."""

import argparse
import json
import math
from collections.abc import Iterator
from typing import Any

from minilm_np.cli.files import read_lines
from minilm_np.cli.options import add_command, add_model_options
from minilm_np.errors import InputValueError
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.verify.compare import TOLERANCE, Comparison, Row, compare, summarised
from minilm_np.verify.implementations import SOURCES, is_source
from minilm_np.verify.texts import built_in_texts

SHOWN_PROBLEMS = 5


def add(commands: Any) -> None:
    verify = add_command(
        commands, "verify", _verify, "compare with another implementation of the model",
        "minilm-np verify --against sentence-transformers",
    )  # fmt: skip
    what = verify.add_mutually_exclusive_group(required=True)
    what.add_argument("--against", type=_source, metavar="X", help=f"one of {SOURCES}")
    what.add_argument(
        "--print-texts",
        action="store_true",
        help="print the built-in texts, a JSON object with label and text a line, for others to encode",
    )
    verify.add_argument(
        "--texts",
        metavar="FILE",
        help="compare on these: a text a line, or .jsonl with `text` (default: those of X, or the built-in ones)",
    )
    verify.add_argument(
        "--tolerance",
        type=_tolerance,
        default=TOLERANCE,
        metavar="ERROR",
        help="the largest difference of a number of a vector, as a part of the vector's length (default: %(default)s)",
    )
    verify.add_argument("--all", action="store_true", help="a line for each intermediate, not for each layer")
    verify.add_argument("--format", choices=("text", "json"), default="text", help="(default: %(default)s)")
    add_model_options(verify)
    verify.epilog = f"{verify.epilog}\n\nexit code: 0 within the tolerance, 1 outside it or failed, 2 wrong usage"


def _verify(options: argparse.Namespace) -> int:
    texts = None if options.texts is None else read_texts(options.texts)
    encoder = SentenceEncoder(options.model, backend=options.backend, threads=options.threads)
    if options.print_texts:
        for label, text in built_in_texts(encoder):
            print(json.dumps({"label": label, "text": text}))
        return 0
    comparison = compare(encoder, options.against, texts, tolerance=options.tolerance)
    if options.format == "json":
        print(json.dumps(comparison.as_dict(), indent=1))
    else:
        for line in table(comparison, every=options.all):
            print(line)
    return 0 if comparison.within else 1


def read_texts(path: str) -> list[str]:
    """The texts of a file: a text a line, or a .jsonl file's `text`. Raises InputValueError, OSError."""
    lines = read_lines(path)
    if not path.lower().endswith(".jsonl"):
        return lines
    texts = []
    for number, line in enumerate(lines, 1):
        try:
            item = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputValueError(f"{path}, line {number}: not JSON: {error}") from None
        text = item.get("text") if isinstance(item, dict) else None
        if not isinstance(text, str):
            raise InputValueError(f'{path}, line {number}: expected an object with "text", found {line[:60]}')
        texts.append(text)
    return texts


def table(comparison: Comparison, *, every: bool = False) -> Iterator[str]:
    """The comparison for people, line by line: a line for each layer, or with `every` for each intermediate."""
    rows = comparison.intermediates if every else summarised(comparison.intermediates)
    rows = rows + ([] if comparison.vector is None else [comparison.vector])
    yield f"ours: {comparison.ours}; theirs: {comparison.theirs}; {comparison.texts} texts"
    if rows:
        width = max(len(row.name) for row in rows)
        yield f"{'':{width}}  |-------- theirs against ours --------|  |- against float64 -|"
        yield f"{'':{width}}  max abs  max rel      ULP  min cosine       ours    theirs   worst text"
        yield from (_line(row, width) for row in rows)
    if comparison.intermediates:
        yield "(our intermediates are the NumPy reference's, in float32; our vectors are those of the backend)"
    for problem in comparison.problems[:SHOWN_PROBLEMS]:
        yield f"problem: {_printable(problem)}"
    if len(comparison.problems) > SHOWN_PROBLEMS:
        yield f"problem: and {len(comparison.problems) - SHOWN_PROBLEMS} more (--format json has them all)"
    yield _printable(comparison.verdict)


def _line(row: Row, width: int) -> str:
    apart, text = row.difference, _printable(row.worst_text)
    return (
        f"{row.name:{width}}  {apart.max_abs:7.1e}  {apart.max_rel:7.1e}  {_ulp(apart.max_ulp)}  "
        f"{apart.min_cosine:10.7f}    {row.ours.max_abs:7.1e}   {row.theirs.max_abs:7.1e}   {text}"
    )


def _ulp(ulp: float) -> str:
    return f"{ulp:7.1f}" if ulp < 99999 else f"{ulp:7.1e}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _source(text: str) -> str:
    if not is_source(text):
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
