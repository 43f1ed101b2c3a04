"""Deviations of the encoder's inputs: padding, the attention mask, the token types."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from minilm_np.model_files.config import ModelConfig
from minilm_np.reference import Array
from minilm_np.verify.variations import LONGEST, Deviation, Padding

MASKED = {  # name, what happens, remedy by (attends to padding, pools padding)
    (False, True): ("counted in the mean", "pooling counts the padding", "Pass the attention mask to the pooling."),
    (True, False): ("attended to", "tokens attend to the padding", "Pass the attention mask to the encoder."),
    (True, True): ("attended to and counted", "tokens attend to the padding and pooling counts it",
                   "Pass the attention mask to the encoder and to the pooling."),
}  # fmt: skip


def padding(rule: Padding, attends: bool, pools: bool) -> Deviation:
    """Return the deviation that computes with padding as if it were text."""
    words, done, remedy = MASKED[attends, pools]
    target = {
        "fixed": str(rule.number),
        "multiple": f"multiples of {rule.number}",
        "batch": f"the longest of each batch of {rule.number}",
        "sorted batch": f"the longest of each batch of {rule.number}, longest texts first",
    }[rule.rule]
    if rule == LONGEST:
        target = "the longest text"
    return Deviation(
        f"padding to {target} {words}", "padding",
        f"Texts are padded to {target}, and {done}: an attention mask is ignored, as in hand-written pooling and in "
        "exported graphs without this input.",
        remedy,
        lambda v: replace(v, padding=rule, attends_to_padding=attends, pools_padding=pools),
    )  # fmt: skip


def paddings(config: ModelConfig) -> list[Deviation]:
    """Return the usual ways to compute with padding as if it were text; `fitting.py` finds others."""
    lengths = {min(length, config.max_position_embeddings) for length in (128, 256)}
    rules = [*(Padding("fixed", length) for length in sorted(lengths)), LONGEST]
    return [padding(rule, attends, pools) for rule in rules for attends, pools in MASKED]


def _even(model: Any) -> Callable[[Array], Array]:
    """Return a softmax that ignores the scores: every position gets the same probability."""
    return lambda scores: np.full_like(scores, 1.0 / scores.shape[-1])


def _none(model: Any) -> Callable[[Array], Array]:
    """Return a softmax without a position to attend to: every position gets probability 0."""
    return np.zeros_like


# A mask of zeros excludes all positions. What attention makes of that differs. (name, what, softmax)
NO_POSITION = (
    ("attention to all alike",
     "each token attends to all positions alike, as where a large number is subtracted from excluded scores", _even),
    ("no attention", "attention adds nothing but its bias, as in torch's scaled_dot_product_attention", _none),
)  # fmt: skip


def masks(config: ModelConfig) -> list[Deviation]:
    """Return wrong values of the attention mask and of the token types."""
    found = [
        Deviation(
            f"attention mask of zeros, {name}", "mask",
            f"The attention mask is 0 for every token, so that {what}. The mask is not filled, or 0 and 1 are "
            "confused.",
            "Give the encoder a mask of 1 for each token and 0 for padding.",
            lambda v, softmax=softmax: replace(  # type: ignore[misc]
                v, functions=(*v.functions, ("softmax", softmax))
            ),
        )
        for name, what, softmax in NO_POSITION
    ]  # fmt: skip
    if config.type_vocab_size < 2:
        return found
    found.append(
        Deviation(
            "token types of ones", "token types",
            "All tokens have type 1 instead of 0, as if they were those of the second text of a pair.",
            "Give the encoder token types of 0, or leave out this input.",
            lambda v: replace(v, token_types="ones"),
        )
    )  # fmt: skip
    for name, what, softmax in NO_POSITION:
        found.append(
            Deviation(
                f"attention mask and token types swapped, {name}", "mask",
                "The encoder gets the token types (zeros) as attention mask, and the attention mask (ones) as token "
                f"types: two inputs are in the wrong order. With a mask of zeros, {what}.",
                "Pass the inputs by name: input_ids, attention_mask, token_type_ids.",
                lambda v, softmax=softmax: replace(  # type: ignore[misc]
                    v, functions=(*v.functions, ("softmax", softmax)), token_types="mask"
                ),
            )
        )  # fmt: skip
    return found
