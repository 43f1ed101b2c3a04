"""Test dropout: the generator against published answers, masks against scalar loops, and what a mask depends on."""

from typing import Any

import numpy as np
import pytest

from minilm_np import InputTypeError, InputValueError
from minilm_np.train.dropout import ATTENTION, ATTENTION_OUTPUT, EMBEDDINGS, OUTPUT, Dropout, dropping, philox
from tests.support.compare import assert_same_bits

# From kat_vectors of Random123, philox4x32 with 10 rounds: counter, key, answer.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_the_generator_gives_the_published_answers(counter: str, key: str, answer: str) -> None:
    k0, k1 = words(key)
    found = philox([np.array([word], np.uint64) for word in words(counter)], (k0, k1))
    assert [int(word[0]) for word in found] == words(answer)


def scalar_philox(counter: list[int], key: list[int]) -> list[int]:
    """The ten rounds on Python integers."""
    for _ in range(10):
        a, b = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [b // 2**32 ^ counter[1] ^ key[0], b % 2**32, a // 2**32 ^ counter[3] ^ key[1], a % 2**32]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return counter


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [1, 3, 4, 7, 16])
def test_a_mask_equals_the_scalar_loops(columns: int, dtype: Any) -> None:
    dropout = Dropout(seed=2**32 - 5, step=70, hidden=0.5, attention=0.25)
    for place, layer, share in (
        (ATTENTION, 2, 0.25),
        (OUTPUT, 0, 0.5),
        (ATTENTION_OUTPUT, 5, 0.5),
        (EMBEDDINGS, 6, 0.5),
    ):
        blocks = (columns + 3) // 4
        expected = np.zeros((5, columns), dtype)
        for row in range(5):
            for column in range(columns):
                drawn = scalar_philox([column % blocks, row, 11, 70], [2**32 - 5, 4 * layer + place])[column // blocks]
                if drawn >= share * 2**32:
                    expected[row, column] = dtype(1 / (1 - share))
        assert_same_bits(dropout.scale(place, layer, 11, 5, columns, dtype), expected)


def test_the_share_of_dropped_elements_is_p_and_the_mean_is_preserved() -> None:
    mask = Dropout(seed=1, step=1, hidden=0.1).scale(OUTPUT, 0, 0, 1000, 384, np.float32)
    dropped = (mask == 0).mean()
    assert abs(dropped - 0.1) < 4 * (0.1 * 0.9 / mask.size) ** 0.5  # four standard deviations
    assert set(np.unique(mask)) == {np.float32(0), np.float32(1 / 0.9)}
    assert abs((mask == 0).mean(axis=0) - 0.1).max() < 0.06  # in every column and row alike
    assert abs((mask == 0).mean(axis=1) - 0.1).max() < 0.1


def test_a_mask_depends_on_seed_step_layer_place_text_and_nothing_else() -> None:
    masks = {
        (seed, step, layer, place, text): Dropout(seed, step).scale(place, layer, text, 6, 40, np.float32).tobytes()
        for seed in (0, 1)
        for step in (0, 1)
        for layer in (0, 1)
        for place in (ATTENTION, ATTENTION_OUTPUT, OUTPUT)
        for text in (0, 1)
    }
    assert len(set(masks.values())) == len(masks)
    again = Dropout(1, 0).scale(OUTPUT, 1, 1, 3, 40, np.float32)
    assert again.tobytes() == masks[1, 0, 1, OUTPUT, 1][: again.nbytes]  # a row does not depend on the rows after it


def test_a_probability_of_zero_drops_nothing() -> None:
    mask = Dropout(0, 0, hidden=0.0).scale(OUTPUT, 0, 0, 40, 40, np.float32)
    assert_same_bits(mask, np.ones((40, 40), np.float32))


def test_the_hook_multiplies_at_the_four_places_only() -> None:
    dropout = Dropout(seed=3, step=4, hidden=0.3, attention=0.2)
    drop = dropout.hook([7, 2], layers=2)
    for name, place, layer, shape in (
        ("embeddings.LayerNorm", EMBEDDINGS, 2, (2, 5, 8)),
        ("encoder.layer.1.attention.self.probs", ATTENTION, 1, (2, 4, 5, 5)),
        ("encoder.layer.0.attention.output.dense", ATTENTION_OUTPUT, 0, (2, 5, 8)),
        ("encoder.layer.1.output.dense", OUTPUT, 1, (2, 5, 8)),
    ):
        x = np.random.default_rng(0).normal(size=shape)
        rows = x[0].size // shape[-1]
        masks = [dropout.scale(place, layer, text, rows, shape[-1], np.float64).reshape(shape[1:]) for text in (7, 2)]
        assert_same_bits(drop(name, x), x * np.stack(masks), name)
    for name in ("embeddings.word_embeddings", "encoder.layer.0.intermediate.dense", "encoder.layer.0.output.LayerNorm",
                 "encoder.layer.0.attention.self.scores", "pooling", "normalize"):  # fmt: skip
        assert drop(name, x) is x
    assert dropping(None, [0, 1], 2)("encoder.layer.1.output.dense", x) is x


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seed": 2**32}, InputValueError, "dropout: seed: expected an int from 0 to 4294967295, found 4294967296"),
        ({"seed": -1}, InputValueError, "dropout: seed: expected an int from 0 to .*, found -1"),
        ({"step": 0.5}, InputTypeError, "dropout: step: expected an int, found float"),
        ({"step": True}, InputTypeError, "dropout: step: expected an int, found bool"),
        ({"hidden": 1.0}, InputValueError, "dropout: hidden: expected a probability from 0 to below 1, found 1.0"),
        ({"attention": float("nan")}, InputValueError, "dropout: attention: expected a probability .*, found nan"),
        ({"attention": "0.1"}, InputTypeError, "dropout: attention: expected a float, found str"),
    ],
)
def test_refusals(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Dropout(**{"seed": 0, "step": 0, **options})
