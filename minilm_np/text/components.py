"""The components of a tokenizer.json that are accepted: those of the tokenizers of the BERT family.

A tokenizer.json may come from a stranger. The library `tokenizers` checks its structure, but accepts components that
give random ids, make a short text grow without bound, or fail only when a text is encoded. So a folder is refused,
with the name of the component, unless each of its components is in the tables below.
"""

import base64
import binascii
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from tokenizers import Tokenizer

from minilm_np._checks import one_of
from minilm_np.errors import TokenizerError

MAX_COMPONENTS = 100  # of a normalizer, pre-tokenizer or post-processor; published tokenizers have at most 10
MAX_WORD = 1000  # characters: WordPiece takes quadratic time in the length of a word; BERT's limit is 100
MAX_REPLACEMENT = 100  # bytes that a precompiled character map puts for one character; the longest of NFKC has 33

# A regular expression that takes linear time: one character or set of characters, which may be repeated.
_CHARACTER = r"(?:[^\\^$.|?*+()\[\]{}]|\\[nrtfvsSdDwW\\.^$|?*+()\[\]{}-]|\\[pP]\{\^?\w+\})"
_LINEAR = re.compile(rf"(?:{_CHARACTER}|\[\^?{_CHARACTER}+\])(?:\+|\{{[1-9]\d{{0,2}}(?:,\d{{0,3}})?\}})?")
# Others that published tokenizers contain, and that take linear time, too.
_KNOWN = (
    r"\s{2,}|[\n\r\t]",
    r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",  # CLIP
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
)

Component = dict[str, Any]
_Check = Callable[[Component], str | None]  # returns what is wrong with a component, or None


def check_components(tokenizer: Tokenizer, origin: str) -> None:
    """Check the components of a tokenizer that was read from the file `origin`. Raises TokenizerError, which names it.

    A normalizer that makes texts longer may occur once only, because a chain of them could do so without bound.
    """
    for kind, accepted in _ACCEPTED.items():
        steps = steps_of(getattr(tokenizer, kind))
        if len(steps) > MAX_COMPONENTS:
            raise TokenizerError(f"{origin}: {kind}: expected at most {MAX_COMPONENTS} components, found {len(steps)}")
        seen = set()
        for step in steps:
            name = step["type"]
            if name not in accepted:
                raise TokenizerError(f"{origin}: {kind} {name!r} is not supported: expected {one_of(accepted)}")
            if name in seen and name not in _REPEATABLE:
                raise TokenizerError(f"{origin}: {kind}: expected one {name}, found several")
            seen.add(name)
            check = accepted[name]
            if check and (problem := check(step)):
                raise TokenizerError(f"{origin}: {kind} {name}: {problem}")
    _check_model(tokenizer, origin)


def raise_named(error: BaseException, problem: str) -> NoReturn:
    """Raise an error of `tokenizers` as a TokenizerError, and any other as it is.

    problem: the message, which names the file. The library raises plain Exceptions and ValueErrors; where its Rust code
    panics, PanicException, which is neither.
    """
    if type(error) in (Exception, ValueError) or type(error).__name__ == "PanicException":
        raise TokenizerError(f"{problem}: {error}") from error
    raise error


def steps_of(component: Any) -> list[Component]:
    """The description of each step of a normalizer, a pre-tokenizer or a post-processor; [] for None."""
    return [] if component is None else list(_steps(json.loads(component.__getstate__())))


def _steps(component: Component) -> Iterator[Component]:
    """The component, or those of a Sequence, in order."""
    if component["type"] != "Sequence":
        yield component
        return
    for members in component.values():
        if isinstance(members, list):
            for member in members:
                yield from _steps(member)


def _check_model(tokenizer: Tokenizer, origin: str) -> None:
    model = tokenizer.model
    name = type(model).__name__
    if name not in _MODELS:
        raise TokenizerError(f"{origin}: model {name!r} is not supported: expected {one_of(_MODELS)}")
    if getattr(model, "dropout", None):
        raise TokenizerError(f"{origin}: model: dropout: expected null, found {model.dropout}: it makes ids random")
    if getattr(model, "max_input_chars_per_word", 0) > MAX_WORD:
        raise TokenizerError(
            f"{origin}: model: max_input_chars_per_word: expected at most {MAX_WORD}, found "
            f"{model.max_input_chars_per_word}"
        )
    private = map(chr, range(0xE000, 0xF900))  # characters without a meaning
    unknown = next((character for character in private if model.token_to_id(character) is None), None)
    if unknown is not None:
        try:
            model.tokenize(unknown)
        except BaseException as error:
            raise_named(
                error, f"{origin}: model: expected a token for unknown words, unk_token or unk_id, in the vocabulary"
            )


def _replacement(step: Component) -> str | None:
    """A replacement must not be longer than what it replaces, even after a compatibility decomposition."""
    pattern, content = step["pattern"], step["content"]
    if problem := _pattern(step):
        return problem
    longest = len(pattern["String"]) if "String" in pattern else 1
    if len(unicodedata.normalize("NFKD", content)) > longest:
        found = next(iter(pattern.values()))
        return f"expected a content that is not longer than its pattern, found {content!r:.80} for {found!r:.80}"
    return None


def _pattern(step: Component) -> str | None:
    regex = step["pattern"].get("Regex")
    if regex is None or regex in _KNOWN or _LINEAR.fullmatch(regex):
        return None
    return (
        f"the regular expression {regex!r:.80} is not supported: expected one character or set of characters, which "
        "may be repeated"
    )


def _prefix(step: Component) -> str | None:
    if len(step["prepend"]) > MAX_REPLACEMENT:
        return f"prepend: expected at most {MAX_REPLACEMENT} characters, found {len(step['prepend'])}"
    return None


def _character_map(step: Component) -> str | None:
    """SentencePiece's format: the size of a trie, the trie, and the replacements, each with a null byte at its end."""
    try:
        raw = base64.b64decode(step["precompiled_charsmap"], validate=True)
    except binascii.Error as error:
        return f"precompiled_charsmap: expected base64: {error}"
    replacements = raw[4 + int.from_bytes(raw[:4], "little") :].split(b"\0")
    longest = max(map(len, replacements))
    if longest > MAX_REPLACEMENT:
        return f"precompiled_charsmap: expected replacements of at most {MAX_REPLACEMENT} bytes, found {longest}"
    return None


def _template(step: Component) -> str | None:
    texts = [piece["Sequence"]["id"] for piece in step["single"] if "Sequence" in piece]
    if texts != ["A"]:
        return f"single: expected the text, $A, once, found {' and '.join('$' + text for text in texts) or 'no text'}"
    for piece in step["single"]:
        token = piece.get("SpecialToken", {}).get("id")
        if token is not None and token not in step["special_tokens"]:
            return f"single: the token {token!r:.80} is missing in special_tokens"
    return None


_MODELS = ("WordPiece", "Unigram", "BPE", "WordLevel")
_REPEATABLE = {"Replace", "Split", "Punctuation", "Digits"}
_ACCEPTED: dict[str, dict[str, _Check | None]] = {  # {part of the file: {type: a further check}}
    "normalizer": {
        "BertNormalizer": None,
        "ByteLevel": None,
        "Lowercase": None,
        "NFC": None,
        "NFD": None,
        "NFKC": None,
        "NFKD": None,
        "Nmt": None,
        "Precompiled": _character_map,
        "Prepend": _prefix,
        "Replace": _replacement,
        "Strip": None,
        "StripAccents": None,
    },
    "pre_tokenizer": {
        "BertPreTokenizer": None,
        "ByteLevel": None,
        "CharDelimiterSplit": None,
        "Digits": None,
        "Metaspace": None,
        "Punctuation": None,
        "Split": _pattern,
        "UnicodeScripts": None,
        "Whitespace": None,
        "WhitespaceSplit": None,
    },
    "post_processor": {
        "BertProcessing": None,
        "ByteLevel": None,
        "RobertaProcessing": None,
        "TemplateProcessing": _template,
    },
}
