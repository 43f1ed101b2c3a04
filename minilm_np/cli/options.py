"""What the commands' arguments have in common."""

import argparse
import re
from typing import Any

from minilm_np.manifest import DEFAULT_MODEL
from minilm_np.sentence_encoder import BACKENDS

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


def positive(text: str) -> int:
    if not re.fullmatch("0*[1-9][0-9]{0,17}", text):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)
