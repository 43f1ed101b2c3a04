"""The page of two texts: the matrix of pairs, the strongest pairs, the sums, and integrated gradients beside them."""

from typing import TYPE_CHECKING

import numpy as np

from minilm_np import pages

if TYPE_CHECKING:
    from minilm_np.explain.similarity import ComparedText, Similarity

AXES = {"a": "tokens of A", "b": "tokens of B"}
STRONGEST = 12  # pairs that are listed
SHOWN_TEXT = 300  # characters of a text in the table

LIMITS = (
    "A contribution belongs to a token in its text. The hidden state of a token mixes in all other tokens of the text, "
    "so a strong pair does not show that these two words alone made the texts similar.",
    "Integrated gradients depend on their baseline and their path; another choice gives other numbers. Both views "
    "explain the number that the model computes, and not whether the texts mean the same.",
)


def similarity_page(found: "Similarity") -> str:
    """Return the page of a similarity, as HTML."""
    tokens = {AXES["a"]: found.a.tokens, AXES["b"]: found.b.tokens}
    arrays = {
        "contributions": found.contributions,
        "rows": found.contributions.sum(axis=1),
        "columns": found.contributions.sum(axis=0),
        "gradients a": found.a.attribution.values,
        "gradients b": found.b.attribution.values,
    }
    return pages.document(
        f"Why is the cosine {found.cosine:.4f}?",
        f"Two texts, as {found.model} sees them.",
        [_result(found), _pairs(found), _tokens(found), _limits()],
        arrays={name: pages.exact(array) for name, array in arrays.items()},
        values={"axes": tokens},
        footer=f"Contributions: backend {found.backend}, {found.compute_type}, pooling {found.pooling}. Integrated "
        "gradients: the reference in float64. Tables show rounded numbers; the page contains all digits.",
    )


def _result(found: "Similarity") -> pages.Section:
    rows = [
        [name, pages.element("bdi", _shown(side.text)), str(len(side.tokens)), "yes" if side.truncated else "no"]
        for name, side in (("A", found.a), ("B", found.b))
    ]
    return pages.Section(
        "result",
        "The texts and their cosine",
        "A cosine of 1 means that the two vectors have the same direction; 0 means that they are at right angles.",
        [
            pages.table(["", "text", "tokens", "truncated"], rows, caption="The two texts", numbers=[2]),
            pages.facts(
                {
                    "cosine of the vectors": f"{found.cosine:.8f}",
                    "sum of all pairs": f"{found.total:.8f}",
                    "difference": f"{found.error:.1e}",
                }
            ),
            pages.paragraph(adds_up(found)),
        ],
    )


def _shown(text: str) -> str:
    """A text for the table: its start, if it is long."""
    return "(empty)" if not text else text if len(text) <= SHOWN_TEXT else f"{text[:SHOWN_TEXT]}..."


def adds_up(found: "Similarity") -> str:
    """Return the sentence that says whether the contributions add up to the cosine."""
    if abs(found.error) <= 1e-6:
        return f"It adds up: the {found.contributions.size} pairs sum to the cosine within 1e-6."
    return f"It does not add up: the pairs differ from the cosine by {found.error:.1e}. Please report this as a bug."


def _pairs(found: "Similarity") -> pages.Section:
    kinds = {
        "mean": "The vector of a text is the mean of its tokens' hidden states",
        "mean_sqrt_len_tokens": "The vector of a text is a scaled sum of its tokens' hidden states",
        "weightedmean": "The vector of a text is a mean of its tokens' hidden states, weighted by their positions",
        "lasttoken": "The vector of a text is the hidden state of its last token, so one pair is the whole cosine",
        "cls": "The vector of a text is the hidden state of its first token, so one pair is the whole cosine",
        "max": "Each number of a vector is the largest one of all tokens, and counts for the token that it comes from",
    }
    rows = [
        [
            str(rank),
            pages.token(found.a.tokens[pair.a], pair.a),
            pages.token(found.b.tokens[pair.b], pair.b),
            f"{pair.contribution:+.4f}",
            "" if found.cosine == 0 else f"{100 * pair.contribution / found.cosine:.1f} %",
        ]
        for rank, pair in enumerate(found.strongest(STRONGEST), 1)
    ]
    return pages.Section(
        "pairs",
        "Pairs of tokens",
        f"{kinds[found.pooling]}. The cosine is therefore exactly a sum over all pairs of a token of A and a token of "
        "B. Orange pairs raise it, blue pairs lower it.",
        [
            pages.heat_map(
                "contributions",
                title="Contribution of each pair to the cosine",
                rows=AXES["a"],
                columns=AXES["b"],
                labels=["token of A", "token of B", "contribution"],
            ),
            pages.table(
                ["", "token of A", "token of B", "contribution", "of the cosine"],
                rows,
                caption="The strongest pairs; in brackets, the position of the token",
                numbers=[0, 3, 4],
            ),
        ],
    )


def _tokens(found: "Similarity") -> pages.Section:
    rows = [_completeness(name, side) for name, side in (("A", found.a), ("B", found.b))]
    return pages.Section(
        "tokens",
        "Tokens, by two methods",
        "Left: the sum of all pairs of a token; each of these charts adds up to the cosine. Right: integrated "
        "gradients, which ask how much of the cosine comes from each word embedding at the input. Every token of one "
        f"text starts as {found.padding} and moves to its own embedding, while the other text stays as it is; the "
        "gradients of the cosine are summed along the way.",
        [
            _side_by_side(
                pages.bars("rows", title="Tokens of A: sum of their pairs", axis=AXES["a"], y="contribution"),
                pages.bars("gradients a", title="Tokens of A: integrated gradients", axis=AXES["a"], y="attribution"),
            ),
            _side_by_side(
                pages.bars("columns", title="Tokens of B: sum of their pairs", axis=AXES["b"], y="contribution"),
                pages.bars("gradients b", title="Tokens of B: integrated gradients", axis=AXES["b"], y="attribution"),
            ),
            pages.table(
                ["text", "cosine", f"with {found.padding} only", "difference", "sum of gradients", "residual", "steps"],
                rows,
                caption="Completeness: the gradients of a text add up to the difference that its tokens make",
                numbers=[1, 2, 3, 4, 5, 6],
            ),
            pages.paragraph(_added(found.added), class_="note"),
        ],
    )


def _side_by_side(*views: str) -> pages.Html:
    return pages.element("div", *views, class_="side-by-side")


def _added(tokens: list[str]) -> str:
    """The sentence on the tokens that the tokenizer adds."""
    if not tokens:
        return "The tokenizer adds no tokens to a text."
    return f"The tokenizer adds {' and '.join(tokens)}; their gradients are 0, because the baseline has them, too."


def _completeness(name: str, side: "ComparedText") -> list[str]:
    found = side.attribution
    return [
        name,
        f"{found.cosine:.6f}",
        f"{found.baseline:.6f}",
        f"{found.cosine - found.baseline:.6f}",
        f"{float(np.sum(found.values)):.6f}",
        f"{found.residual:.1e}",
        str(found.steps),
    ]


def _limits() -> pages.Section:
    items = pages.element("ul", *(pages.element("li", limit) for limit in LIMITS))
    return pages.Section("limits", "What these views do not show", "Two known limits of such attributions.", [items])
