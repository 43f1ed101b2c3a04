"""The arrays that explain one text: its trace, how its tokens move through the layers, and what each contributes.

The trace is float32, as published, on the NumPy backend. What is derived from it is computed in float64.
"""

import math
import os
from dataclasses import dataclass

import numpy as np

from minilm_np.encoding.loaded_model import HasModel, LoadedModel, model_of
from minilm_np.model_files.config import ModelConfig, require_plain_bert
from minilm_np.pages import write
from minilm_np.reference import Array
from minilm_np.text.tokenizer import TextTokenizer
from minilm_np.trace import Trace, trace

ENCODERS = ("bert", "distilbert")  # that can be explained; the others count positions from the padding id


@dataclass(frozen=True, eq=False)
class TextExplanation:
    """What `text` returns. Letters: T tokens, D hidden size, L layers.

    A token's hidden state after the embeddings is state 0, after the last layer state L. Each layer adds two updates to
    the residual stream: that of attention, then that of the feed-forward part.
    """

    trace: Trace
    config: ModelConfig
    added: list[str]  # the tokens that the tokenizer adds to every text, such as [CLS] and [SEP]
    remainder: str  # the end of the text, which was truncated; "" if the model reads all of it
    vector: Array  # (D,) float32: the sentence vector of the trace
    norms: Array  # (T, L + 1): the Euclidean norm of each hidden state
    cosine_to_final: Array  # (T, L + 1): with the same token's last hidden state
    cosine_to_vector: Array  # (T, L + 1): with the sentence vector
    residual_norms: Array  # (T, 2 L): of the residual stream before each update
    update_norms: Array  # (T, 2 L): of each update
    contributions: Array  # (T, D): they add up to the vector; see `contributions_of`
    shares: Array  # (T,): contribution . vector / |vector|^2; they add up to 1

    @property
    def error(self) -> float:
        """The largest difference between the sum of the contributions and the vector: float32 rounding."""
        return float(np.abs(self.contributions.sum(axis=0) - self.vector).max())

    def page(self) -> str:
        """Return a self-contained HTML page that shows all of it."""
        from minilm_np.explain.text_page import text_page

        return text_page(self)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page atomically. Warns before it writes more than 10 MB. Raises SaveError."""
        write(path, self.page())


def text(encoder: LoadedModel | HasModel, text: str) -> TextExplanation:
    """Return the arrays that explain how a model turns a text into its sentence vector.

    encoder: with any backend and any pooling; the arrays are those of the NumPy backend. The vector has all D numbers:
    neither a prompt nor `truncate_dim` is applied.
    Raises InputTypeError, InputValueError (the text cannot be encoded), ConfigError (the model is not BERT or
    DistilBERT with GELU, or has a Dense module).
    """
    model = model_of(encoder)
    require_plain_bert(model.config, "explain", ENCODERS)
    with np.errstate(all="ignore"):  # NaN and infinity are shown as they are
        return _explanation(trace(model, text), model.config, added_tokens(model.tokenizer))


def _explanation(found: Trace, config: ModelConfig, added: list[str]) -> TextExplanation:
    text, L = found.text, config.num_hidden_layers
    layers = [f"encoder.layer.{number}" for number in range(L)]
    names = ["embeddings.LayerNorm", *(f"{layer}.output.LayerNorm" for layer in layers)]
    states = np.stack([found[name] for name in names]).astype(np.float64)  # (L + 1, T, D)
    vector = list(found.values())[-1]
    residuals, updates = [], []
    for layer, before in zip(layers, names[:-1], strict=True):
        residuals += [found[before], found[f"{layer}.attention.output.LayerNorm"]]
        updates += [found[f"{layer}.attention.output.dense"], found[f"{layer}.output.dense"]]
    contributions = contributions_of(states[-1], config)
    squared = float(vector.astype(np.float64) @ vector.astype(np.float64))
    end = max((stop for _, stop in found.offsets), default=0)
    return TextExplanation(
        trace=found,
        config=config,
        added=added,
        remainder=text[end:] if found.truncated else "",
        vector=vector,
        norms=_norms(states).T,
        cosine_to_final=_cosines(states, states[-1]).T,
        cosine_to_vector=_cosines(states, vector.astype(np.float64)).T,
        residual_norms=_norms(np.stack(residuals).astype(np.float64)).T,
        update_norms=_norms(np.stack(updates).astype(np.float64)).T,
        contributions=contributions,
        shares=contributions @ vector.astype(np.float64) / (squared or 1.0),
    )


def added_tokens(tokenizer: TextTokenizer) -> list[str]:
    """The tokens that a tokenizer adds to every text, in order, each once."""
    return list(dict.fromkeys(map(tokenizer.token, tokenizer.before + tokenizer.after)))


def contributions_of(states: Array, config: ModelConfig) -> Array:  # (T, D) -> (T, D)
    """What each token's last hidden state adds to the sentence vector. The sum over tokens is the vector.

    mean: x / T. mean_sqrt_len_tokens: x / sqrt(T). weightedmean: x times its position over the sum of the positions.
    cls: x for the first token, 0 for the others; lasttoken: x for the last. max: the numbers of x that are the largest
    of all tokens (the first of equals), 0 elsewhere. If the model normalises, all of them are divided by the norm of
    the pooled vector.
    """
    T, D = states.shape
    if config.pooling_mode == "mean":
        shares = states / T
    elif config.pooling_mode == "mean_sqrt_len_tokens":
        shares = states / math.sqrt(T)
    elif config.pooling_mode == "weightedmean":
        shares = states * (np.arange(1, T + 1) / (T * (T + 1) // 2))[:, None]
    else:
        first_or_last = np.full(D, T - 1 if config.pooling_mode == "lasttoken" else 0)
        owner = states.argmax(axis=0) if config.pooling_mode == "max" else first_or_last
        shares = np.where(np.arange(T)[:, None] == owner, states, 0.0)
    return shares / max(float(_norms(shares.sum(axis=0))), 1e-12) if config.normalize else shares


def _norms(x: Array) -> Array:  # (..., D) -> (...)
    return np.sqrt((x * x).sum(axis=-1))


def _cosines(x: Array, y: Array) -> Array:  # (..., D), (..., D) -> (...)
    return (x * y).sum(axis=-1) / np.maximum(_norms(x) * _norms(y), 1e-12)
