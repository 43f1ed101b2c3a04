"""Compares the output that a page shows with the output of the page's code."""

import re


def agrees(comment: str, printed: str) -> bool:
    """Whether the comment behind a call of `print` is true of the output.

    The comment is the output, or the output, a colon and a remark. "; " separates the lines of longer output, and "..."
    stands for anything. A comment of several words may also tell the output in its own words; then it names at least
    one number, and every number that it names is in the output.
    """
    comment, lines = _squeezed(comment), [_squeezed(line) for line in printed.splitlines()]
    for output in ("; ".join(lines), " ".join(lines)):
        if matches(comment, output) or comment.startswith(f"{output}: "):
            return True
    if " " not in comment or re.match(r"[\[({'\"]|(True|False|None)\b", comment):
        return False
    numbers = re.findall(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", comment)
    return bool(numbers) and all(
        re.search(rf"(?<![\d.]){re.escape(number.rstrip(','))}(?!\d)", " ".join(lines)) for number in numbers
    )


def matches(expected: str, printed: str) -> bool:
    """Whether a command's output is as a page shows it; "..." on the page stands for anything, whole lines too."""
    wanted, found = ("\n".join(filter(None, map(_squeezed, text.splitlines()))) for text in (expected, printed))
    return re.fullmatch(re.escape(wanted).replace(r"\.\.\.", ".*?"), found, re.DOTALL) is not None


def _squeezed(text: str) -> str:
    return " ".join(text.split())
