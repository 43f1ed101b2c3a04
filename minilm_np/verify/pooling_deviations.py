"""Deviations from the hidden states to one vector: pooling, layers, normalisation."""

from collections.abc import Callable
from dataclasses import replace

from minilm_np.model_files.config import ModelConfig
from minilm_np.verify.variations import Deviation, Variation

# mode -> (name, what)
POOLINGS = {
    "mean": ("mean pooling", "The vector is the mean over all tokens, as in most models."),
    "cls": ("CLS pooling", "The vector is that of [CLS], as in servers that do not read the pooling config."),
    "max": ("max pooling", "The vector is the maximum over all tokens."),
    "lasttoken": ("last-token pooling", "The vector is that of the last token, [SEP], as for decoder models."),
    "weightedmean": (
        "position-weighted mean",
        "The vector is a mean in which each token's weight is its position, counted from 1 (SGPT's pooling).",
    ),
}

# hidden states, counted from the end -> (name, what)
LAYERS = {
    (-2,): ("second-to-last layer", "The hidden states are those before the last layer, as in bert-as-service."),
    (-2, -1): ("mean of the last two layers", "The hidden states are the mean of the last two layers'."),
    (-4, -3, -2, -1): ("mean of the last four layers", "The hidden states are the mean of the last four layers'."),
}


def poolings(config: ModelConfig) -> list[Deviation]:
    """Return other poolings and layers, and normalisation if the model has none, or none if it has one."""
    normalize = not config.normalize
    remedy = f"Set the pooling to {config.pooling_mode!r}, as in 1_Pooling/config.json."

    def pooling(mode: str) -> Callable[[Variation], Variation]:
        return lambda v: replace(v, pooling=mode)

    def layers(places: tuple[int, ...]) -> Callable[[Variation], Variation]:
        return lambda v: replace(v, layers=places)

    return [
        *(
            Deviation(name, "pooling", what, remedy, pooling(mode))
            for mode, (name, what) in POOLINGS.items()
            if mode != config.pooling_mode
        ),
        Deviation(
            "sums instead of means" if normalize else "sums instead of means, no normalisation", "pooling",
            "The vector is the sum over all tokens, not divided by their number, and not scaled to unit length.",
            remedy if normalize else "Divide the sum by the number of tokens, and the vector by its length.",
            lambda v: replace(v, pooling="sum", config=replace(v.config, normalize=False)),
        ),
        Deviation(
            "normalisation" if normalize else "no normalisation", "normalisation",
            "Vectors are scaled to unit length, which the model does not do." if normalize else
            "Vectors are not scaled to unit length, as in transformers' BertModel followed by pooling alone.",
            "Leave out the normalisation." if normalize else "Divide each vector by its length.",
            lambda v: replace(v, config=replace(v.config, normalize=normalize)),
        ),
        Deviation(
            "special tokens left out of the mean", "special tokens",
            "Pooling does not count [CLS] and [SEP], as with a mask of special tokens.",
            "Pool over every token of the attention mask, [CLS] and [SEP] included.",
            lambda v: replace(v, pools_special_tokens=False),
        ),
        *(
            Deviation(name, "layers", what, "Pool the hidden states of the last layer.", layers(places))
            for places, (name, what) in LAYERS.items()
            if len(places) <= config.num_hidden_layers > 1
        ),
    ]  # fmt: skip
