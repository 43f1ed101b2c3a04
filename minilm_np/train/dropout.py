"""Dropout with masks that are functions of the place where they apply: none is stored, each can be computed again.

A counter-based generator maps (key, counter) to random words and has no state. Here the key holds the seed and the
place in the model, and the counter holds the place in the batch:

    key      seed, 4 layer + place
    counter  j, row, text, step                                  words 0 to 3, 32 bits each

A row of C columns uses Q = ceil(C / 4) blocks of four words. Word w of block j belongs to column w Q + j; words beyond
column C are unused. An element is dropped if its word is below p 2^32. The others are divided by 1 - p, which preserves
the mean. `text` is the number of the text in the whole batch. So the masks of a batch do not depend on how it is split
into chunks, and the backward pass has the same masks as the forward pass.

Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (2011), section 3.3, Philox4x32-10; Srivastava et
al., Dropout (2014). The places are those of BertModel of transformers in training mode.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from minilm_np._checks import check_int
from minilm_np.errors import InputTypeError, InputValueError
from minilm_np.reference import Array, Record, ignore

# The places of dropout in a layer. The embeddings count as one more layer, after the last.
ATTENTION, ATTENTION_OUTPUT, OUTPUT, EMBEDDINGS = 0, 1, 2, 3

_PLACES = {
    "attention.self.probs": ATTENTION,
    "attention.output.dense": ATTENTION_OUTPUT,
    "output.dense": OUTPUT,
}

_LOW = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # the golden ratio, and sqrt(3) - 1


def philox(counter: Sequence[Array], key: tuple[int, int]) -> tuple[Array, Array, Array, Array]:
    """Philox4x32-10: random words from a counter and a key.

    Each of the ten rounds takes two products of 32 by 32 bits, swaps their halves, and mixes them with the key.

    counter: four arrays of uint64 with values of 32 bits, which broadcast together. key: two integers of 32 bits.
    Returns four arrays of uint64 below 2^32. They are random, and independent of those of any other counter or key.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product2 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (product2 >> 32) ^ c1 ^ k0, product2 & _LOW, (product0 >> 32) ^ c3 ^ k1, product0 & _LOW
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW, (k1 + _KEY_STEPS[1]) & _LOW
    return c0, c1, c2, c3


@dataclass(frozen=True)
class Dropout:
    """All dropout masks of one training step.

    seed, step: what the masks are computed from; each from 0 to 2^32 - 1.
    hidden: the probability that an element is dropped, from 0 to below 1, in the embeddings and before both residual
        additions of each layer.
    attention: the same for attention probabilities.

    Raises InputTypeError, InputValueError.
    """

    seed: int
    step: int
    hidden: float = 0.1
    attention: float = 0.1

    def __post_init__(self) -> None:
        for name in ("seed", "step"):
            number = check_int(f"dropout: {name}", getattr(self, name), 0, 2**32 - 1)
            object.__setattr__(self, name, number)  # an int of NumPy would turn uint64 into float64
        for name in ("hidden", "attention"):
            value = getattr(self, name)
            if type(value) not in (int, float):
                raise InputTypeError(f"dropout: {name}: expected a float, found {type(value).__name__}")
            if not 0 <= value < 1:  # NaN is refused, too
                raise InputValueError(f"dropout: {name}: expected a probability from 0 to below 1, found {value}")

    def scale(self, place: int, layer: int, text: int, rows: int, columns: int, dtype: DTypeLike) -> Array:
        """The mask of one text at one place, (rows, columns): 0 for dropped elements, 1 / (1 - p) for the others.

        place, layer: ATTENTION, ATTENTION_OUTPUT or OUTPUT of a layer; or EMBEDDINGS, with layer = L.
        text: the number of the text in the batch.
        rows, columns: T and D; for attention probabilities H T (heads first) and T.
        """
        p = self.attention if place == ATTENTION else self.hidden
        blocks = np.arange(-(-columns // 4), dtype=np.uint64)
        row = np.arange(rows, dtype=np.uint64)[:, None]
        text_and_step = (np.array(word, np.uint64) for word in (text, self.step))
        words = philox((blocks, row, *text_and_step), (self.seed, 4 * layer + place))
        kept = np.concatenate(words, axis=1)[:, :columns] >= math.floor(p * 2**32 + 0.5)
        return kept * np.array(1 / (1 - p), dtype)

    def hook(self, texts: Sequence[int], layers: int) -> Record:
        """The dropout of some texts as a `record` for `reference.py`: it multiplies by a mask at the places of dropout.

        texts: the numbers of the texts in the batch. All texts have the same length, because a mask depends on it.
        layers: L.

        The backward pass multiplies gradients by the same masks, through the same function.
        """

        def drop(name: str, x: Array) -> Array:  # (T, D), (B, T, D), (H, T, T) or (B, H, T, T) -> the same
            if name == "embeddings.LayerNorm":
                place, layer = EMBEDDINGS, layers
            else:
                _, _, path = name.partition("encoder.layer.")
                number, _, inner = path.partition(".")
                if inner not in _PLACES:
                    return x
                place, layer = _PLACES[inner], int(number)
            columns = x.shape[-1]
            rows = x.size // (len(texts) * columns)
            masks = [self.scale(place, layer, text, rows, columns, x.dtype) for text in texts]
            return x * np.concatenate(masks).reshape(x.shape)

        return drop


def dropping(dropout: Dropout | None, texts: Sequence[int], layers: int) -> Record:
    """The hook of `dropout`, or `ignore` if that is None."""
    return ignore if dropout is None else dropout.hook(texts, layers)
