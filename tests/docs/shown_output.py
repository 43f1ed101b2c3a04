"""Compares the output that a page shows with the output of the page's code."""

import re


def agrees(comment: str, printed: str) -> bool:
    """Whether the comment behind a call of `print` is true of the output.

    A comment that looks like a value is the output, or the output, a colon and a remark; "; " separates the lines of
    longer output. Any other comment is a remark, and the output must hold every number that the remark names.
    """
    comment, lines = _squeezed(comment), [_squeezed(line) for line in printed.splitlines()]
    for output in ("; ".join(lines), " ".join(lines)):
        if comment == output or comment.startswith(f"{output}: "):
            return True
    if re.match(r"[\[({'\"]|(True|False|None)\b", comment):
        return False
    return all(re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", " ".join(lines)) for number in _numbers(comment))


def matches(expected: str, printed: str) -> bool:
    """Whether a command's output is as a page shows it; "..." on the page stands for anything, whole lines too."""
    wanted, found = ("\n".join(filter(None, map(_squeezed, text.splitlines()))) for text in (expected, printed))
    return re.fullmatch(re.escape(wanted).replace(r"\.\.\.", ".*?"), found, re.DOTALL) is not None


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _numbers(text: str) -> list[str]:
    return re.findall(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", text)
