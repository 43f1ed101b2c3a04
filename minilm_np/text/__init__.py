"""Texts to token ids, and texts that are longer than the model's limit.

In reading order:

    tokenizer.py    texts -> token ids without padding; the tokenizer files of a model folder
    truncation.py   the report and the warning about truncated texts
    windows.py      `encode_long`: overlapping windows for texts of any length
"""
