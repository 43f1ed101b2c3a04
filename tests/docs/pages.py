"""Reads the project's Markdown pages: their blocks of code, links, images and headings."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Block(NamedTuple):
    """A block of code of a page."""

    language: str  # "python", "sh", "text", ...; "indented" for a block that four spaces set off
    line: int  # of the page, from 1, where the block's first line of code stands
    code: str
    not_run: str  # the reason of a comment `<!-- not run: reason -->` above the block; "" without one


_FENCE = re.compile(r"^(?P<indent> {0,3})(?P<marks>`{3,}|~{3,})\s*(?P<language>[\w-]*)")
_NOT_RUN = re.compile(r"^\s*<!-- not run: (.+?) -->\s*$")
_LIST_ITEM = re.compile(r"^ {0,3}([-*+]|\d+[.)])\s")
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_HTML_LINK = re.compile(r"<(?:img|a)\b[^>]*?\b(?:src|href)=\"([^\"]+)\"")


def all_pages() -> list[Path]:
    """Every Markdown file that belongs to the project."""
    hidden = {".github", ".ci"}
    pages = []
    for folder in sorted(ROOT.iterdir()):
        if folder.suffix == ".md":
            pages.append(folder)
        elif folder.is_dir() and (folder.name in hidden or not folder.name.startswith(".")):
            pages += sorted(folder.rglob("*.md"))
    return pages


def manual_pages() -> list[Path]:
    """The pages whose code is run: the README and the manual."""
    return [ROOT / "README.md", *sorted((ROOT / "minilm_np" / "docs").glob("*.md"))]


def blocks(text: str) -> Iterator[Block]:
    """Yield each fenced or indented block of code, in order."""
    lines = text.split("\n")
    number, reason, in_list, after_blank = 0, "", False, True
    while number < len(lines):
        line = lines[number]
        if fence := _FENCE.match(line):
            start = number = number + 1
            while number < len(lines) and not lines[number].strip().startswith(fence["marks"]):
                number += 1
            if number == len(lines):
                raise ValueError(f"line {start}: this block of code has no end")
            code = "\n".join(one.removeprefix(fence["indent"]) for one in lines[start:number])
            yield Block(fence["language"], start + 1, code + "\n", reason)
            number, reason, after_blank = number + 1, "", False
        elif line.startswith("    ") and after_blank and not in_list and line.strip():
            start = number
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number].strip()):
                number += 1
            yield Block(
                "indented", start + 1, "\n".join(one[4:] for one in lines[start:number]).rstrip() + "\n", reason
            )
            reason, after_blank = "", True
        else:
            if comment := _NOT_RUN.match(line):
                reason = comment[1]
            elif line.strip():
                reason = ""
                in_list = bool(_LIST_ITEM.match(line)) or (in_list and line.startswith(" "))
            after_blank = not line.strip() or bool(comment)
            number += 1


def links(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the target of each link and image."""
    prose = _without_code_blocks(text)
    for pattern in (_LINK, _HTML_LINK):
        for match in pattern.finditer(prose):
            yield prose.count("\n", 0, match.start()) + 1, match[1]


def _without_code_blocks(text: str) -> str:
    lines = text.split("\n")
    for block in blocks(text):
        for number in range(block.line - 1, block.line - 1 + block.code.count("\n")):
            lines[number] = ""
    # code in a line may stand inside a link's text, so only code that itself looks like a link is blanked out
    return re.sub(r"`[^`\n]*\]\([^`\n]*`", "", "\n".join(lines))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: dict[str, int] = {}
    names = set(re.findall(r"<a\b[^>]*?\b(?:id|name)=\"([^\"]+)\"", text))
    for line in _without_code_blocks(text).split("\n"):
        if heading := re.match(r"^#{1,6}\s+(.*?)\s*#*$", line):
            words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
            slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            repeats = found.get(slug, 0)
            found[slug] = repeats + 1
            names.add(f"{slug}-{repeats}" if repeats else slug)
    return names
