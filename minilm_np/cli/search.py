"""`minilm-np similarity`, `search` and `cluster`: compare texts, search the lines of a file, group similar lines."""

import argparse
import sys
from typing import TYPE_CHECKING

import numpy as np

from minilm_np.cli.encoding import TextEncoding
from minilm_np.cli.files import decoded, open_lines, read_lines
from minilm_np.cli.line_table import Line, best, header, rows, scored_lines, shown, write_table
from minilm_np.cli.options import add_command, add_format_option, add_model_options, load, positive
from minilm_np.cli.printing import shortest_float, write_json, write_lines
from minilm_np.cli.rerank import TITLE, best_lines, load_reranker
from minilm_np.model_files.settings import DOCUMENT_PROMPTS, QUERY_PROMPTS
from minilm_np.vectors.mining import community_detection, semantic_search
from minilm_np.vectors.similarity import cos_sim

if TYPE_CHECKING:
    from minilm_np.cli.options import Commands

CANDIDATES = 50  # lines that --rerank reads, by default
INPUT_HELP = "one text per line (UTF-8); - is standard input; blank lines are skipped"


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
        "number, and its text. With --rerank, a cross-encoder puts the most similar lines in order.",
    )
    search.add_argument("query", metavar="QUERY", help="the text to search for")
    search.add_argument("--corpus", required=True, metavar="FILE", help=INPUT_HELP)
    search.add_argument(
        "--top-k", type=positive, default=5, metavar="K", help="number of lines to print (default: %(default)s)"
    )
    search.add_argument(
        "--rerank", metavar="MODEL", help="name or folder of a cross-encoder, which reads the query and each candidate"
    )
    search.add_argument(
        "--candidates",
        type=positive,
        metavar="N",
        help=f"with --rerank: number of most similar lines that are reranked, at least K (default: {CANDIDATES})",
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
    encoding = TextEncoding(load(options))
    vectors = encoding.vectors(texts, lambda number, _: f"text {number}")
    encoding.warn_if_truncated()
    scores = cos_sim(vectors, vectors)
    if options.format == "json":
        write_json({"texts": texts, "similarity": [[shortest_float(score) for score in row] for row in scores]})
        return 0
    width = len(str(len(texts)))
    table = [" ".join([" " * width, *(f"{number:7d}" for number in range(1, len(texts) + 1))])]
    for number, (text, row) in enumerate(zip(texts, scores, strict=True), 1):
        start = " ".join([f"{number:{width}d}", *(f"{score:z7.4f}" for score in row), "", ""])
        table.append(f"{start}{shown(text, start)}")
    write_lines(table)
    return 0


def _search(options: argparse.Namespace) -> int:
    if options.candidates and not options.rerank:
        options.parser.error("--candidates needs --rerank MODEL")
    (query,) = decoded([options.query])
    with open_lines(options.corpus, skip_blank=True) as lines:
        encoder = load(options)
        reranker = load_reranker(options, options.rerank) if options.rerank else None
        top_k = max(options.top_k, options.candidates or CANDIDATES) if reranker else options.top_k
        settings, encoding = encoder.settings, TextEncoding(encoder)
        vector = encoding.vectors([query], lambda *_: "the query", prompt_name=settings.first_prompt(QUERY_PROMPTS))
        found: list[Line] = []
        last = 0
        prompt_name = settings.first_prompt(DOCUMENT_PROMPTS)
        for batch in encoding.batches(lines.numbered, _line, prompt_name=prompt_name, total=lines.total):
            last = batch.numbers[-1]
            (hits,) = semantic_search(vector, batch.vectors, top_k=top_k)
            of_batch, scores = [hit["corpus_id"] for hit in hits], [hit["score"] for hit in hits]
            found = best([*found, *scored_lines(of_batch, scores, batch.numbers, batch.texts)], top_k)
    encoding.warn_if_truncated()
    if reranker is None:
        write_table(found, last, options.format)
    else:
        candidates = [(line["line"], line["text"]) for line in found]
        found, _ = best_lines(reranker, query, candidates, len(candidates), options.top_k)
        write_table(found, last, options.format, TITLE)
    return 0


def _cluster(options: argparse.Namespace) -> int:
    numbers, texts = read_lines(options.input, skip_blank=True)
    encoding = TextEncoding(load(options))
    vectors = encoding.vectors(texts, lambda number, text: _line(numbers[number - 1], text))
    encoding.warn_if_truncated()
    communities = community_detection(vectors, options.threshold, options.min_size)
    clusters = [
        scored_lines(members, cos_sim(vectors[members[0]], vectors[members])[0], numbers, texts)
        for members in communities
    ]
    if options.format == "json":
        write_json(clusters)
        return 0
    last = numbers[-1]
    if clusters:
        write_lines([header(last)])
    for number, cluster in enumerate(clusters, 1):
        lines = "1 line" if len(cluster) == 1 else f"{len(cluster)} lines"
        write_lines([f"group {number}: {lines}", *rows(cluster, last)])
    left = len(texts) - sum(map(len, clusters))
    print(f"minilm-np: groups: {len(clusters)}; lines in no group: {left} of {len(texts)}", file=sys.stderr)
    return 0


def _line(number: int, _: str) -> str:
    return f"line {number}"


def _cosine(text: str) -> float:
    """Read an option's value as a number from -1 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = np.nan
    if not -1 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from -1 to 1, found {text!r}")
    return number
