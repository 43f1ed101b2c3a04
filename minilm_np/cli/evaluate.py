"""`minilm-np eval`: how good a model is, by a file of scored pairs or by search."""

import argparse
import json
from typing import Any

from minilm_np import evaluation
from minilm_np.cli.options import add_command, add_model_options, encode, load, positive
from minilm_np.sentence_encoder import SentenceEncoder

# Each makes the file that it reads.
STS_EXAMPLE = (
    r'printf "score\tsentence1\tsentence2\n5\tA cat\tA kitten\n3\tA cat\tA dog\n0\tA cat\tA train\n" > scored.tsv'
    " && minilm-np eval sts scored.tsv"
)
RETRIEVAL_EXAMPLE = (
    r'printf "list the files of a folder\tls\nwhat day is it\tdate\nshow a file\tcat FILE\n" > pairs.tsv'
    " && minilm-np eval retrieval pairs.tsv"
)


def add(commands: Any) -> None:
    parser = add_command(commands, "eval", None, "say how good a model is", "minilm-np eval sts --help")
    tasks = parser.add_subparsers(required=True, metavar="TASK")

    sts = add_command(tasks, "sts", _sts, "compare cosines with people's scores of similarity", STS_EXAMPLE)
    sts.add_argument(
        "file",
        metavar="FILE",
        help="a header with score, sentence1 and sentence2 among its columns, between tabs or as CSV; or the STS "
        "benchmark as distributed; .gz or not",
    )

    retrieval = add_command(
        tasks, "retrieval", _retrieval, "look for the document of each query among all documents", RETRIEVAL_EXAMPLE
    )
    retrieval.add_argument(
        "file", metavar="FILE", help="a query and its document a line: .tsv, .jsonl ([query, document]), .gz or not"
    )
    retrieval.add_argument(
        "--k", type=positive, default=10, metavar="N", help="look at the first N documents (default: %(default)s)"
    )
    retrieval.add_argument(
        "--merge-queries",
        action="store_true",
        help="lines with the same query are one query, with several documents to find (default: each line is judged "
        "by its own document alone)",
    )
    for task in (sts, retrieval):
        add_model_options(task)
        task.add_argument("--format", choices=("text", "json"), default="text", help="(default: %(default)s)")


class _Model:
    """The model that the options name, loaded when the first text is encoded: a broken file is refused before that."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._encoder: SentenceEncoder | None = None

    def encode(self, texts: list[str]) -> Any:
        if self._encoder is None:
            self._encoder = load(self._options)
        return encode(self._encoder, texts, lambda row: f"which begins {texts[row][:40]!r}")


def _sts(options: argparse.Namespace) -> int:
    return _print(evaluation.sts(_Model(options), options.file), options.format)


def _retrieval(options: argparse.Namespace) -> int:
    found = evaluation.retrieval(_Model(options), options.file, k=options.k, merge_queries=options.merge_queries)
    return _print(found, options.format)


def _print(measures: dict[str, float], form: str) -> int:
    if form == "json":  # which has no NaN
        print(json.dumps({name: None if value != value else value for name, value in measures.items()}, indent=2))
        return 0
    for name, value in measures.items():
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if value == value else "undefined"
        print(f"{name:<12}{shown:>10}")
    return 0
