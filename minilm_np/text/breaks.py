"""Where a long text may be cut, so that the tokens of its pieces, end to end, are those of the whole text.

A normalizer, a pre-tokenizer and added tokens can each join what stands on both sides of a position. So a tokenizer is
cut at positions for which the opposite is known:

- BERT's: before white space, punctuation and ideographs, each of which it makes a word.
- Tokenizers whose words end at white space, such as XLM-R's (Unigram with Metaspace), RoBERTa's (byte-level BPE) and
  MPNet's: before the first white space after a letter, a digit, a punctuation mark or a symbol.
- Any other tokenizer: nowhere. It gets each text as a whole.

A text without such a position is not cut either, however long it is.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from minilm_np.text.components import Component, steps_of

# Normalizers that change each character, or each cluster of a base and its marks, without regard to its neighbours.
_LOCAL = frozenset("BertNormalizer Lowercase NFC NFD NFKC NFKD Nmt Precompiled StripAccents".split())
# Pre-tokenizers that drop white space and split there.
_SPLIT_AT_SPACE = frozenset("BertPreTokenizer Whitespace WhitespaceSplit".split())
_SPACES = " \t\n\u3000"  # before which a text may be cut; a run of white space is never divided


class Breaks:
    """The positions at which texts may be cut for one tokenizer.

    spaces: the white space before which a word ends; "" for BERT's own tokenizer, which has a pattern for them.
    """

    def __init__(self, tokenizer: Tokenizer, spaces: str) -> None:
        self.are_berts = not spaces
        self._tokenizer = tokenizer
        self._spaces = spaces
        self._added = [token.content for token in _added_tokens(tokenizer)]

    def pieces(self, text: str, size: int) -> Iterator[str]:
        """Yield the pieces of a text: each is cut at the first allowed position after `size` characters."""
        pattern = re.compile(f"[{self._spaces}]") if self._spaces else bert_breaks()
        start = 0
        while start < len(text):
            positions = (match.start() for match in pattern.finditer(text, start + size))
            stop = next((position for position in positions if self._allows(text, position)), len(text))
            yield text[start:stop]
            start = stop

    def _allows(self, text: str, position: int) -> bool:
        """Whether a text may be cut before the character at a position, which matches the pattern."""
        if not self._spaces:
            return not any(_spans(text, position, token) for token in self._added)
        before, space = text[position - 1], text[position]
        if unicodedata.category(before)[0] not in "LNPS":  # also marks and invisible characters, which may be removed
            return False
        alone = self._normalized(before)
        return bool(alone.strip()) and self._normalized(before + space) == alone + self._normalized(space)

    def _normalized(self, text: str) -> str:
        return _normalized(self._tokenizer, text)


def breaks_of(tokenizer: Tokenizer) -> Breaks | None:
    """The positions at which texts may be cut for this tokenizer; None: it must get each text as a whole."""
    if _is_bert(tokenizer):
        return Breaks(tokenizer, "")
    spaces = _spaces(tokenizer)
    return Breaks(tokenizer, spaces) if spaces else None


def _is_bert(tokenizer: Tokenizer) -> bool:
    """Whether `bert_breaks` is valid for this tokenizer: BERT's own normalizer, pre-tokenizer and WordPiece.

    An added token that is matched in the normalised text, or that contains white space, could span a break.
    """
    return (
        isinstance(tokenizer.normalizer, normalizers.BertNormalizer)
        and tokenizer.normalizer.clean_text
        and tokenizer.normalizer.handle_chinese_chars
        and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and isinstance(tokenizer.model, models.WordPiece)
        and all(
            not (token.normalized or token.single_word) and not re.search(r"\s", token.content)
            for token in _added_tokens(tokenizer)
        )
    )


@functools.cache
def bert_breaks() -> re.Pattern[str]:
    """A pattern of the characters before which BERT always splits: white space, punctuation, ideographs.

    Always: next to any character, and without combining with the character before. Computed by calls of the
    library, whose Unicode tables differ from Python's.
    """
    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    found = ""
    for code in range(0x20000):
        character = chr(code)
        if unicodedata.category(character)[0] in "PZ" or (code < 0x80 and not character.isalnum()):
            words = splitter.pre_tokenize_str(normalizer.normalize_str(f"a{character}b"))
            if len(words) > 1 and unicodedata.combining(character) == 0:
                found += character
    return re.compile(f"[{re.escape(found)}\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df]")


def _spans(text: str, position: int, token: str) -> bool:
    """Whether an occurrence of `token` in `text` starts before `position` and ends after it."""
    return token in text[max(0, position - len(token) + 1) : position + len(token) - 1]


def _spaces(tokenizer: Tokenizer) -> str:
    """The white space before which every word ends; "" if there is none, or if something could join both sides.

    The first step of the pre-tokenizer must split at white space. The words of the right side must not depend on what
    is on the left: Metaspace and ByteLevel put a space before a text that has none, but a right side begins with one.
    """
    if tokenizer.pre_tokenizer is None:
        return ""
    first, *others = steps_of(tokenizer.pre_tokenizer)
    splits = first["type"] in _SPLIT_AT_SPACE or (not others and (first.get("split") or first.get("use_regex")))
    local = all(map(_is_local, steps_of(tokenizer.normalizer)))
    if not (splits and local and all(_is_inside_words(tokenizer, token) for token in _added_tokens(tokenizer))):
        return ""

    def words(text: str) -> list[str]:
        return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(_normalized(tokenizer, text))]

    found = (space for space in _SPACES if len(words(f"a{space}b")) > 1)
    return "".join(space for space in found if words(f"a{space}b") == words("a") + words(f"{space}b"))


def _is_local(step: Component) -> bool:
    """Whether a step of a normalizer cannot change one side of a break because of the other side."""
    if step["type"] != "Replace":
        return step["type"] in _LOCAL
    pattern = step["pattern"]
    # a run of spaces is on one side; a string without white space does not span a break
    return pattern == {"Regex": " {2,}"} or not re.search(r"\s", pattern.get("String", " "))


def _is_inside_words(tokenizer: Tokenizer, token: AddedToken) -> bool:
    """Whether an added token cannot span a break, or be found because of what is on its other side.

    `lstrip` takes white space on the left, which is on the side of the token; `rstrip` could take that after a break.
    """
    content = f"{token.content}{_normalized(tokenizer, token.content)}"
    return not (token.single_word or token.rstrip or re.search(r"\s", content))


def _added_tokens(tokenizer: Tokenizer) -> list[AddedToken]:
    return list(tokenizer.get_added_tokens_decoder().values())


def _normalized(tokenizer: Tokenizer, text: str) -> str:
    return text if tokenizer.normalizer is None else str(tokenizer.normalizer.normalize_str(text))
