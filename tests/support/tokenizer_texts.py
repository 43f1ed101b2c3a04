"""Texts for the tests of the tokenizer: hostile fragments, and batches of short and long texts."""

import random

from hypothesis import strategies as st

from minilm_np.text.tokenizer import PIECE

# special tokens, complete and broken, as a user may type them
TYPED = ["[SEP]", "[PAD]", "[MASK]", "[CLS]", "[UNK]", "[SE", "[SEP", "SEP]", "[[SEP]]", "[sep]", "[CLS][SEP]", "##ing"]
# what texts consist of, and what the rules of the tokenizer are about
SPECIMENS = [
    *(" ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u2003", "\u3000", "\u200b", "\u200d", "\ufeff", "\u2028", "\u0085"),
    *("\x00", "\x07", "\x1b", "\x7f", "\ufffd", "\u00ad", "\ufe0f", "\U000e0041"),
    *("\u0301", "e\u0301", "a\u0323\u0301", "\u0345", "\u3099", "か\u3099", "\u20dd", "\u0338", "!\u0301", " \u0308"),
    *("中文", "漢字かな交じり", "\uf900", "\U00020000", "\U0002f800", "한국어", "각", "ᄒ", "ᅡ", "ᆫ"),
    *"👩‍👩‍👧 🏳️‍🌈 👍🏽 🇩🇪 שלום مرحبا \u202e ไทย हिन्दी ﬁ ß İ ſ Σς Ǆ ½ ²".split(),
    *("the", "Hello", "naïve", "unaffable", "embeddings", "1,000.50", "don't", "a-b", "https://x.org/?q=1&r=2", "..."),
    *("a" * 99, "a" * 100, "a" * 101, "€", "$", "^", "`", "~", "«", "„", "—", "·", ";", "¿", "٪", "。"),
]


# every plane but the surrogates
characters = st.characters(exclude_categories=["Cs"])
fragments = st.sampled_from(TYPED + SPECIMENS)
texts = st.lists(fragments | st.text(characters, max_size=8), max_size=20).map("".join)
long_texts = st.lists(fragments | st.text(characters, max_size=12), min_size=10, max_size=60).map("".join)


def mixed_texts(seed: int) -> list[str]:
    """Texts of 0 to 20,000 characters, no two alike."""
    generator = random.Random(seed)
    lengths = [0, 1, 10, 100, PIECE - 1, PIECE, PIECE + 1, 20_000] * 2
    generator.shuffle(lengths)
    return ["".join(generator.choices("abc def.!", k=length)) for length in lengths]
