"""Texts to token ids, and texts that are longer than the model's limit.

In reading order:

    tokenizer.py        texts -> token ids without padding
    tokenizer_files.py  the tokenizer of a model folder: tokenizer.json or vocab.txt, and its options
    components.py       which tokenizer.json files are accepted
    pairs.py            pairs of texts -> token ids and token types, for cross-encoders
    breaks.py           where a long text may be cut, so that its pieces have the tokens of the whole
    truncation.py       the report and the warning about truncated texts
    windows.py          `encode_long`: overlapping windows for texts of any length
"""
