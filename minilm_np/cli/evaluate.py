"""`minilm-np eval`: evaluate a model on scored pairs of sentences, or on retrieval."""

import argparse
import functools
import json
from typing import TYPE_CHECKING

from minilm_np import evaluation
from minilm_np.cli.encoding import TextEncoding
from minilm_np.cli.options import add_command, add_format_option, add_model_options, load, positive
from minilm_np.engine.protocol import Vectors
from minilm_np.model_files.settings import DOCUMENT_PROMPTS, QUERY_PROMPTS
from minilm_np.sentence_encoder import SentenceEncoder

if TYPE_CHECKING:
    from minilm_np.cli.options import Commands

# Each example creates the file that it reads.
STS_EXAMPLE = (
    r'printf "score\tsentence1\tsentence2\n5\tA cat\tA kitten\n3\tA cat\tA dog\n0\tA cat\tA train\n" > scored.tsv'
    " && minilm-np eval sts scored.tsv"
)
RETRIEVAL_EXAMPLE = (
    r'printf "list the files of a folder\tls\nwhat day is it\tdate\nshow a file\tcat FILE\n" > pairs.tsv'
    " && minilm-np eval retrieval pairs.tsv"
)


def add(commands: "Commands") -> None:
    """Add the command `eval`."""
    parser = add_command(commands, "eval", None, "measure how good a model is", "minilm-np eval sts --help")
    tasks = parser.add_subparsers(required=True, metavar="TASK")

    sts = add_command(tasks, "sts", _sts, "correlate cosines with human scores of similarity", STS_EXAMPLE)
    sts.add_argument(
        "file",
        metavar="FILE",
        help="scored pairs of sentences, plain or .gz: a table, separated by tabs or commas, whose header names the "
        "columns score, sentence1 and sentence2; or the STS benchmark as it is distributed",
    )

    retrieval = add_command(
        tasks,
        "retrieval",
        _retrieval,
        "rank all documents for each query, and measure where the relevant one ranks",
        RETRIEVAL_EXAMPLE,
    )
    retrieval.add_argument(
        "file",
        metavar="FILE",
        help="one query and its document per line: a .tsv, or a .jsonl of [query, document], plain or .gz; all "
        "documents of the file are candidates",
    )
    retrieval.add_argument(
        "--k",
        type=positive,
        default=10,
        metavar="N",
        help="measure in the top N documents (default: %(default)s)",
    )
    retrieval.add_argument(
        "--merge-queries",
        action="store_true",
        help="treat lines with the same query as one query with several documents (default: each line is one query "
        "with one document)",
    )
    for task in (sts, retrieval):
        add_model_options(task)
        add_format_option(task)


class _Model:
    """The model that the options name. It is loaded at the first call, so an error in a file is reported before."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options

    @functools.cached_property
    def _encoder(self) -> SentenceEncoder:
        return load(self._options)

    @functools.cached_property
    def _encoding(self) -> TextEncoding:
        return TextEncoding(self._encoder)

    def encode(self, texts: list[str]) -> Vectors:
        return self._vectors(texts, None)

    def encode_query(self, texts: list[str]) -> Vectors:
        return self._vectors(texts, self._encoder.settings.first_prompt(QUERY_PROMPTS))

    def encode_document(self, texts: list[str]) -> Vectors:
        return self._vectors(texts, self._encoder.settings.first_prompt(DOCUMENT_PROMPTS))

    def warn_if_truncated(self) -> None:
        self._encoding.warn_if_truncated()

    def _vectors(self, texts: list[str], prompt_name: str | None) -> Vectors:
        return self._encoding.vectors(texts, _beginning, prompt_name=prompt_name)


def _beginning(_: int, text: str) -> str:
    return f"which begins with {text[:40]!r}"


def _sts(options: argparse.Namespace) -> int:
    model = _Model(options)
    found = evaluation.sts(model, options.file)
    model.warn_if_truncated()
    return _print(found, options.format)


def _retrieval(options: argparse.Namespace) -> int:
    model = _Model(options)
    found = evaluation.retrieval(model, options.file, k=options.k, merge_queries=options.merge_queries)
    model.warn_if_truncated()
    return _print(found, options.format)


def _print(measures: dict[str, float], form: str) -> int:
    if form == "json":  # JSON has no NaN
        print(json.dumps({name: None if value != value else value for name, value in measures.items()}, indent=2))
        return 0
    for name, value in measures.items():
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if value == value else "undefined"
        print(f"{name:<12}{shown:>10}")
    return 0
