"""Lines of a file that a command found, each with its number and its score: as a table, and as JSON."""

from collections.abc import Iterable
from typing import TypedDict

from minilm_np.cli.printing import columns, one_line, room_after, shortest_float, write_json, write_lines

TEXT_WIDTH = 80  # characters of a text in a table


class Line(TypedDict):
    """One line of the input, as it is printed."""

    line: int  # its number in the file, from 1
    score: float  # its cosine, or the score of a cross-encoder
    text: str


def scored_lines(rows: Iterable[int], scores: Iterable[float], numbers: list[int], texts: list[str]) -> list[Line]:
    """The lines of some rows of a batch, whose numbers and texts are given."""
    return [
        {"line": numbers[row], "score": shortest_float(score), "text": texts[row]}
        for row, score in zip(rows, scores, strict=True)
    ]


def best(lines: Iterable[Line], top_k: int) -> list[Line]:
    """The lines with the highest scores, highest first; of lines with equal scores the first one comes first."""
    return sorted(lines, key=lambda line: -line["score"])[:top_k]


def write_table(lines: list[Line], last: int, format_: str, title: str = "cosine") -> None:
    """Print lines, as JSON or as a table. last: the largest line number of the file. title: of the scores."""
    if format_ == "json":
        write_json(lines)
    else:
        write_lines([header(last, title), *rows(lines, last, title)])


def header(last: int, title: str = "cosine") -> str:
    """The first row of a table of lines up to number `last`."""
    return f" {title:>{_score_width(title)}}  {'line':>{_number_width(last)}}  text"


def rows(lines: list[Line], last: int, title: str = "cosine") -> list[str]:
    """The rows of a table, one per line."""
    score_width, number_width = _score_width(title) + 1, _number_width(last)
    starts = [f"{line['score']:z{score_width}.4f}  {line['line']:{number_width}d}  " for line in lines]
    return [f"{start}{shown(line['text'], start)}" for start, line in zip(starts, lines, strict=True)]


def shown(text: str, start: str) -> str:
    """A text for a row that begins with `start`."""
    return one_line(text, room_after(start, TEXT_WIDTH, columns()))


def _score_width(title: str) -> int:
    return 6 if title == "cosine" else 8  # logits have two digits before the point


def _number_width(last: int) -> int:
    return max(len("line"), len(str(last)))  # the last number of the file is the longest
