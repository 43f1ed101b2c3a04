"""The steps of the pipeline, from token ids to the vector: what each computes, of which arrays.

Names of arrays are those of a trace. `{layer}` in a name stands for the layer that the reader of the page chooses, and
`{input}` for the array that enters that layer.
"""

from collections.abc import Sequence
from typing import NamedTuple

from minilm_np.model_files.config import ModelConfig


class Step(NamedTuple):
    """One step: its output's name in the trace, the title, the formula, one sentence, and the arrays it reads."""

    output: str
    title: str
    formula: str
    meaning: str
    inputs: tuple[str, ...] = ()


_WORD, _POSITION, _TYPE = (f"embeddings.{name}_embeddings" for name in ("word", "position", "token_type"))
_SUM = (
    "rows of each token are added. LayerNorm then gives each token's numbers mean 0 and variance 1, and scales and "
    "shifts them by learned weights."
)


def embedding_steps(config: ModelConfig) -> tuple[Step, ...]:
    """Return the steps of the embeddings; DistilBERT has no token types."""
    word = Step(
        _WORD, "Word embeddings", "word[id]",
        "Each token id selects one row of a table of V rows. The same token always starts with the same numbers.",
    )  # fmt: skip
    position = Step(
        _POSITION, "Position embeddings", "position[0, 1, 2, …]",
        "A second table has one row per position, so that the order of the tokens matters.",
    )  # fmt: skip
    token_type = Step(
        _TYPE, "Token type embeddings", "type[0]",
        "BERT was trained on pairs of texts. All tokens of a single text have type 0 and get the same row.",
    )  # fmt: skip
    norm, title = "embeddings.LayerNorm", "Sum and LayerNorm"
    if config.type_vocab_size:
        total = Step(norm, title, "LayerNorm(word + position + type)", f"The three {_SUM}", (_WORD, _POSITION, _TYPE))
        return word, position, token_type, total
    return word, position, Step(norm, title, "LayerNorm(word + position)", f"The two {_SUM}", (_WORD, _POSITION))


_ATTENTION = "encoder.layer.{layer}.attention"
_LAYER = "encoder.layer.{layer}"

LAYER = (
    Step(
        f"{_ATTENTION}.self.query", "Query", "Q = x Wᵀ + b", "What each token looks for in the others.", ("{input}",)
    ),
    Step(f"{_ATTENTION}.self.key", "Key", "K = x Wᵀ + b", "What each token offers to be found by.", ("{input}",)),
    Step(
        f"{_ATTENTION}.self.value", "Value", "V = x Wᵀ + b", "What each token hands over.", ("{input}",)
    ),
    Step(
        f"{_ATTENTION}.self.scores", "Attention scores", "Q Kᵀ / √E",
        "In each head, the dot product of every query with every key. E is the size of a head.",
        (f"{_ATTENTION}.self.query", f"{_ATTENTION}.self.key"),
    ),
    Step(
        f"{_ATTENTION}.self.probs", "Attention probabilities", "softmax(scores)",
        "Each row becomes positive and adds up to 1: how one token divides its attention among all tokens.",
        (f"{_ATTENTION}.self.scores",),
    ),
    Step(
        f"{_ATTENTION}.self.context", "Context", "probabilities · V",
        "Each token's mean of all values, weighted by its probabilities. The heads stand side by side.",
        (f"{_ATTENTION}.self.probs", f"{_ATTENTION}.self.value"),
    ),
    Step(
        f"{_ATTENTION}.output.dense", "Attention output", "context Wᵀ + b",
        "Mixes the heads. The result is the update that attention makes.", (f"{_ATTENTION}.self.context",),
    ),
    Step(
        f"{_ATTENTION}.output.LayerNorm", "Add and LayerNorm", "LayerNorm(x + update)",
        "The update is added to the layer's input, and the sum is normalised.",
        (f"{_ATTENTION}.output.dense", "{input}"),
    ),
    Step(
        f"{_LAYER}.intermediate.dense", "Feed-forward, up", "x Wᵀ + b",
        "Each token alone is mapped from D to F numbers.", (f"{_ATTENTION}.output.LayerNorm",),
    ),
    Step(
        f"{_LAYER}.intermediate.intermediate_act_fn", "GELU", "x Φ(x)",
        "Large numbers pass, negative ones become nearly 0. Φ is the normal distribution's cumulative function.",
        (f"{_LAYER}.intermediate.dense",),
    ),
    Step(
        f"{_LAYER}.output.dense", "Feed-forward, down", "x Wᵀ + b",
        "Back from F to D numbers: the update that the feed-forward part makes.",
        (f"{_LAYER}.intermediate.intermediate_act_fn",),
    ),
    Step(
        f"{_LAYER}.output.LayerNorm", "Add and LayerNorm", "LayerNorm(x + update)",
        "The second sum of the layer. Its result enters the next layer.",
        (f"{_LAYER}.output.dense", f"{_ATTENTION}.output.LayerNorm"),
    ),
)  # fmt: skip

_POOLING = {
    "mean": ("x̄ = Σₜ xₜ / T", "The mean of all token vectors{added}."),
    "cls": ("x̄ = x₁", "The vector of the first token{first}. The other tokens act on it only through attention."),
    "lasttoken": ("x̄ = x_T", "The vector of the last token. The other tokens act on it only through attention."),
    "max": ("x̄ = maxₜ xₜ", "For each dimension the largest number of all tokens."),
    "mean_sqrt_len_tokens": (
        "x̄ = Σₜ xₜ / √T",
        "The sum of all token vectors, divided by √T.",
    ),
    "weightedmean": ("x̄ = Σₜ t xₜ / Σₜ t", "The mean of all token vectors, weighted by their positions, from 1 to T."),
}


def final_steps(config: ModelConfig, added: Sequence[str]) -> tuple[Step, ...]:
    """Return the steps after the last layer: pooling and, if the model has it, normalisation.

    added: the tokens that the tokenizer adds to every text, such as [CLS] and [SEP].
    """
    formula, meaning = _POOLING[config.pooling_mode]
    meaning = meaning.format(
        added=f", {' and '.join(added)} included" if added else "", first=f", {added[0]}" if added else ""
    )
    last = f"encoder.layer.{config.num_hidden_layers - 1}.output.LayerNorm"
    pooling = Step("pooling", "Pooling", formula, meaning, (last,))
    if not config.normalize:
        return (pooling,)
    meaning = "The vector is divided by its norm, so that the dot product of two vectors is their cosine."
    return (pooling, Step("normalize", "Normalisation", "v = x̄ / |x̄|", meaning, ("pooling",)))
