"""`minilm-np similarity`, `search` and `cluster`: how alike texts are, which lines are like a text, or each other."""

import argparse
import json
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from minilm_np.cli.files import decoded, read_lines, without_text
from minilm_np.cli.options import add_command, add_model_options, encode, load, positive
from minilm_np.vectors.mining import community_detection, semantic_search
from minilm_np.vectors.similarity import cos_sim

Line = dict[str, Any]  # line (from 1), score, text

INPUT_HELP = "a text a line (UTF-8), - for standard input; blank lines are passed over"


def add(commands: Any) -> None:
    similarity = add_command(
        commands,
        "similarity",
        _similarity,
        "print the cosines of texts with each other",
        'minilm-np similarity "It is sunny." "The weather is fine." "He drove home."',
    )
    similarity.add_argument("texts", nargs="+", metavar="TEXT", help="two texts or more")

    search = add_command(
        commands,
        "search",
        _search,
        "find the lines of a file that are most like a text",
        "printf 'The cat sleeps.\\nShares fell today.\\n' | minilm-np search \"a pet at rest\" --corpus -",
    )
    search.add_argument("query", metavar="QUERY", help="the text to search for")
    search.add_argument("--corpus", required=True, metavar="FILE", help=INPUT_HELP)
    search.add_argument("--top-k", type=positive, default=5, metavar="K", help="lines to print (default: %(default)s)")

    cluster = add_command(
        commands,
        "cluster",
        _cluster,
        "find groups of lines that are alike",
        "printf 'Where is my parcel?\\nReset my password\\nI forgot my password\\n' |\n"
        "         minilm-np cluster --input - --threshold 0.6",
    )
    cluster.add_argument("--input", required=True, metavar="FILE", help=INPUT_HELP)
    cluster.add_argument(
        "--threshold",
        type=_cosine,
        default=0.75,
        metavar="C",
        help="the least cosine of a line with the central line of its group, which is printed first "
        "(default: %(default)s)",
    )
    cluster.add_argument(
        "--min-size", type=positive, default=2, metavar="N", help="the fewest lines of a group (default: %(default)s)"
    )
    for parser in (similarity, search, cluster):
        parser.add_argument("--format", choices=("text", "json"), default="text", help="(default: %(default)s)")
        add_model_options(parser)


def _similarity(options: argparse.Namespace) -> int:
    texts = decoded(options.texts)
    if len(texts) < 2:
        options.parser.error("expected two texts or more")
    vectors = encode(load(options), texts, lambda row: f"text {row + 1}")
    scores = cos_sim(vectors, vectors)
    if options.format == "json":
        _write_json({"texts": texts, "similarity": [[_number(score) for score in row] for row in scores]})
        return 0
    width = len(str(len(texts)))
    table = [" ".join([" " * width, *(f"{number:7d}" for number in range(1, len(texts) + 1))])]
    for number, (text, row) in enumerate(zip(texts, scores, strict=True), 1):
        table.append(" ".join([f"{number:{width}d}", *(f"{score:z7.4f}" for score in row), "", _shown(text)]))
    _write(table)
    return 0


def _search(options: argparse.Namespace) -> int:
    (query,) = decoded([options.query])
    numbers, texts = _read_texts(options.corpus)
    vectors = encode(load(options), [query, *texts], lambda row: f"line {numbers[row - 1]}" if row else "the query")
    (hits,) = semantic_search(vectors[:1], vectors[1:], top_k=options.top_k)
    found = _lines([int(hit["corpus_id"]) for hit in hits], [hit["score"] for hit in hits], numbers, texts)
    if options.format == "json":
        _write_json(found)
    else:
        _write(_table(found, numbers))
    return 0


def _cluster(options: argparse.Namespace) -> int:
    numbers, texts = _read_texts(options.input)
    vectors = encode(load(options), texts, lambda row: f"line {numbers[row]}")
    communities = community_detection(vectors, options.threshold, options.min_size)
    clusters = [_lines(rows, cos_sim(vectors[rows[0]], vectors[rows])[0], numbers, texts) for rows in communities]
    if options.format == "json":
        _write_json(clusters)
        return 0
    for number, cluster in enumerate(clusters, 1):
        _write([f"group {number}: {len(cluster)} lines", *_table(cluster, numbers)])
    left = len(texts) - sum(map(len, clusters))
    print(f"minilm-np: groups: {len(clusters)}; lines in none of them: {left} of {len(texts)}", file=sys.stderr)
    return 0


def _read_texts(path: str) -> tuple[list[int], list[str]]:
    """The lines of a file that are not blank: their numbers, from 1, and the lines."""
    lines = [(number, line) for number, line in enumerate(read_lines(path), 1) if line.strip()]
    if not lines:
        raise without_text(path)
    return [number for number, _ in lines], [line for _, line in lines]


def _lines(rows: Iterable[int], scores: Iterable[Any], numbers: list[int], texts: list[str]) -> list[Line]:
    return [
        {"line": numbers[row], "score": _number(score), "text": texts[row]}
        for row, score in zip(rows, scores, strict=True)
    ]


def _table(lines: list[Line], numbers: list[int]) -> list[str]:
    """Score, line number and text; the numbers as wide as the highest of the file's."""
    width = len(str(numbers[-1]))
    return [f"{line['score']:z7.4f}  {line['line']:{width}d}  {_shown(line['text'])}" for line in lines]


def _number(score: Any) -> float:
    """A float32 as the float with the fewest digits that reads back as the same bits."""
    return float(str(np.float32(score)))


def _shown(text: str) -> str:
    """A text in a table: one line of at most 80 characters, that can do nothing to a terminal."""
    text = text.strip()
    shown = "".join(character if character.isprintable() else " " for character in text[:81])
    return shown if len(text) <= 80 else shown[:77] + "..."


def _write(lines: Iterable[str]) -> None:
    sys.stdout.buffer.write("".join(f"{line}\n" for line in lines).encode())  # UTF-8, whatever the locale says


def _write_json(result: Any) -> None:
    _write([json.dumps(result, ensure_ascii=False)])


def _cosine(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = np.nan
    if not -1 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from -1 to 1, found {text!r}")
    return number
