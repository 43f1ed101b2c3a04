"""Dropout whose masks are functions of where they are used: nothing is stored, any mask can be made again.

A counter-based generator turns (key, counter) into random words, with no state. Here the key is the seed and the place
in the model, and the counter is the place in the batch:

    key      seed, 4 layer + place
    counter  j, row, text, step                                  words 0 to 3, each 32 bits

A row of C columns takes Q = ceil(C / 4) blocks of four words: word w of block j is for column w Q + j, and what lies
beyond C is left out. An element is dropped if its word is below p 2^32; the others are divided by 1 - p, so that the
mean stays. The text is its number in the whole batch, so a batch has the same masks however it is cut into chunks, and
the backward pass has those of the forward pass.

Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (2011), section 3.3, Philox4x32-10; Srivastava et
al., Dropout (2014). The places are those of BertModel of transformers in train mode.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm_np._checks import check_int
from minilm_np.errors import InputTypeError, InputValueError
from minilm_np.reference import Array, Record, ignore

# Places in a layer; the embeddings count as a layer after the last.
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
    """Philox4x32-10: ten rounds, each of two 32 x 32 bit products whose halves are swapped and mixed with the key.

    counter: four arrays of uint64 that hold 32 bits each and broadcast together. key: two integers of 32 bits.
    Returns four arrays of uint64 below 2^32: random, and independent of those of any other counter or key.
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
    """All masks of one training step.

    seed, step: which masks, each from 0 to 2^32 - 1.
    hidden: the share of dropped elements, from 0 to below 1, of the embeddings and of both additions of a layer.
    attention: the share of dropped attention probabilities.

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
            if not 0 <= value < 1:  # nor is NaN
                raise InputValueError(f"dropout: {name}: expected a share from 0 to below 1, found {value}")

    def scale(self, place: int, layer: int, text: int, rows: int, columns: int, dtype: Any) -> Array:
        """The mask of one text at one place: (rows, columns) of 0 where dropped, else 1 / (1 - p).

        place, layer: ATTENTION, ATTENTION_OUTPUT or OUTPUT of this layer; or EMBEDDINGS, with the number of layers.
        text: the text's number in the batch.
        rows, columns: T and D; of attention probabilities H T and T, heads first.
        """
        share = self.attention if place == ATTENTION else self.hidden
        blocks = np.arange(-(-columns // 4), dtype=np.uint64)
        row = np.arange(rows, dtype=np.uint64)[:, None]
        text_and_step = (np.array(word, np.uint64) for word in (text, self.step))
        words = philox((blocks, row, *text_and_step), (self.seed, 4 * layer + place))
        kept = np.concatenate(words, axis=1)[:, :columns] >= math.floor(share * 2**32 + 0.5)
        return kept * np.dtype(dtype).type(1 / (1 - share))

    def hook(self, texts: Sequence[int], layers: int) -> Record:
        """The dropout of these texts, as the `record` of `reference.py`: multiplies by the mask where there is one.

        texts: the number in the batch of each text; they have one length, as a mask depends on it.
        layers: L.

        The gradient passes through the same multiplication, so the backward pass calls the same function.
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
    """The hook of a dropout, or of none."""
    return ignore if dropout is None else dropout.hook(texts, layers)
