"""`minilm-np explain`: a page that shows how a text becomes its vector, or why two texts are similar."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from minilm_np._progress import progress
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
        "write a page that explains a text, or the similarity of two",
        'minilm-np explain "A text" --output page.html',
        details="The page is one HTML file that needs no network. For one text it shows the pipeline with the\n"
        "numbers of every step, the tokens, the attention, the layers, and what each token contributes to\n"
        "the vector. For two texts it shows their cosine as a sum over pairs of tokens, and integrated\n"
        "gradients.",
    )
    parser.add_argument("texts", metavar="TEXT", nargs="+", help="one text, or two to explain their similarity")
    parser.add_argument(
        "--output",
        default=DEFAULT,
        metavar="FILE",
        help="the page to write; - writes it to standard output (default: %(default)s)",
    )
    add_model_options(
        parser,
        backend="numpy",
        backend_help="of the cosine of two texts; all other numbers are of the numpy backend",
        threads=False,
    )


def _explain(options: argparse.Namespace) -> int:
    from minilm_np.explain import Similarity, TextExplanation, similarity, text  # here: no other command needs it

    if len(options.texts) > 2:
        options.parser.error(f"expected one text or two, found {len(options.texts)}")
    to_stdout = options.output == "-"
    if not to_stdout:
        check_output(Path(options.output))
    wanted, encoder = decoded(options.texts), load(options)
    explanation: TextExplanation | Similarity
    if len(wanted) == 1:
        explanation = text(encoder, wanted[0])
    else:
        with progress("integrating gradients", "step", delay=3, leave=False) as report:
            explanation = similarity(encoder, wanted[0], wanted[1], report=report)
    if to_stdout:
        sys.stdout.write(explanation.page())
        return 0
    explanation.write(options.output)
    size = Path(options.output).stat().st_size
    print(f"minilm-np: wrote {options.output} ({size / 1e6:.1f} MB): open it in a browser", file=sys.stderr)
    return 0
