"""Deviations before and after the encoder: token ids, truncation, padding, pooling, normalisation."""

from collections.abc import Callable
from dataclasses import replace

from minilm_np.model_files.config import ModelConfig
from minilm_np.verify.variations import LONGEST, Deviation, Variation

# ---- truncation and padding ------------------------------------------------------------------------------------------

LIMITS = {
    128: "the limit in the tokenizer.json of all-MiniLM-L6-v2, which applies if that file is loaded alone",
    512: "all positions of BERT, the default of transformers and of many servers",
    510: "all positions of BERT except two for [CLS] and [SEP]",
}


def truncations(config: ModelConfig) -> list[Deviation]:
    """Return other limits."""
    own, P = config.max_seq_length, config.max_position_embeddings
    limits = {min(limit, P) for limit in (32, 64, 128, 256, 384, 510, 512, own - 2, own + 2) if limit > 2} - {own}
    return [
        Deviation(
            f"truncation at {limit}", "truncation",
            f"Texts are truncated at {limit} tokens instead of {own}"
            f"{f': this is {LIMITS[limit]}' if limit in LIMITS else ''}.",
            f"Set the maximum length to {own} tokens, [CLS] and [SEP] included.",
            lambda v, limit=limit: replace(v, config=replace(v.config, max_seq_length=limit)),  # type: ignore[misc]
        )
        for limit in sorted(limits)
    ]  # fmt: skip


def paddings(config: ModelConfig) -> list[Deviation]:
    """Return the ways to compute with padding as if it were text."""
    found = []
    lengths = {min(length, config.max_position_embeddings) for length in (128, 256)}
    for pad_to in (*sorted(lengths), LONGEST):
        length = "the longest text" if pad_to == LONGEST else str(pad_to)
        for words, done, remedy, attends, pools in (
            ("counted in the mean", "pooling counts the padding", "Pass the attention mask to the pooling.", False,
             True),
            ("attended to", "tokens attend to the padding", "Pass the attention mask to the encoder.", True, False),
            ("attended to and counted", "tokens attend to the padding and pooling counts it",
             "Pass the attention mask to the encoder and to the pooling.", True, True),
        ):  # fmt: skip
            found.append(
                Deviation(
                    f"padding to {length} {words}", "padding",
                    f"Texts are padded to {length}, and {done}: an attention mask is ignored, as in hand-written "
                    "pooling and in exported graphs without this input.",
                    remedy,
                    lambda v, pad_to=pad_to, attends=attends, pools=pools: replace(  # type: ignore[misc]
                        v, pad_to=pad_to, attends_to_padding=attends, pools_padding=pools
                    ),
                )
            )  # fmt: skip
    return found


# ---- from the token vectors to one vector ----------------------------------------------------------------------------

POOLINGS = {
    "mean": ("mean pooling", "The vector is the mean over all tokens, as in most models."),
    "cls": ("CLS pooling", "The vector is that of [CLS], as in servers that do not read the pooling config."),
    "max": ("max pooling", "The vector is the maximum over all tokens."),
}


def poolings(config: ModelConfig) -> list[Deviation]:
    """Return other poolings, and normalisation if the model has none, or none if it has one."""
    found = [
        Deviation(
            name, "pooling", what, f"Set the pooling to {config.pooling_mode!r}, as in 1_Pooling/config.json.",
            lambda v, mode=mode: replace(v, config=replace(v.config, pooling_mode=mode)),  # type: ignore[misc]
        )
        for mode, (name, what) in POOLINGS.items()
        if mode != config.pooling_mode
    ]  # fmt: skip
    normalize = not config.normalize
    found.append(
        Deviation(
            "normalisation" if normalize else "no normalisation", "normalisation",
            "Vectors are scaled to unit length, which the model does not do." if normalize else
            "Vectors are not scaled to unit length, as in transformers' BertModel followed by pooling alone.",
            "Leave out the normalisation." if normalize else "Divide each vector by its length.",
            lambda v: replace(v, config=replace(v.config, normalize=normalize)),
        )
    )  # fmt: skip
    found.append(
        Deviation(
            "special tokens left out of the mean", "special tokens",
            "Pooling does not count [CLS] and [SEP], as with a mask of special tokens.",
            "Pool over every token of the attention mask, [CLS] and [SEP] included.",
            lambda v: replace(v, pools_special_tokens=False),
        )
    )  # fmt: skip
    return found


# ---- from text to token ids ------------------------------------------------------------------------------------------


def texts() -> list[Deviation]:
    """Return deviations of the tokenizer."""

    def normalizing(**options: bool) -> Callable[[Variation], Variation]:
        return lambda v: replace(v, normalizer=tuple(options.items()))

    remedy = "Use the tokenizer.json of the model, or BERT's WordPiece with do_lower_case=True."
    return [
        Deviation(
            "special tokens left out of the input", "special tokens",
            "Texts are encoded without [CLS] and [SEP], as with add_special_tokens=False.",
            "Put [CLS] before and [SEP] after each text.",
            lambda v: replace(v, special_tokens=False),
        ),
        Deviation(
            "no lower-casing", "text",
            "Texts are not lower-cased, and accents are not stripped, as with do_lower_case=False.",
            remedy, normalizing(lowercase=False),
        ),
        Deviation(
            "no lower-casing, accents stripped", "text",
            "Texts are not lower-cased; accents are stripped.",
            remedy, normalizing(lowercase=False, strip_accents=True),
        ),
        Deviation(
            "accents not stripped", "text",
            "Accents are not stripped, as in hand-written tokenizers that only lower-case.",
            "Strip accents after lower-casing: decompose (Unicode NFD) and drop the combining marks.",
            normalizing(strip_accents=False),
        ),
    ]  # fmt: skip
