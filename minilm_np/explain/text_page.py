"""The page of one text: pipeline, tokens, attention, layers, vector."""

import math
from typing import TYPE_CHECKING

import numpy as np

from minilm_np import pages
from minilm_np.explain.pipeline import pipeline
from minilm_np.pages import Embedded, Html, Section
from minilm_np.reference import Array
from minilm_np.trace import Trace, statistics

if TYPE_CHECKING:
    from minilm_np.explain.text import TextExplanation

EXACT_PROBABILITIES = 300_000  # in all layers; more are rounded to multiples of 1/65535. 300,000 take 1.5 MB
SHOWN_REMAINDER = 2000  # characters of a truncated text's remainder

_VECTOR = {
    "mean": "The vector is the mean of the token vectors{then}, so each token contributes exactly its own vector "
    "divided by T{norm}. The contributions add up to the vector.",
    "mean_sqrt_len_tokens": "The vector is the sum of the token vectors, divided by √T{then}, so each token "
    "contributes exactly its own vector divided by √T{norm}. The contributions add up to the vector.",
    "weightedmean": "The vector is a mean of the token vectors, weighted by their positions{then}, so each token "
    "contributes exactly its own vector, times its position over the sum of all positions{norm}. The contributions add "
    "up to the vector.",
    "cls": "This model takes the vector of the first token{then}. The other tokens contribute nothing directly: they "
    "act on the first token through attention, which this chart does not show.",
    "lasttoken": "This model takes the vector of the last token{then}. The other tokens contribute nothing directly: "
    "they act on the last token through attention, which this chart does not show.",
    "max": "This model takes the largest number of all tokens in each dimension{then}. A token contributes the "
    "dimensions in which it has the largest number{norm}, and 0 elsewhere. The contributions add up to the vector.",
}


def text_page(explanation: "TextExplanation") -> str:
    """Return the page of a text as HTML."""
    with np.errstate(all="ignore"):  # NaN and infinity are shown as they are
        return _page(explanation)


def _page(explanation: "TextExplanation") -> str:
    found, config = explanation.trace, explanation.config
    L = config.num_hidden_layers
    return pages.document(
        "From a text to its vector",
        found.text[:SHOWN_REMAINDER] or "(the empty text)",
        [
            pipeline(explanation),
            _tokens(explanation),
            _attention(explanation),
            _layers(explanation),
            _vector(explanation),
        ],
        arrays=_arrays(explanation),
        values={
            "axes": {"tokens": found.tokens, "part": ["residual stream", "update"]},
            "choices": {
                "layer": [str(number) for number in range(L)],
                "input": ["embeddings.LayerNorm"] + [f"encoder.layer.{n}.output.LayerNorm" for n in range(L - 1)],
            },
            "statistics": {name: _statistics(array, found.dimensions[name]) for name, array in found.items()},
        },
        footer=f"Computed with {', '.join(f'{name} {version}' for name, version in found.versions.items())}: "
        f"{found.model}, backend {found.backend}, {found.dtype}. Everything on this page is in this file; it requests "
        "nothing from any network.",
    )


def _arrays(explanation: "TextExplanation") -> dict[str, Embedded]:
    """Every array of the page: rounded where it is only seen, exact where numbers are read."""
    found = explanation.trace
    embedded = {}
    n_probabilities = sum(array.size for name, array in found.items() if name.endswith(".probs"))
    for name, array in found.items():
        if name.endswith(".probs"):
            embedded[name] = pages.exact(array) if n_probabilities <= EXACT_PROBABILITIES else pages.fractions(array)
        elif array.ndim == 1:
            embedded[name] = pages.exact(array.reshape(1, -1))
        else:
            embedded[name] = pages.rounded(array)
    mean = np.stack([explanation.residual_norms.mean(axis=0), explanation.update_norms.mean(axis=0)])  # (2, 2 L)
    return embedded | {
        "vector": pages.exact(explanation.vector),
        "contributions": pages.exact(explanation.contributions.astype(np.float32)),
        "shares": pages.exact(explanation.shares),
        "norms": pages.exact(explanation.norms),
        "cosine_to_final": pages.exact(explanation.cosine_to_final),
        "cosine_to_vector": pages.exact(explanation.cosine_to_vector),
        "mean_norms": pages.exact(mean),
        "update_shares": pages.exact(explanation.update_norms / np.maximum(explanation.residual_norms, 1e-12)),
    }


def _statistics(array: Array, letters: str) -> dict[str, float | str]:
    shape = " × ".join(map(str, array.shape))
    numbers = {key: value if math.isfinite(value) else str(value) for key, value in statistics(array).items()}
    return {"dimensions": letters, "shape": shape} | numbers


# ---- the sections after the pipeline ---------------------------------------------------------------------------------


def _tokens(explanation: "TextExplanation") -> Section:
    found = explanation.trace
    special = [index for index, (start, stop) in enumerate(found.offsets) if start == stop]
    views = [
        pages.component(
            "tokens",
            axis="tokens",
            ids=found.ids,
            special=special,
            pieces=_pieces(found),
            cut=_cut(explanation.remainder),
        )
    ]
    if found.truncated:
        views.append(
            pages.paragraph(
                f"The text was truncated: the model reads at most {explanation.config.max_seq_length} tokens, so "
                f"{len(explanation.remainder):,} characters (crossed out above) do not influence the vector."
            )
        )
    rows = []
    for index, (token, number, (start, stop)) in enumerate(zip(found.tokens, found.ids, found.offsets, strict=True)):
        rows.append(
            [str(index), token, str(number), f"{start} to {stop}" if stop > start else "none", found.text[start:stop]]
        )
    header = ("index", "token", "id", "characters", "text that it covers")
    views.append(pages.table(header, rows, caption="All tokens", numbers=(0, 2), axis="tokens"))
    return Section(
        "tokens",
        "Tokens",
        f"The text is split into word pieces.{_mark(found)} The special tokens, in italics, are added and cover no "
        "characters. Select a token to mark it in every view of this page.",
        views,
    )


def _mark(found: Trace) -> str:
    """The sentence on the mark by which the pieces of this text show where a word begins; "" if there is none."""
    if any(token.startswith("##") for token in found.tokens):
        return " A piece that continues a word begins with ##."
    mark = next((mark for mark in "▁Ġ" if any(token.startswith(mark) for token in found.tokens)), None)
    return f" The mark {mark} in a piece stands for the space before a word." if mark else ""


def _pieces(found: Trace) -> list[tuple[str, int | None]]:
    """The text in order, as characters with the token that covers them, or None."""
    pieces: list[tuple[str, int | None]] = []
    end = 0
    for index, (start, stop) in enumerate(found.offsets):
        if stop <= max(start, end):
            continue  # a special token, or a second token of the same characters
        if start > end:
            pieces.append((found.text[end:start], None))
        pieces.append((found.text[max(start, end) : stop], index))
        end = stop
    if not found.truncated and end < len(found.text):
        pieces.append((found.text[end:], None))
    return pieces


def _cut(remainder: str) -> str:
    more = len(remainder) - SHOWN_REMAINDER
    return remainder if more <= 0 else f"{remainder[:SHOWN_REMAINDER]} … and {more:,} more characters"


def _attention(explanation: "TextExplanation") -> Section:
    names = [f"encoder.layer.{n}.attention.self.probs" for n in range(explanation.config.num_hidden_layers)]
    view = pages.component("attention", arrays=names, axis="tokens", start=[0, 0])
    return Section(
        "attention",
        "Attention",
        "Each small picture is one head: a row per token that looks, a column per token that is looked at. In the "
        "small pictures, colours follow the square root of the probability, so that weak links stay visible. Choose "
        "one to open it large.",
        [view],
    )


def _layers(explanation: "TextExplanation") -> Section:
    L = explanation.config.num_hidden_layers
    states = ["embeddings", *(f"layer {number}" for number in range(L))]
    updates = [f"{number} {part}" for number in range(L) for part in ("attention", "feed-forw.")]

    def chart(array: str, title: str, y: str, x: list[str], note: str, series: str = "tokens") -> Html:
        return pages.line_chart(
            title=title, x=x, y=y, array=array, series=series, note=note, summary=series == "tokens", zero=True
        )

    views = [
        chart("norms", "Length of each token's vector", "norm", states, "The norm after each layer's last LayerNorm."),
        chart(
            "cosine_to_final", "How near each token is to its final state", "cosine", states,
            "The cosine of a token's vector with its own vector after the last layer.",
        ),
        chart(
            "cosine_to_vector", "How near each token is to the sentence vector", "cosine", states,
            "Tokens often become more alike from layer to layer, because each has seen the whole text.",
        ),
        chart(
            "mean_norms", "Residual stream and update", "norm, mean over tokens", updates,
            "The residual stream is what enters the sum; the update is what attention or the feed-forward part adds.",
            "part",
        ),
        chart(
            "update_shares", "How large each update is", "norm of the update / norm of the residual stream", updates,
            "Above 1, the update is larger than what it is added to.",
        ),
    ]  # fmt: skip
    return Section(
        "layers",
        "Layers",
        "How each token's vector moves from the embeddings to the last layer. Each thin line is one token; the dashed "
        "line is the mean. Layers count from 0, as in the names of the weights.",
        views,
    )


def _vector(explanation: "TextExplanation") -> Section:
    config = explanation.config
    D = config.hidden_size
    introduction = _VECTOR[config.pooling_mode].format(
        then=", divided by its norm" if config.normalize else "",
        norm=" and by that norm" if config.normalize else "",
    )
    norm = float(np.linalg.norm(explanation.vector.astype(np.float64)))
    return Section(
        "vector",
        "The vector",
        introduction,
        [
            pages.bars(
                "vector", title=f"The {D} numbers of the sentence vector", axis="dimension", y="value",
                overlay="contributions",
                note=f"Its norm is {norm:.6f}. If a token is selected, its contribution is drawn over the bars.",
            ),
            pages.bars(
                "shares", title="Share of each token in the vector", axis="tokens", y="share",
                note="The contribution's component along the vector. The shares add up to "
                f"{float(explanation.shares.sum()):.6f}.",
            ),
            pages.heat_map(
                "contributions",
                title=f"Contribution of each token to each number, T D = {len(explanation.shares)} × {D}",
                rows="tokens", columns="dimension", labels=["token", "dimension", "contribution"],
                note=f"The sum over tokens differs from the vector by at most {explanation.error:.1e}, because of "
                "float32 rounding.",
            ),
        ],
    )  # fmt: skip
