"""Self-contained HTML pages of arrays: one file, no request, opens from disk.

How to write a page:

    from minilm_np import pages

    html = pages.document(
        "Two heat maps",
        "A sentence below the title.",
        [
            pages.Section("scores", "Scores", "What one sees here.", [
                pages.heat_map("scores", title="Scores", rows="tokens", columns="tokens", scale="diverging"),
            ]),
        ],
        arrays={"scores": pages.exact(scores)},               # or pages.rounded(...): 6 bits, for large heat maps
        values={"axes": {"tokens": ["[CLS]", "a", "[SEP]"]}},   # JSON; "axes" names the labels of rows and columns
    )
    pages.write("page.html", html)

- `html_document.py`: the document, its Content-Security-Policy, and writing it
- `arrays.py`: arrays as text: exact, or rounded for display
- `components.py`: the views: heat map, line chart, bars, tokens, facts, and others
- `marks.py`, `marks.css`: charts on logarithmic scales, drawn without a script
- `page.html`, `page.css`, `js/`: what the browser reads; `js/main.js` lists the views

Views with the same axis share its selection: a token selected in one view is selected in all. Every view has a table
of the numbers that are on the page, works by keyboard, and follows the light or dark theme.

Texts, tokens and file names of strangers are safe everywhere: Python escapes them, and the scripts only set
`textContent`. The only exception is the type `Html`, which is markup.
"""

from minilm_np.pages.arrays import Embedded, exact, fractions, rounded
from minilm_np.pages.components import (
    Html,
    bars,
    component,
    element,
    facts,
    heat_map,
    line_chart,
    paragraph,
    table,
    token,
)
from minilm_np.pages.html_document import Section, document, write

__all__ = [
    "Embedded",
    "Html",
    "Section",
    "bars",
    "component",
    "document",
    "element",
    "exact",
    "facts",
    "fractions",
    "heat_map",
    "line_chart",
    "paragraph",
    "rounded",
    "table",
    "token",
    "write",
]
