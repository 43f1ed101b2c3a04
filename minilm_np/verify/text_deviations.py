"""Deviations from text to token ids: other tokenizers, prompts, other ids, truncation, windows."""

from collections.abc import Callable
from dataclasses import replace

from minilm_np.model_files.config import ModelConfig
from minilm_np.verify.variations import Describe, Deviation, Variation, Windows
from minilm_np.verify.varied_tokens import alphabetical, shifted, with_options, with_pre_tokenizer

Vary = Callable[[Variation], Variation]

# ---- tokenizers ------------------------------------------------------------------------------------------------------

TOKENIZER = "Use the tokenizer.json of the model, or BERT's WordPiece with do_lower_case=True."
ACCENTS = "Strip accents after lower-casing: decompose (Unicode NFD) and drop the combining marks."
PUNCTUATION = "Split every punctuation character off as a separate word, as BERT's pre-tokenizer does."
CHINESE = "Put spaces around each Chinese character, as BERT's normalizer does (tokenize_chinese_chars=True)."

CASED = {"lowercase": False, "strip_accents": False}
UNSPACED = {"handle_chinese_chars": False}

# (name, what, remedy, options of the normalizer, class of the pre-tokenizer)
TOKENIZERS: tuple[tuple[str, str, str, dict[str, bool], str], ...] = (
    ("no lower-casing", "Texts are not lower-cased, and accents are not stripped, as with do_lower_case=False.",
     TOKENIZER, CASED, ""),
    ("no lower-casing, accents stripped", "Texts are not lower-cased; accents are stripped.",
     TOKENIZER, {"lowercase": False, "strip_accents": True}, ""),
    ("accents not stripped", "Accents are not stripped, as in hand-written tokenizers that only lower-case.",
     ACCENTS, {"strip_accents": False}, ""),
    ("Chinese characters not split", "A run of Chinese characters is one word, as with tokenize_chinese_chars=False.",
     CHINESE, UNSPACED, ""),
    ("punctuation not split off", "Punctuation stays in the word next to it, so that \"end.\" is one word.",
     PUNCTUATION, {}, "WhitespaceSplit"),
    ("punctuation split off in runs", "A run of punctuation such as \"...\" is one word, as in the pre-tokenizer "
     "Whitespace of `tokenizers`.", PUNCTUATION, {}, "Whitespace"),
    ("splitting at white space only", "Words end at white space only: neither punctuation nor Chinese characters are "
     "separate words.", TOKENIZER, UNSPACED, "WhitespaceSplit"),
    ("splitting at white space only, accents not stripped", "Words end at white space only, and accents are not "
     "stripped, as in hand-written tokenizers that only lower-case.", TOKENIZER, UNSPACED | {"strip_accents": False},
     "WhitespaceSplit"),
    ("splitting at white space only, no lower-casing", "Words end at white space only. Texts are not lower-cased, and "
     "accents are not stripped: WordPiece runs without BERT's normalizer and pre-tokenizer.", TOKENIZER,
     UNSPACED | CASED, "WhitespaceSplit"),
    ("no lower-casing, punctuation not split off", "Texts are not lower-cased, accents are not stripped, and "
     "punctuation stays in the word next to it.", TOKENIZER, CASED, "WhitespaceSplit"),
)  # fmt: skip


def tokenizers() -> list[Deviation]:
    """Return deviations of the tokenizer."""

    def described(options: dict[str, bool], pre_tokenizer: str) -> Vary:
        changes: list[Describe] = []
        if options:
            changes.append(lambda described: with_options(described, options))
        if pre_tokenizer:
            changes.append(lambda described: with_pre_tokenizer(described, pre_tokenizer))
        return lambda v: replace(v, tokenizer=(*v.tokenizer, *changes))

    return [
        Deviation(
            "special tokens left out of the input", "special tokens",
            "Texts are encoded without [CLS] and [SEP], as with add_special_tokens=False.",
            "Put [CLS] before and [SEP] after each text.",
            lambda v: replace(v, special_tokens=False),
        ),
        *(
            Deviation(name, "text", what, remedy, described(options, pre_tokenizer))
            for name, what, remedy, options, pre_tokenizer in TOKENIZERS
        ),
        Deviation(
            "token ids one too high", "vocabulary",
            "Each token has the id after its own, as with a vocabulary that is counted from 1, or has one more line.",
            "Count the lines of vocab.txt from 0, and use the vocabulary of the model.",
            lambda v: replace(v, relabel=shifted),
        ),
        Deviation(
            "vocabulary in alphabetical order", "vocabulary",
            "Each token has the id of its place in the sorted vocabulary, as after the keys of a map were sorted.",
            "Use the ids of the model's vocab.txt or tokenizer.json.",
            lambda v: replace(v, relabel=alphabetical),
        ),
    ]  # fmt: skip


# ---- prompts ---------------------------------------------------------------------------------------------------------

PROMPTS = {
    "query: ": "the prefix of queries for E5 models",
    "passage: ": "the prefix of documents for E5 models",
    "search_query: ": "the prefix of queries for nomic-embed-text",
    "search_document: ": "the prefix of documents for nomic-embed-text",
    "clustering: ": "a prefix for nomic-embed-text",
    "classification: ": "a prefix for nomic-embed-text",
    "Represent this sentence for searching relevant passages: ": "the prefix of queries for English BGE models",
    "为这个句子生成表示以用于检索相关文章：": "the prefix of queries for Chinese BGE models",
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ":
        "the prefix of queries for instruction models such as multilingual-e5-large-instruct",
    "task: search result | query: ": "the prefix of queries for EmbeddingGemma",
    "title: none | text: ": "the prefix of documents for EmbeddingGemma",
}  # fmt: skip


def prompts() -> list[Deviation]:
    """Return the prompts of other models, put before every text."""
    return [
        Deviation(
            f"prompt {_shortened(prompt)!r}", "prompt",
            f"{_shortened(prompt)!r} is put before every text: this is {whose}.",
            "Encode the texts without a prompt: this model was trained without one.",
            lambda v, prompt=prompt: replace(v, prompt=prompt),  # type: ignore[misc]
        )
        for prompt, whose in PROMPTS.items()
    ]  # fmt: skip


def _shortened(prompt: str) -> str:
    return prompt if len(prompt) <= 30 else prompt[:27] + "..."


# ---- truncation and windows ------------------------------------------------------------------------------------------

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


def windows(windows: Windows, limit: int) -> Deviation:
    """Return the deviation that cuts texts into such parts. limit: the model's own number of tokens per text."""
    details = [
        "weighted by their tokens" if windows.weighted else "not weighted",
        "normalised before the mean" if windows.normalizes else "not normalised before the mean",
        *([] if windows.splits_words else ["no part ends inside a word"]),
    ]
    return Deviation(
        f"windows of {windows.size} tokens averaged{', weighted' if windows.weighted else ''}"
        f"{', normalised' if windows.normalizes else ''}{'' if windows.splits_words else ', words kept whole'}",
        "truncation",
        f"Longer texts are cut into parts of at most {windows.size} tokens, not counting [CLS] and [SEP]. The vector "
        f"is the mean of the parts' vectors ({'; '.join(details)}).",
        f"Truncate texts at {limit} tokens; or keep the windows, if you want vectors of complete texts.",
        lambda v: replace(v, windows=windows),
    )
