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


def masks(config: ModelConfig) -> list[Deviation]:
    """Return wrong values of the attention mask and of the token types."""
    found = [
        Deviation(
            "attention mask of zeros", "mask",
            "The attention mask is 0 for every token, so that each token attends to all positions alike: the mask is "
            "not filled, or 0 and 1 are confused.",
            "Give the encoder a mask of 1 for each token and 0 for padding.",
            lambda v: replace(v, functions=(*v.functions, ("softmax", _even))),
        ),
    ]  # fmt: skip
    if config.type_vocab_size > 1:
        found += [
            Deviation(
                "token types of ones", "token types",
                "All tokens have type 1 instead of 0, as if they were those of the second text of a pair.",
                "Give the encoder token types of 0, or leave out this input.",
                lambda v: replace(v, token_types="ones"),
            ),
            Deviation(
                "attention mask and token types swapped", "mask",
                "The encoder gets the token types (zeros) as attention mask, and the attention mask (ones) as token "
                "types: two inputs of an exported graph are in the wrong order.",
                "Bind the inputs by name: input_ids, attention_mask, token_type_ids.",
                lambda v: replace(v, functions=(*v.functions, ("softmax", _even)), token_types="mask"),
            ),
        ]  # fmt: skip
    return found
