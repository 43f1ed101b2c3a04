"""Texts to token ids, and texts that are longer than the model's limit.

In reading order:

    inputs.py       which objects are texts: the check of every public call
    tokenizer.py    texts -> token ids without padding; the tokenizer files of a model folder
    pairs.py        pairs of texts -> token ids and token types, for cross-encoders
    components.py   which tokenizer.json files are accepted
    breaks.py       where a long text may be cut, so that its pieces have the tokens of the whole
    truncation.py   the report and the warning about truncated texts
    windows.py      `encode_long`: overlapping windows for texts of any length
"""
