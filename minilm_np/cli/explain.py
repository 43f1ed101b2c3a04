"""`minilm-np explain`: a page that shows how a text becomes its vector."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from minilm_np.cli.files import check_output, decoded
from minilm_np.cli.options import add_command, add_model_options, load

if TYPE_CHECKING:
    from minilm_np.cli.options import Commands

DEFAULT = "explanation.html"


def add(commands: "Commands") -> None:
    """Add `explain` to the commands."""
    parser = add_command(
        commands,
        "explain",
        _explain,
        "write a page that shows how a text becomes its vector",
        'minilm-np explain "A text" --output page.html',
        details="The page is one HTML file that needs no network. It shows the pipeline with every step's numbers,\n"
        "the tokens, the attention of all heads, the layers, and what each token contributes to the vector.",
    )
    parser.add_argument("text", metavar="TEXT", help="the text")
    parser.add_argument(
        "--output",
        default=DEFAULT,
        metavar="FILE",
        help="the page to write; - writes it to standard output (default: %(default)s)",
    )
    add_model_options(
        parser, backend="numpy", backend_help="has no effect: every number is the numpy backend's", threads=False
    )


def _explain(options: argparse.Namespace) -> int:
    from minilm_np.explain import text  # here: no other command needs it

    to_stdout = options.output == "-"
    if not to_stdout:
        check_output(Path(options.output))
    [wanted] = decoded([options.text])
    explanation = text(load(options), wanted)
    if to_stdout:
        sys.stdout.write(explanation.page())
        return 0
    explanation.write(options.output)
    size = Path(options.output).stat().st_size
    print(f"minilm-np: wrote {options.output} ({size / 1e6:.1f} MB): open it in a browser", file=sys.stderr)
    return 0
