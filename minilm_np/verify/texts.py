"""The built-in texts, on which implementations are compared by default: usual texts, and texts that cause errors."""

from itertools import cycle, islice
from string import ascii_lowercase

from minilm_np.sentence_encoder import SentenceEncoder

PARAGRAPH = (
    "The old lighthouse keeper climbed the stairs twice a day, at dusk to light the lamp and at dawn to put it out. "
    "Ships that passed in the night never saw him; they saw the beam, counted the seconds between two flashes, and "
    "knew by that number which rock they were about to miss. He had done the sum once: in thirty-one years, some "
    "22,600 flights of stairs. "
)

TEXTS = (
    ("one word", "hello"),
    ("a sentence", "This is an example sentence"),
    ("a question", "How many people live in Berlin?"),
    ("a paragraph", PARAGRAPH),
    ("upper case", "NASA LAUNCHES ANOTHER ROCKET TO THE MOON"),
    ("numbers", "On 2024-02-29 at 23:59:59.999 the price was $1,234,567.89 (-3.5 %)."),
    ("accents", "Crème brûlée, naïve façade, Ångström, señor, Łódź, Straße, İstanbul"),
    ("combining marks", "e\u0301cole A\u030angstro\u0308m n\u0303 q\u0323\u0307 a\u0300\u0301\u0302\u0303"),
    ("Chinese, Japanese, Korean", "我喜欢机器学习。東京タワーは高いです。서울은 대한민국의 수도이다."),
    ("emoji", "great 👍🏽 family 👨‍👩‍👧‍👦 flag 🇩🇪 heart ❤️ 🤖"),
    ("right to left", "שלום עולם, مرحبا بالعالم ١٢٣"),
    ("Greek, Cyrillic, Devanagari", "Ὀδυσσεύς Война и мир नमस्ते दुनिया"),
    ("wide and stylised letters", "ｆｕｌｌ ｗｉｄｔｈ ﬁne 𝓈𝒸𝓇𝒾𝓅𝓉 ①②③ ½ ℃"),
    ("empty", ""),
    ("white space", " \t\r\n \u00a0\u3000 "),
    ("control characters", "a\x00b\x07c\u200bd\ufeffe\ufffdf\u00adg"),
    (
        "characters that tokenizers confuse",
        "one\ttwo\nthree ΟΔΥΣΣΕΥΣ 佐々木 \u2f00 \ue000 \U0002b820 so\u00adft $1<2^3`|~",
    ),
    ("punctuation", "?!... --- «quotes» “and” ‘more’ (brackets) [x] {y} a/b\\c #tag @user e-mail@example.org"),
    ("repeated words", "buffalo " * 40),
    ("repeated punctuation", "!" * 60),
    ("special tokens typed by hand", "[CLS] a [SEP] b [MASK] [PAD] [UNK] [sep]"),
    ("a word of 100 characters", "a" * 100),
    ("a word of 101 characters", "a" * 101),
    ("source code", "def f(x: int) -> int:\n\treturn x**2 if x >= 0 else -x  # <html>&amp;</html>"),
)


def built_in_texts(encoder: SentenceEncoder) -> list[tuple[str, str]]:
    """Return (label, text) pairs; the longest texts depend on the encoder's limit."""
    room = encoder.max_seq_length - len(encoder.tokenizer([""]).ids[0])
    return [
        *TEXTS,
        ("one under the limit", words(room - 1)),
        ("at the limit", words(room)),
        ("one over the limit", words(room + 1)),
        ("far over the limit", PARAGRAPH * (2 + encoder.max_seq_length // 40)),
    ]


def words(count: int) -> str:
    """Return words of one letter; each is one token in every vocabulary of the family."""
    return " ".join(islice(cycle(ascii_lowercase), max(0, count)))
