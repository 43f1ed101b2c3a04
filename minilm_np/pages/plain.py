"""A self-contained HTML page without any script: the shell, and how it is written to a file.

The Content-Security-Policy allows nothing but the one stylesheet, by its hash. So even a mistake in escaping could
neither run code nor fetch anything.
"""

import base64
import hashlib
import html
import os
from collections.abc import Sequence
from importlib import resources

from minilm_np._checks import printable
from minilm_np._files import atomic_file, reason
from minilm_np.errors import SaveError


def document(title: str, introduction: str, sections: Sequence[tuple[str, str]]) -> str:
    """Return a page.

    title: plain text. introduction: HTML below it. sections: (plain title, HTML).
    """
    folder = resources.files("minilm_np.pages")
    style = "\n".join((folder / name).read_text(encoding="utf-8") for name in ("plain.css", "marks.css"))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    shown = html.escape(printable(title))
    contents = "".join(
        f'<li><a href="#part-{number}">{html.escape(name)}</a></li>' for number, (name, _) in enumerate(sections, 1)
    )
    body = "".join(
        f'<section aria-labelledby="part-{number}"><h2 id="part-{number}" tabindex="-1">{html.escape(name)}</h2>'
        f"{content}</section>"
        for number, (name, content) in enumerate(sections, 1)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{shown}</title><style>{style}</style></head>'
        f"<body><header><h1>{shown}</h1>{introduction}"
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav></header><main>{body}</main></body></html>\n'
    )


def write(path: str | os.PathLike[str], page: str) -> None:
    """Write a page atomically, as UTF-8. Raises SaveError."""
    try:
        with atomic_file(path) as file:
            file.write(page.encode())
    except OSError as error:
        raise SaveError(f"{os.fspath(path)} cannot be written: {reason(error)}") from error
