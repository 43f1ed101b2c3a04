"""`minilm-np rerank`: put the lines of a file in the order in which a cross-encoder finds them relevant to a query."""

import argparse
import contextlib
import warnings
from typing import TYPE_CHECKING

import numpy as np

from minilm_np._forks import no_fork
from minilm_np._progress import progress
from minilm_np.cli.encoding import LONG_WORK, Numbered, text_batches
from minilm_np.cli.files import decoded, open_lines
from minilm_np.cli.line_table import Line, best, scored_lines, write_table
from minilm_np.cli.options import add_command, add_format_option, add_model_options, load_cross_encoder, positive
from minilm_np.errors import TruncationWarning
from minilm_np.model_files.manifest import DEFAULT_CROSS_ENCODER

if TYPE_CHECKING:
    from minilm_np.cli.options import Commands
    from minilm_np.cross_encoder import CrossEncoder

TITLE = "score"


def add(commands: "Commands") -> None:
    """Add `rerank` to the commands."""
    parser = add_command(
        commands,
        "rerank",
        _rerank,
        "put the lines of a file in the order of their relevance to a query",
        "printf 'The cat sleeps.\\nShares fell today.\\n' | minilm-np rerank \"a pet at rest\" --corpus -",
        details="A cross-encoder reads the query and each line together. It is slower than `search` and judges\n"
        "better: use it for some hundred lines, or `search --rerank` for more. Print one row per line, the\n"
        "best one first: its score, its line number, and its text.",
    )
    parser.add_argument("query", metavar="QUERY", help="the text that the lines are compared with")
    parser.add_argument(
        "--corpus",
        required=True,
        metavar="FILE",
        help="one text per line (UTF-8); - is standard input; blank lines are skipped",
    )
    parser.add_argument(
        "--top-k", type=positive, default=5, metavar="K", help="number of lines to print (default: %(default)s)"
    )
    parser.add_argument(
        "--max-length", type=positive, metavar="N", help="truncate pairs to N tokens (default: the limit of the model)"
    )
    add_format_option(parser)
    add_model_options(parser, model=DEFAULT_CROSS_ENCODER)


def _rerank(options: argparse.Namespace) -> int:
    (query,) = decoded([options.query])
    with open_lines(options.corpus, skip_blank=True) as lines:
        model = load_reranker(options, options.model, options.max_length)
        found, last = best_lines(model, query, lines.numbered, lines.total, options.top_k)
    write_table(found, last, options.format, TITLE)
    return 0


def load_reranker(options: argparse.Namespace, name: str, max_length: int | None = None) -> "CrossEncoder":
    """Load a cross-encoder for `best_lines`. Raises InputValueError if it has several labels."""
    model = load_cross_encoder(options, name, max_length)
    model.model.require_one_label()
    return model


def best_lines(
    model: "CrossEncoder", query: str, lines: Numbered, total: int | None, top_k: int
) -> tuple[list[Line], int]:
    """The lines with the highest scores, and the number of the last line that was read.

    total: the number of lines, for the progress on stderr; None if it is unknown. Issues one TruncationWarning.
    """
    with no_fork:
        from minilm_np.engine.classifier import activate

    query = model.model.encoder.settings.prefix() + query
    truncation = model.model.truncation("ignore")
    found: list[Line] = []
    longest = last = 0
    shown = total is None or total >= LONG_WORK
    with progress("rerank", "line", total) if shown else contextlib.nullcontext(lambda done: None) as report:
        for numbers, texts in text_batches(lines):
            first, last = truncation.n_texts, max(last, numbers[-1])
            logits = model.model.logits([(query, text) for text in texts], report, truncation)
            scores = activate(logits, model.activation_fn)[:, 0]
            rows = np.argsort(-scores, kind="stable")[:top_k].tolist()
            found = best([*found, *scored_lines(rows, scores[rows], numbers, texts)], top_k)
            if truncation.n_truncated and truncation.where >= first:
                longest = numbers[truncation.where - first]
    if truncation.n_truncated:
        are, were = ("is", "was") if truncation.n_truncated == 1 else ("are", "were")
        warnings.warn(
            f"{truncation.n_truncated:,} of {truncation.n_texts:,} line{'s' * (truncation.n_texts != 1)} {are} longer, "
            f"together with the query, than the limit of {model.max_seq_length} tokens, and {were} truncated; the "
            f"longest is line {longest}: split lines that must be read completely",
            TruncationWarning,
            stacklevel=2,
        )
    return found, last
