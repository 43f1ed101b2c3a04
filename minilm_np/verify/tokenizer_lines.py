"""Lines drawn over Unicode, whose token ids tell tokenizers apart; a conformance file contains them.

The tokenizer uses the tables of Unicode 8. All later versions agree with it about the characters here: most are those
that Unicode 3.2 assigned and whose general category has not changed since. So a port with newer tables still conforms.
"""

import random
import unicodedata
from functools import cache

LINES = 2000
SEED = 1

# Characters that a tokenizer treats in a special way, or does not, although one would expect it.
SPECIAL = (
    "\0\t\n\r\x0b\x0c\x1c\x7f\x85\xa0\xad\u1680\u2000\u200b\u200d\u2028\u2029\u202f\u205f\u2060\u3000\ue000\ufeff\ufffd"
    "$+<=>^`|~!-_'\"«¿·§¶†…€№™ΑΣσςßİIıŒﬁǅÅéẼ̃⒈½²٣३\u3005\u3007\u2e80\u2f00\u3400\u4dbf\u4e00\u9fff\uf900가힣か゛ガｶﾞ、。！"
    "\U00020000\U0002a6d6\U0002f800"
)
WORDS = (
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[UNK]",
    "[PAD]",
    "[sep]",
    "[ SEP ]",
    "the",
    "ing",
    "##ing",
    "don't",
    "naïve",
    "ΟΔΟΣ",
)


def tokenizer_lines() -> list[str]:
    """Return the lines, all different; they are the same on every machine."""
    draw = random.Random(SEED)
    groups = _characters()
    names = sorted(groups)
    lines: dict[str, None] = {}
    while len(lines) < LINES:
        parts = []
        for _ in range(draw.randint(1, 12)):
            kind = draw.random()
            if kind < 0.25:
                parts.append(draw.choice(SPECIAL))
            elif kind < 0.4:
                parts.append(draw.choice(WORDS))
            elif kind < 0.6:
                parts.append(draw.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 "))
            else:
                parts.append(draw.choice(groups[draw.choice(names)]))
        lines["".join(parts)] = None
    return list(lines)


@cache
def _characters() -> dict[str, str]:
    """Return the characters of each general category, in order; CJK ideographs and Hangul fill `Lo` only partly."""
    old = unicodedata.ucd_3_2_0
    groups: dict[str, list[str]] = {}
    for code in range(0x30000):
        character = chr(code)
        category = old.category(character)
        large = 0x3400 <= code < 0xA000 or 0xAC00 <= code < 0xD7A4 or code >= 0x20000
        if category in ("Cn", "Cs", "Co") or category != unicodedata.category(character) or (large and code % 61):
            continue
        groups.setdefault(category, []).append(character)
    return {category: "".join(characters) for category, characters in groups.items()}
