"""`minilm-np similarity`, `search` and `cluster`: compare texts, search the lines of a file, group similar lines."""

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from minilm_np.cli.files import decoded, read_lines, without_text
from minilm_np.cli.options import add_command, add_format_option, add_model_options, encode, load, positive
from minilm_np.cli.printing import one_line, shortest_float, write_json, write_lines
from minilm_np.vectors.mining import community_detection, semantic_search
from minilm_np.vectors.similarity import cos_sim

if TYPE_CHECKING:
    from minilm_np.cli.options import Commands

TEXT_WIDTH = 80  # characters of a text in a table
INPUT_HELP = "one text per line (UTF-8); - is standard input; blank lines are skipped"


class Line(TypedDict):
    """One line of the input, as it is printed."""

    line: int  # its number in the file, from 1
    score: float  # its cosine
    text: str


def add(commands: "Commands") -> None:
    """Add `similarity`, `search` and `cluster` to the commands."""
    similarity = add_command(
        commands,
        "similarity",
        _similarity,
        "print the cosine of every pair of texts",
        'minilm-np similarity "It is sunny." "The weather is fine." "He drove home."',
        details="Print a table with one row and one column per text. Unrelated texts have a cosine near 0.",
    )
    similarity.add_argument("texts", nargs="+", metavar="TEXT", help="two or more texts")

    search = add_command(
        commands,
        "search",
        _search,
        "find the lines of a file that are most similar to a text",
        "printf 'The cat sleeps.\\nShares fell today.\\n' | minilm-np search \"a pet at rest\" --corpus -",
        details="Print one row per line found, the most similar one first: its cosine with the query, its line\n"
        "number, and its text.",
    )
    search.add_argument("query", metavar="QUERY", help="the text to search for")
    search.add_argument("--corpus", required=True, metavar="FILE", help=INPUT_HELP)
    search.add_argument(
        "--top-k", type=positive, default=5, metavar="K", help="number of lines to print (default: %(default)s)"
    )

    cluster = add_command(
        commands,
        "cluster",
        _cluster,
        "find groups of similar lines in a file",
        "printf 'Where is my parcel?\\nReset my password\\nI forgot my password\\n' |\n"
        "         minilm-np cluster --input - --threshold 0.6",
        details="Print the groups, the largest one first. The first line of a group is its centre; the others follow\n"
        "by their cosine with the centre. A line belongs to at most one group.",
    )
    cluster.add_argument("--input", required=True, metavar="FILE", help=INPUT_HELP)
    cluster.add_argument(
        "--threshold",
        type=_cosine,
        default=0.75,
        metavar="C",
        help="smallest cosine of a line with the centre of its group, from -1 to 1 (default: %(default)s)",
    )
    cluster.add_argument(
        "--min-size",
        type=positive,
        default=2,
        metavar="N",
        help="smallest number of lines in a group (default: %(default)s)",
    )
    for parser in (similarity, search, cluster):
        add_format_option(parser)
        add_model_options(parser)


def _similarity(options: argparse.Namespace) -> int:
    texts = decoded(options.texts)
    if len(texts) < 2:
        options.parser.error("expected two texts or more, found 1")
    vectors = encode(load(options), texts, lambda row: f"text {row + 1}")
    scores = cos_sim(vectors, vectors)
    if options.format == "json":
        write_json({"texts": texts, "similarity": [[shortest_float(score) for score in row] for row in scores]})
        return 0
    width = len(str(len(texts)))
    table = [" ".join([" " * width, *(f"{number:7d}" for number in range(1, len(texts) + 1))])]
    for number, (text, row) in enumerate(zip(texts, scores, strict=True), 1):
        shown = one_line(text, TEXT_WIDTH)
        table.append(" ".join([f"{number:{width}d}", *(f"{score:z7.4f}" for score in row), "", shown]))
    write_lines(table)
    return 0


def _search(options: argparse.Namespace) -> int:
    (query,) = decoded([options.query])
    numbers, texts = _read_texts(options.corpus)
    vectors = encode(load(options), [query, *texts], lambda row: f"line {numbers[row - 1]}" if row else "the query")
    (hits,) = semantic_search(vectors[:1], vectors[1:], top_k=options.top_k)
    found = _lines([hit["corpus_id"] for hit in hits], [hit["score"] for hit in hits], numbers, texts)
    if options.format == "json":
        write_json(found)
    else:
        write_lines([_header(numbers), *_rows(found, numbers)])
    return 0


def _cluster(options: argparse.Namespace) -> int:
    numbers, texts = _read_texts(options.input)
    vectors = encode(load(options), texts, lambda row: f"line {numbers[row]}")
    communities = community_detection(vectors, options.threshold, options.min_size)
    clusters = [_lines(rows, cos_sim(vectors[rows[0]], vectors[rows])[0], numbers, texts) for rows in communities]
    if options.format == "json":
        write_json(clusters)
        return 0
    if clusters:
        write_lines([_header(numbers)])
    for number, cluster in enumerate(clusters, 1):
        lines = "1 line" if len(cluster) == 1 else f"{len(cluster)} lines"
        write_lines([f"group {number}: {lines}", *_rows(cluster, numbers)])
    left = len(texts) - sum(map(len, clusters))
    print(f"minilm-np: groups: {len(clusters)}; lines in no group: {left} of {len(texts)}", file=sys.stderr)
    return 0


def _read_texts(path: str) -> tuple[list[int], list[str]]:
    """The lines of a file that are not blank: their numbers, from 1, and their texts."""
    lines = [(number, line) for number, line in enumerate(read_lines(path), 1) if line.strip()]
    if not lines:
        raise without_text(path)
    return [number for number, _ in lines], [line for _, line in lines]


def _lines(rows: Iterable[int], scores: Iterable[float], numbers: list[int], texts: list[str]) -> list[Line]:
    return [
        {"line": numbers[row], "score": shortest_float(score), "text": texts[row]}
        for row, score in zip(rows, scores, strict=True)
    ]


def _header(numbers: list[int]) -> str:
    return f" cosine  {'line':>{_width(numbers)}}  text"


def _rows(lines: list[Line], numbers: list[int]) -> list[str]:
    width = _width(numbers)
    return [f"{line['score']:z7.4f}  {line['line']:{width}d}  {one_line(line['text'], TEXT_WIDTH)}" for line in lines]


def _width(numbers: list[int]) -> int:
    """Characters of the column of line numbers; the last number of the file is the longest."""
    return max(len("line"), len(str(numbers[-1])))


def _cosine(text: str) -> float:
    """Read an option's value as a number from -1 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = np.nan
    if not -1 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from -1 to 1, found {text!r}")
    return number
