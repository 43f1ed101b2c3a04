"""What the commands' arguments have in common."""

import argparse
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

from minilm_np.errors import TruncationWarning
from minilm_np.model_files.manifest import DEFAULT_MODEL
from minilm_np.sentence_encoder import BACKENDS, SentenceEncoder, Vectors

LONG_WORK = 200  # texts from which a progress bar is worth the line it takes


def add_command(commands: Any, name: str, run: Any, summary: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


def add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a name, or a folder (default: %(default)s)")
    parser.add_argument("--backend", choices=BACKENDS, default=BACKENDS[0], help="(default: %(default)s)")
    parser.add_argument("--threads", type=positive, metavar="N", help="of the numba backend (default: all it may use)")


def load(options: argparse.Namespace) -> SentenceEncoder:
    """The model that `add_model_options` asks for."""
    return SentenceEncoder(options.model, backend=options.backend, threads=options.threads)


def encode(encoder: SentenceEncoder, texts: list[str], name: Callable[[int], str]) -> Vectors:
    """The vectors of texts, with a progress bar for long work, and one warning if any of them were cut.

    name: what the user calls the text of a row, from 0: its line, or its place among the arguments.
    """
    bar = sys.stderr.isatty() and len(texts) >= LONG_WORK
    vectors: Vectors = encoder.encode(texts, show_progress_bar=bar, on_truncation="ignore")
    cut = [row for row, truncated in enumerate(encoder.tokenizer(texts).truncated) if truncated]
    if cut:
        longest = max(cut, key=lambda row: len(texts[row]))
        warnings.warn(
            f"{len(cut):,} of {len(texts):,} text{'s' * (len(texts) != 1)} {'is' if len(cut) == 1 else 'are'} longer "
            f"than the limit of {encoder.max_seq_length} tokens, and the rest was left out; the longest, "
            f"{name(longest)}, has {len(texts[longest]):,} characters: split what has to be read whole",
            TruncationWarning,
            stacklevel=2,
        )
    return vectors


def positive(text: str) -> int:
    if not re.fullmatch("0*[1-9][0-9]{0,17}", text):
        bound = "at most 18 digits" if re.fullmatch("[0-9]{19,}", text) else "at least 1"
        raise argparse.ArgumentTypeError(f"expected a whole number of {bound}, found {text!r}")
    return int(text)
