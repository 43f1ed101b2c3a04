"""Code that the commands share: their options, and loading the model."""

import argparse
import re
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING

from minilm_np._forks import no_fork
from minilm_np.encoding.pipeline import ON_TRUNCATION
from minilm_np.engine.registry import BACKENDS, COMPUTE_TYPES
from minilm_np.model_files.manifest import DEFAULT_MODEL
from minilm_np.sentence_encoder import SentenceEncoder

if TYPE_CHECKING:
    from minilm_np.cross_encoder import CrossEncoder

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # what `add_subparsers` returns

BACKEND_HELP = "numba: compiled kernels, the same bits on every CPU; numpy: the readable reference"


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keep the line breaks of descriptions, and leave room for the longest option and the longest command."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26)
        self._action_max_length = len("    conformance")  # Python 3.11 leaves out the indentation of commands

    def _split_lines(self, text: str, width: int) -> list[str]:
        """Break the help of an option at spaces only, not inside the name of a model."""
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def add_command(
    commands: "Commands",
    name: str,
    run: Callable[[argparse.Namespace], int] | None,
    summary: str,
    example: str,
    details: str = "",
    notes: str = "",
) -> argparse.ArgumentParser:
    """Add the parser of a command, whose parsed options contain the parser as `parser` and `run` as `run`.

    summary: what the command does, one line without a full stop, for the list of commands.
    example: a command line that runs as printed. It is printed above the options, where a newcomer looks first.
    details, notes: paragraphs below the summary, and below the options.
    """
    introduction = f"{summary[0].upper()}{summary[1:]}." + (f"\n{details}" if details else "")
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{introduction}\n\nexample: {example}",
        epilog=notes,
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


def add_model_options(
    parser: argparse.ArgumentParser,
    *,
    model: str = DEFAULT_MODEL,
    backend: str = BACKENDS[0],
    backend_help: str = BACKEND_HELP,
    threads: bool = True,
) -> None:
    """Add the options that `load` reads: --model, --compute-type, --backend, --threads and --offline.

    model, backend: the defaults of --model and --backend.
    threads: whether there is an option --threads.
    """
    group = parser.add_argument_group("model")
    group.add_argument("--model", default=model, help="name on the Hugging Face Hub, or folder (default: %(default)s)")
    group.add_argument(
        "--compute-type",
        choices=COMPUTE_TYPES,
        default=COMPUTE_TYPES[0],
        help="numbers that the dense layers of the numba backend multiply: float32; int16, faster and nearly the same; "
        "int8, the fastest (default: %(default)s)",
    )
    group.add_argument("--backend", choices=BACKENDS, default=backend, help=f"{backend_help} (default: %(default)s)")
    if threads:
        add_threads_option(group, "threads of the numba backend")
    else:
        parser.set_defaults(threads=None)
    add_offline_option(group)


def add_threads_option(group: "argparse._ArgumentGroup", what: str = "number of threads") -> None:
    """Add --threads N."""
    default = "one per CPU available to the process, or OMP_NUM_THREADS if that is fewer"
    group.add_argument("--threads", type=positive, metavar="N", help=f"{what} (default: {default})")


def add_offline_option(group: "argparse._ArgumentGroup") -> None:
    """Add --offline."""
    group.add_argument(
        "--offline", action="store_true", help="never use the network; fail if the model is not on this machine"
    )


def add_vector_options(parser: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
    """Add the options that say how texts become vectors, and return their group."""
    vectors = parser.add_argument_group("vectors")
    vectors.add_argument(
        "--prompt-name", metavar="NAME", help="the model's prompt to put before each text (default: its default prompt)"
    )
    vectors.add_argument(
        "--max-length", type=positive, metavar="N", help="truncate texts to N tokens (default: the limit of the model)"
    )
    vectors.add_argument(
        "--on-truncation",
        choices=ON_TRUNCATION,
        default="warn",
        help="if a text is longer: warn once, ignore it, or fail (default: %(default)s)",
    )
    vectors.add_argument(
        "--truncate-dim", type=positive, metavar="D", help="write only the first D numbers of each vector"
    )
    vectors.add_argument(
        "--normalize", action="store_true", help="scale the vectors to unit length, after --truncate-dim"
    )
    return vectors


def add_format_option(parser: argparse.ArgumentParser) -> None:
    """Add --format text|json."""
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="text: for people; json: for programs, with all digits (default: %(default)s)",
    )


def add_page_option(parser: argparse.ArgumentParser, contents: str) -> None:
    """Add --page FILE."""
    parser.add_argument(
        "--page", metavar="FILE", help=f"also write a self-contained HTML page to this file, {contents}"
    )


def load(options: argparse.Namespace) -> SentenceEncoder:
    """Load the model that the options of `add_model_options` name."""
    return SentenceEncoder(
        options.model,
        backend=options.backend,
        compute_type=options.compute_type,
        threads=options.threads,
        local_files_only=options.offline,
    )


def load_cross_encoder(options: argparse.Namespace, name: str, max_length: int | None = None) -> "CrossEncoder":
    """Load the cross-encoder of this name or folder with the options of `add_model_options`."""
    with no_fork:
        from minilm_np.cross_encoder import CrossEncoder

    return CrossEncoder(
        name,
        max_length=max_length,
        backend=options.backend,
        compute_type=options.compute_type,
        threads=options.threads,
        local_files_only=options.offline,
    )


def positive(text: str) -> int:
    """Read an option's value as an integer of at least 1."""
    return _whole_number(text, 1)


def count(text: str) -> int:
    """Read an option's value as an integer of at least 0."""
    return _whole_number(text, 0)


def _whole_number(text: str, least: int) -> int:
    found = re.fullmatch("0*([0-9]{1,18})", text)
    if found is None or int(found[1]) < least:
        bound = "at most 18 digits" if re.fullmatch("[0-9]{19,}", text) else f"at least {least}"
        raise argparse.ArgumentTypeError(f"expected a whole number of {bound}, found {text!r}")
    return int(found[1])
