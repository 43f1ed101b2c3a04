"""Deviations and variations, as data: what differs from the model. `varied_model.py` runs a variation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from minilm_np.model_files.config import ModelConfig
from minilm_np.reference import Array

Describe = Callable[[dict[str, Any]], dict[str, Any]]  # the content of a tokenizer.json -> that of another tokenizer
Make = Callable[[Any], Callable[..., Any]]  # an instance of reference.py -> a function for it
Reweigh = Callable[[str, Array], Array]  # name of a parameter, its float32 array -> another array

ALL = 2**31  # as the size of a batch: all texts


@dataclass(frozen=True)
class Padding:
    """A rule for the number of tokens to which each text is padded."""

    rule: Literal["none", "fixed", "multiple", "batch", "sorted batch"] = "none"
    number: int = 0  # fixed, multiple: of tokens; batch: of texts

    def lengths(self, own: Sequence[int], characters: Sequence[int], limit: int) -> list[int]:
        """Return the length of each text with its padding.

        own: the number of tokens of each text. characters: its length, by which `sorted batch` sorts (longest first).
        limit: the number of positions; no text is padded beyond it.
        """
        if self.rule == "none":
            return list(own)
        if self.rule in ("fixed", "multiple"):
            padded = [self.number if self.rule == "fixed" else -(-n // self.number) * self.number for n in own]
        else:
            order = list(range(len(own)))
            if self.rule == "sorted batch":
                order.sort(key=lambda row: -characters[row])
            padded = [0] * len(own)
            for start in range(0, len(order), self.number):
                batch = order[start : start + self.number]
                longest = max(own[row] for row in batch)
                for row in batch:
                    padded[row] = longest
        return [max(n, min(length, limit)) for n, length in zip(own, padded, strict=True)]


LONGEST = Padding("batch", ALL)  # as if all texts were one batch


@dataclass(frozen=True)
class Windows:
    """A text that is cut into parts, each encoded with [CLS] and [SEP]; the vector is the mean over the parts."""

    size: int  # tokens of a part, without [CLS] and [SEP]
    splits_words: bool = True  # a part may end inside a word
    weighted: bool = False  # by the number of tokens of each part, without [CLS] and [SEP]
    normalizes: bool = False  # each part's vector has unit length before the mean


@dataclass(frozen=True)
class Variation:
    """The model with its deviations. Everything else is as in the reference."""

    config: ModelConfig
    # from text to token ids
    tokenizer: tuple[Describe, ...] = ()
    relabel: Callable[[Sequence[str]], Array] | None = None  # the tokens by id -> the id that stands for each of them
    prompt: str = ""  # before every text
    special_tokens: bool = True  # [CLS] and [SEP] are added
    windows: Windows | None = None
    # inputs of the encoder
    padding: Padding = Padding()
    attends_to_padding: bool = False
    token_types: Literal["zeros", "ones", "mask"] = "zeros"  # mask: 1 for tokens, 0 for padding
    # the encoder
    functions: tuple[tuple[str, Make], ...] = ()  # name in reference.py, maker of the function
    weights: tuple[Reweigh, ...] = ()
    # from token vectors to one vector
    layers: tuple[int, ...] = (-1,)  # the mean of these hidden states
    pooling: str = ""  # one of `POOLINGS` in varied_model.py; "": the config's
    pools_padding: bool = False
    pools_special_tokens: bool = True

    def function(self, name: str) -> Make | None:
        """Return the maker that replaces a function of the reference; None if none does."""
        return dict(self.functions).get(name)


@dataclass(frozen=True)
class Deviation:
    """One known way to differ from the model. A pair never has two deviations of one kind."""

    name: str
    kind: str
    what: str  # one sentence: what is done, and which software does it
    remedy: str
    vary: Callable[[Variation], Variation]
    variant: Callable[[Variation], Variation] | None = None  # another way to do it, if implementations differ in detail
