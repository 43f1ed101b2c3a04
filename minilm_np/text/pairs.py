"""Pairs of texts to token ids and token types, without padding: [CLS] a [SEP] b [SEP], of types 0 and 1.

A pair that is too long loses tokens at the end of the longer text first, as in sentence-transformers ("longest_first").
The library `tokenizers` does that too, but it would make an encoding of every combination of the two remainders, whose
number grows with the square of the lengths. So here each text is tokenized alone, up to the limit, and the special
tokens are put around them.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from minilm_np.errors import TokenizerError
from minilm_np.text.tokenizer import TextTokenizer


@dataclass(frozen=True)
class TokenizedPairs:
    """The token ids and the token types of B pairs, without padding."""

    ids: list[list[int]]
    token_type_ids: list[list[int]]
    truncated: list[bool]  # whether the pair was longer than the limit
    lengths: list[tuple[int, int]]  # the used tokens of the first text and of the second one


class PairTokenizer:
    """A `TextTokenizer` for pairs of texts. It does not change after its creation, so threads may share it.

    n_special: the number of special tokens of a pair.
    Raises TokenizerError: the tokenizer has no template for pairs, or the limit is less than `n_special`.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.texts = tokenizer
        probe = tokenizer.pair_encoding("a", "b")
        a, b, pair = probe or (None, None, None)
        places = [place for place, is_special in enumerate(pair.special_tokens_mask) if not is_special] if pair else []
        if not (a and b and pair and a.ids and b.ids and [pair.ids[place] for place in places] == a.ids + b.ids):
            raise TokenizerError(
                f"{tokenizer.origin}: post_processor: expected a template for pairs of texts, such as [CLS] $A [SEP] "
                "$B [SEP], found none: use the tokenizer of a cross-encoder"
            )
        start_a, start_b = places[0], places[len(a.ids)]
        parts = slice(0, start_a), slice(start_a + len(a.ids), start_b), slice(start_b + len(b.ids), None)
        self._before, self._between, self._after = (pair.ids[part] for part in parts)
        self._types = tuple(pair.type_ids[part] for part in parts)
        self._type_a, self._type_b = pair.type_ids[start_a], pair.type_ids[start_b]
        self.n_special = len(self._before + self._between + self._after)
        self._room = tokenizer.limit - self.n_special
        if self._room < 0:
            raise TokenizerError(
                f"{tokenizer.origin}: expected at most {tokenizer.limit} special tokens per pair, the model's "
                f"max_seq_length, found {self.n_special}"
            )

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> TokenizedPairs:
        """Tokenize pairs; truncate each to max_seq_length tokens. The texts are expected to be from `check_texts`.

        Raises TokenizerError: the tokenizer's file is broken.
        """
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))  # a query occurs once per document
        contents = dict(zip(texts, self.texts.contents(texts), strict=True))
        length = functools.cache(lambda text: self.texts.measure(text)[0])  # reads the text to its end
        found = TokenizedPairs([], [], [], [])
        for a, b in pairs:
            (ids_a, more_a), (ids_b, more_b) = contents[a], contents[b]
            sizes = len(ids_a) + more_a, len(ids_b) + more_b
            if more_a and more_b:  # which of them is longer decides which of them gets an odd token
                sizes = length(a), length(b)
            used_a, used_b = longest_first(*sizes, self._room)
            found.ids.append(self._before + ids_a[:used_a] + self._between + ids_b[:used_b] + self._after)
            before, between, after = self._types
            found.token_type_ids.append(before + [self._type_a] * used_a + between + [self._type_b] * used_b + after)
            found.truncated.append((used_a, used_b) != sizes)
            found.lengths.append((used_a, used_b))
        return found

    def measure(self, a: str, b: str) -> int:
        """Return the number of tokens of a pair, special tokens included, however long it is."""
        of_one = len(self.texts.before) + len(self.texts.after)
        return self.texts.measure(a)[0] + self.texts.measure(b)[0] - 2 * of_one + self.n_special

    def segments(self, n_first: int, n_second: int) -> list[str]:
        """Return where each token of a pair of such lengths comes from: "first", "second" or "special"."""
        before, between, after = (["special"] * len(part) for part in (self._before, self._between, self._after))
        return before + ["first"] * n_first + between + ["second"] * n_second + after


def longest_first(n_first: int, n_second: int, room: int) -> tuple[int, int]:
    """How many tokens of two texts are used if together they may have `room`, by the rule of `tokenizers`.

    The longer text is shortened to the length of the other, then both to one half. Of an odd number of tokens, the
    longer text has one more; the second text if both have the same length.
    """
    if n_first + n_second <= room:
        return n_first, n_second
    short = min(n_first, n_second)
    long = max(short, room - short)
    if short + long > room:
        short, long = room // 2, room // 2 + room % 2
    return (long, short) if n_first > n_second else (short, long)
