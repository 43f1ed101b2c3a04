"""The document of a page: the template, its styles and scripts, the data, and a Content-Security-Policy.

The policy forbids everything (`default-src 'none'`) except the one style sheet and the one script of the page, which it
names by their SHA-256. The file therefore makes no request, and markup in a text could run nothing even if it were
not escaped.

The scripts are ES modules in `js/`. A page that is opened from disk may not import others, so they are joined here:
each becomes a function that returns its exports. In the order of MODULES, a module comes after those that it imports.
"""

import base64
import functools
import hashlib
import html
import json
import os
import re
import string
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from minilm_np._files import atomic_file
from minilm_np.errors import SaveError
from minilm_np.pages.arrays import Embedded
from minilm_np.pages.components import Html, Json, element

FOLDER = Path(__file__).parent
MODULES = (
    "dom", "theme", "arrays", "colours", "state", "table", "heat_map", "line_chart", "bars", "tokens", "attention",
    "step", "main",
)  # fmt: skip
LARGE = 10_000_000  # bytes; `write` warns before it writes a larger page


class Section(NamedTuple):
    """A part of a page: its id for links, its heading, an introduction in one or two sentences, and its views."""

    id: str
    heading: str
    introduction: str
    views: Sequence[str]


def document(
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    *,
    arrays: Mapping[str, Embedded],
    values: Mapping[str, Json],
    footer: str = "",
) -> str:
    """Return a complete HTML page.

    arrays: by the names that the views use. values: JSON for the views: "axes", a list of labels for each axis;
    "choices", the possible values of each choice, such as the layers. footer: how the numbers were computed.
    """
    navigation = [element("a", section.heading, href=f"#{section.id}") for section in sections]
    body = [
        element(
            "section",
            element("h2", section.heading, id=f"{section.id}-heading"),
            element("p", section.introduction, class_="introduction"),
            *section.views,
            id=section.id,
            aria_labelledby=f"{section.id}-heading",
        )
        for section in sections
    ]
    facts = {name: array.facts() for name, array in arrays.items()}
    style, script = _style(), _script()
    return string.Template(_read("page.html")).substitute(
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; "
        "form-action 'none'",
        title=html.escape(title),
        subtitle=html.escape(subtitle),
        navigation="".join(navigation),
        body="\n".join(body),
        footer=html.escape(footer),
        values=_json({**values, "arrays": facts}),
        data="\n".join(
            Html(f'<script type="text/plain" data-array="{html.escape(name)}">{array.data}</script>')
            for name, array in arrays.items()
        ),
        style=style,
        script=script,
    )


def write(path: str | os.PathLike[str], page: str) -> None:
    """Write a page atomically. Warns before it writes more than 10 MB. Raises SaveError."""
    content = page.encode()
    if len(content) > LARGE:
        warnings.warn(
            f"{os.fspath(path)}: this page has {len(content) / 1e6:.0f} MB: a shorter text gives a smaller page",
            stacklevel=3,
        )
    try:
        with atomic_file(path) as file:
            file.write(content)
    except OSError as error:
        raise SaveError(f"{os.fspath(path)}: the page cannot be written: {error.strerror or error}") from error


def _json(value: Json) -> str:
    """JSON in ASCII that cannot end the script element it stands in."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _hash(content: str) -> str:
    """The source expression of an inline style sheet or script in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


@functools.cache
def _style() -> str:
    return _read("page.css") + _read("marks.css")


@functools.cache
def _script() -> str:
    return '"use strict";\n{\n' + "\n".join(_as_function(name, _read(f"js/{name}.js")) for name in MODULES) + "}\n"


def _as_function(name: str, source: str) -> str:
    """An ES module as a constant `module_NAME`, an object of its exports. Imports are one line each."""
    exports = re.findall(r"^export (?:async )?(?:function|const) (\w+)", source, re.MULTILINE)
    body = re.sub(r'^import (\{.*\}) from "\./(\w+)\.js";', r"const \1 = module_\2;", source, flags=re.MULTILINE)
    body = re.sub(r"^export ", "", body, flags=re.MULTILINE)
    return f"const module_{name} = (() => {{\n{body}return {{ {', '.join(exports)} }};\n}})();\n"
