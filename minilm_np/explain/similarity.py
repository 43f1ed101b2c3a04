"""Why two texts are as similar as they are: their cosine as a sum over pairs of tokens, and integrated gradients.

**The sum over pairs is exact.** A sentence vector is a sum of one contribution per token, for every pooling (see
`text.contributions_of`): v_a = sum_i s_i for text A, and v_b = sum_j s_j for text B, both of unit length. So

    cosine(v_a, v_b) = sum_ij contributions[i, j],    contributions[i, j] = s_i . s_j

For cls, one pair has the whole cosine: that of the first tokens; for lasttoken, that of the last ones.

The hidden state of a token depends on the whole text. A contribution therefore belongs to a token *in its text*, not to
the word. `gradients.py` asks the other question: what the word embeddings at the input change.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from minilm_np import reference
from minilm_np._checks import check_int, check_texts
from minilm_np.explain.gradients import Attribution, integrated_gradients
from minilm_np.explain.text import ENCODERS, added_tokens, contributions_of
from minilm_np.model_files.config import ModelConfig, require_plain_bert
from minilm_np.pages import write
from minilm_np.reference import Array
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.text.tokenizer import TextTokenizer
from minilm_np.trace import tokens_of

PAIRS = 10  # that `strongest` returns by default


@dataclass(frozen=True, eq=False)
class ComparedText:
    """One of the two texts: its tokens, and what each adds to the cosine."""

    text: str
    tokens: list[str]  # T of them, [CLS] and [SEP] included
    ids: list[int]
    offsets: list[tuple[int, int]]  # each token comes from text[start:stop]; (0, 0) for [CLS] and [SEP]
    truncated: bool  # the text is longer than the limit
    attribution: Attribution  # integrated gradients, in float64


class Pair(NamedTuple):
    """A token of each text, by its index, and their contribution to the cosine."""

    a: int
    b: int
    contribution: float


@dataclass(frozen=True, eq=False)
class Similarity:
    """The result of `similarity`."""

    a: ComparedText
    b: ComparedText
    cosine: float  # of the vectors of `encode`
    contributions: Array  # (T of a, T of b) float64
    pooling: str
    added: list[str]  # the tokens that the tokenizer adds to every text, such as [CLS] and [SEP]
    padding: str  # the token of the baseline of the integrated gradients, such as [PAD]
    model: str
    backend: str
    compute_type: str

    @property
    def total(self) -> float:
        """The sum of all contributions. It is the cosine, up to float32 rounding."""
        return float(self.contributions.sum())

    @property
    def error(self) -> float:
        """The sum of all contributions minus the cosine."""
        return self.total - self.cosine

    def strongest(self, n: int = PAIRS) -> list[Pair]:
        """Return the n pairs with the largest contributions by absolute value, largest first."""
        check_int("n", n, 0)
        order = np.argsort(-np.abs(self.contributions), axis=None, kind="stable")[:n]
        rows, columns = np.unravel_index(order, self.contributions.shape)
        return [Pair(int(i), int(j), float(self.contributions[i, j])) for i, j in zip(rows, columns, strict=True)]

    def page(self) -> str:
        """Return a self-contained HTML page that shows all of this."""
        from minilm_np.explain.similarity_page import similarity_page

        return similarity_page(self)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page atomically. Warns before it writes more than 10 MB. Raises SaveError."""
        write(path, self.page())

    def __repr__(self) -> str:
        sizes = f"{len(self.a.ids)} and {len(self.b.ids)} tokens"
        return f"Similarity({self.a.text[:30]!r}, {self.b.text[:30]!r}, {sizes}, cosine {self.cosine:.4f})"


def similarity(
    encoder: SentenceEncoder, a: str, b: str, *, report: Callable[[int], object] = lambda steps: None
) -> Similarity:
    """Explain the cosine of two texts: contributions of pairs of tokens, and integrated gradients of each text.

    The contributions are of the hidden states that the encoder computes, whatever its backend and compute type. The
    integrated gradients are of the reference in float64. Prompts and `truncate_dim` of the encoder are not used: put a
    prompt before the texts. A text longer than the limit is truncated.
    report: called with the number of steps of the integration done since the last call.

    Raises InputTypeError and InputValueError (a text, by its number), NonFiniteError, ConfigError (the model is not
    BERT or DistilBERT with GELU, or has a Dense module).
    """
    model, config = encoder.model, encoder.config
    require_plain_bert(config, "explain", ENCODERS)
    texts = check_texts([a, b])
    tokenized = [tokens_of(model.tokenizer, text) for text in texts]
    model.tokenizer.check_tokens([ids for _, ids, _, _ in tokenized])
    states_a, states_b = encoder.encode(texts, prompt="", output_value="token_embeddings", on_truncation="ignore")
    vectors_of_encode = encoder.encode(
        texts, prompt="", truncate_dim=config.hidden_size, normalize_embeddings=True, on_truncation="ignore"
    )
    vector_a, vector_b = vectors_of_encode.astype(np.float64)

    weights = reference.nest(encoder.weights, np.float64)
    all_ids = [np.array(ids, np.int64) for _, ids, _, _ in tokenized]
    vectors = [reference.normalize(reference.forward(ids, weights, config)) for ids in all_ids]
    compared = []
    for text, facts, ids, other in zip(texts, tokenized, all_ids, reversed(vectors), strict=True):
        baseline = baseline_ids(ids, model.tokenizer)
        attribution = integrated_gradients(ids, baseline, other, weights, config, report)
        compared.append(ComparedText(text, *facts, attribution))
    return Similarity(
        a=compared[0],
        b=compared[1],
        cosine=float(vector_a @ vector_b),
        contributions=pair_contributions(states_a, states_b, config),
        pooling=config.pooling_mode,
        added=added_tokens(model.tokenizer),
        padding=model.tokenizer.token(model.tokenizer.pad_id),
        model=model.name,
        backend=model.kind.backend,
        compute_type=model.kind.compute_type,
    )


def pair_contributions(x_a: Array, x_b: Array, config: ModelConfig) -> Array:  # (T_a, D), (T_b, D) -> (T_a, T_b)
    """Return the contribution of each pair of tokens to the cosine, in float64, from the hidden states of two texts."""
    normalizing = replace(config, normalize=True)  # a cosine is of vectors of unit length
    shares_a, shares_b = (contributions_of(x.astype(np.float64), normalizing) for x in (x_a, x_b))
    return shares_a @ shares_b.T


def baseline_ids(ids: Array, tokenizer: TextTokenizer) -> Array:  # (T,) -> (T,)
    """Return the ids with the padding token in place of every token that is from the text."""
    baseline = ids.copy()
    baseline[len(tokenizer.before) : len(ids) - len(tokenizer.after)] = tokenizer.pad_id
    return baseline
