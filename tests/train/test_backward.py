"""Test every gradient of `backward.py` against torch autograd in float64, and against central differences."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minilm_np import InputTypeError, InputValueError, ModelConfig, SentenceEncoder, reference
from minilm_np.model_files.checkpoint import parameter_shapes
from minilm_np.model_files.config import POOLING_MODES
from minilm_np.train import backward as b
from minilm_np.train.backward import ReferenceTrainingEngine
from minilm_np.train.dropout import ATTENTION, ATTENTION_OUTPUT, EMBEDDINGS, OUTPUT, Dropout
from tests.support.compare import assert_close, assert_same_bits
from tests.support.models import living_weights, ragged_ids, small_configs, torch_model

BOUND = 1e-9  # of the error of each parameter's gradient, relative to its largest number, in float64
# A gradient smaller than this share of the largest gradient of any parameter is compared as if it were that large.
FLOOR = 1e-5

SMALL = ModelConfig(
    vocab_size=13, max_position_embeddings=9, hidden_size=12, num_hidden_layers=2, num_attention_heads=3,
    intermediate_size=10, max_seq_length=9,
)  # fmt: skip
TEXTS = [[1, 2, 3, 3, 2, 12], [4], [0, 5, 1], [7, 7, 9], [3, 1, 4, 1, 5, 9, 2, 6, 5]]


def assert_gradients_close(
    found: dict[str, Any], expected: dict[str, Any], rel: float = BOUND, floor: float = FLOOR
) -> None:
    assert found.keys() == expected.keys()
    largest = max(np.abs(array).max() for array in expected.values())
    for name, array in expected.items():
        scale = max(np.abs(array).max(), floor * largest)
        assert_close(found[name], array, abs_=rel * scale, what=name)


# ---- torch -----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Use one thread in torch: on small arrays, its threads mostly wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def masks_in_torchs_order(dropout: Dropout, text: int, T: int, config: ModelConfig) -> Iterator[np.ndarray]:
    """Yield the masks of one text in the order in which BertModel applies dropout."""
    D, H, L = config.hidden_size, config.num_attention_heads, config.num_hidden_layers
    yield dropout.scale(EMBEDDINGS, L, text, T, D, np.float64)
    for layer in range(L):
        yield dropout.scale(ATTENTION, layer, text, H * T, T, np.float64).reshape(H, T, T)
        yield dropout.scale(ATTENTION_OUTPUT, layer, text, T, D, np.float64)
        yield dropout.scale(OUTPUT, layer, text, T, D, np.float64)


def torch_gradients(
    config: ModelConfig, weights: dict[str, np.ndarray], texts: list[list[int]], d_vectors: np.ndarray,
    dropout: Dropout | None,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:  # fmt: skip
    """Vectors, and gradients of sum(d_vectors * vectors), from BertModel, Pooling and Normalize, with our masks."""
    import torch
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    model = torch_model(config, weights)
    model.embeddings.word_embeddings.padding_idx = None  # or the gradient of id 0 would be 0
    pooling, normalize = Pooling(config.hidden_size, config.pooling_mode), Normalize()
    model.train(dropout is not None)
    vectors = []
    for number, text in enumerate(texts):
        masks = iter(masks_in_torchs_order(dropout, number, len(text), config)) if dropout else iter(())

        def drop(x: Any, *options: Any, masks: Any = masks, **more: Any) -> Any:
            if not dropout:
                return x
            mask = torch.from_numpy(next(masks))
            assert x.shape[1:] == mask.shape
            return x * mask

        ones = torch.ones(1, len(text), dtype=torch.long)
        with mock.patch("torch.nn.functional.dropout", drop):
            states = model(torch.tensor([text]), ones).last_hidden_state
        assert next(masks, None) is None
        features = pooling({"token_embeddings": states, "attention_mask": ones})
        vector = (normalize(features) if config.normalize else features)["sentence_embedding"][0]
        (vector * torch.from_numpy(d_vectors[number])).sum().backward()
        vectors.append(vector.detach().numpy())
    parameters = dict(model.named_parameters())
    return np.array(vectors), {name: parameters[name].grad.numpy() for name in weights}


@given(st.data())
@settings(max_examples=60)
def test_every_gradient_equals_torch_autograd(data: st.DataObject) -> None:
    config = data.draw(small_configs())
    assume(config.hidden_size >= 6)  # LayerNorm of two numbers is +-1: ties in max pooling, and gradients of zero
    texts = data.draw(ragged_ids(config, max_texts=5))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    weights = living_weights(config, data.draw(st.integers(0, 2**32)))
    hidden, attention = data.draw(st.sampled_from([(0.1, 0.1), (0.5, 0.0), (0.0, 0.4)]))
    dropout = data.draw(
        st.none() | st.builds(Dropout, *[st.integers(0, 2**32 - 1)] * 2, st.just(hidden), st.just(attention))
    )
    d_vectors = generator.normal(size=(len(texts), config.hidden_size))

    engine = ReferenceTrainingEngine(config, weights, chunk_tokens=data.draw(st.integers(1, 40)))
    vectors, expected = torch_gradients(config, weights, texts, d_vectors, dropout)
    assert_close(engine.forward(texts, dropout), vectors, rel=1e-10)
    assert_gradients_close(engine.backward(texts, d_vectors, dropout), expected)


@pytest.mark.weights
def test_every_gradient_of_the_published_model_equals_torch_autograd(published: SentenceEncoder) -> None:
    weights = {name: array.astype(np.float64) for name, array in published.weights.items()}
    texts = published.tokenizer(["This is an example sentence", "Each sentence is converted, and then some."]).ids
    d_vectors = np.random.default_rng(0).normal(size=(2, 384))
    dropout = Dropout(seed=5, step=6)
    vectors, expected = torch_gradients(published.config, weights, texts, d_vectors, dropout)
    engine = ReferenceTrainingEngine(published.config, weights)
    assert_close(engine.forward(texts, dropout), vectors, rel=1e-11)
    found = engine.backward(texts, d_vectors, dropout)
    assert_gradients_close(found, expected)

    single = ReferenceTrainingEngine(published.config, dict(published.weights))
    gradients = single.backward(texts, d_vectors.astype(np.float32), dropout)
    assert {array.dtype for array in gradients.values()} == {np.dtype(np.float32)}
    assert_gradients_close(gradients, found, rel=1e-4, floor=1e-3)


# ---- central differences ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [None, Dropout(seed=1, step=2, hidden=0.2, attention=0.3)])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling_mode", POOLING_MODES)
def test_every_gradient_equals_central_differences(pooling_mode: str, normalize: bool, dropout: Dropout | None) -> None:
    config = replace(SMALL, pooling_mode=pooling_mode, normalize=normalize)
    weights = living_weights(config, seed=3)
    generator = np.random.default_rng(4)
    d_vectors = generator.normal(size=(len(TEXTS), config.hidden_size))
    gradients = ReferenceTrainingEngine(config, weights).backward(TEXTS, d_vectors, dropout)
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        direction, step = generator.normal(size=gradient.shape), 1e-5
        losses = []
        for sign in (1, -1):
            moved = weights | {name: weights[name] + sign * step * direction}
            losses.append((d_vectors * ReferenceTrainingEngine(config, moved).forward(TEXTS, dropout)).sum())
        difference = (losses[0] - losses[1]) / (2 * step)
        scale = max(np.linalg.norm(gradient), largest)
        assert_close(np.array((gradient * direction).sum()), np.array(difference), abs_=1e-7 * scale, what=name)


def difference_of(function: Any, x: np.ndarray, d_y: np.ndarray) -> np.ndarray:
    """The gradient of sum(d_y * function(x)) by central differences, one element at a time."""
    gradient = np.empty_like(x)
    for place in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[place] += 1e-5
        down[place] -= 1e-5
        gradient[place] = (d_y * (function(up) - function(down))).sum() / 2e-5
    return gradient


def test_each_function_alone_equals_central_differences() -> None:
    generator = np.random.default_rng(0)
    x, d_y = generator.normal(size=(2, 3, 8)), generator.normal(size=(2, 3, 8))
    weight, bias, square = generator.normal(size=8), generator.normal(size=8), generator.normal(size=(8, 8))
    pooled = generator.normal(size=(2, 8))
    mask = np.array([[True, True, False], [True, True, True]])
    for name, found, function, d in (
        ("erf", b.erf_backward(d_y, x), reference.erf, d_y),
        ("gelu", b.gelu_backward(d_y, x), reference.gelu, d_y),
        ("softmax", b.softmax_backward(d_y, reference.softmax(x)), reference.softmax, d_y),
        ("layer_norm", b.layer_norm_backward(d_y, x, weight, 1e-5)[0],
         lambda x: reference.layer_norm(x, weight, bias, 1e-5), d_y),
        ("linear", b.linear_backward(d_y, x, square)[0], lambda x: reference.linear(x, square, bias), d_y),
        ("normalize", b.normalize_backward(d_y, x), reference.normalize, d_y),
        *((mode, b.pooling_backward(pooled, x, mask, mode), lambda x, m=mode: reference.pooling(x, mask, m), pooled)
          for mode in POOLING_MODES),
    ):  # fmt: skip
        assert_close(found, difference_of(function, x, d), abs_=1e-8, what=name)


# ---- the engine ------------------------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=30)
def test_a_gradient_in_chunks_equals_the_unchunked_one(data: st.DataObject) -> None:
    texts = data.draw(ragged_ids(SMALL, max_texts=8))
    dropout = data.draw(st.sampled_from([None, Dropout(seed=8, step=1, hidden=0.3, attention=0.3)]))
    weights = living_weights(SMALL, 1)
    d_vectors = np.random.default_rng(2).normal(size=(len(texts), SMALL.hidden_size))
    whole = ReferenceTrainingEngine(SMALL, weights, chunk_tokens=10**6)
    chunked = ReferenceTrainingEngine(SMALL, weights, chunk_tokens=data.draw(st.integers(1, 30)))
    assert_close(chunked.forward(texts, dropout), whole.forward(texts, dropout), rel=1e-12)
    assert_gradients_close(
        chunked.backward(texts, d_vectors, dropout), whole.backward(texts, d_vectors, dropout), rel=1e-11
    )


def test_a_padded_batch_gives_the_gradients_of_its_texts() -> None:
    for pooling_mode in POOLING_MODES:
        config = replace(SMALL, pooling_mode=pooling_mode)
        weights = living_weights(config, 6)
        d_vectors = np.random.default_rng(7).normal(size=(len(TEXTS), config.hidden_size))
        ids = np.array([text + [11] * (9 - len(text)) for text in TEXTS])
        mask = np.arange(9) < np.array([[len(text)] for text in TEXTS])
        nested = reference.nest(weights, np.float64)
        _, saved = b.forward_saving(ids, nested, config, mask=mask)
        found = b.backward(d_vectors, saved, ids, nested, config, mask=mask)
        engine = ReferenceTrainingEngine(config, weights)
        assert_gradients_close(found, engine.backward(TEXTS, d_vectors), rel=1e-11)
        assert not found["embeddings.word_embeddings.weight"][11].any()  # the padding's row


def test_token_types_get_their_gradients() -> None:
    nested = reference.nest(living_weights(SMALL, 6), np.float64)
    ids, types = np.array(TEXTS[0]), np.array([0, 0, 0, 1, 1, 1])
    _, saved = b.forward_saving(ids, nested, SMALL, token_type_ids=types)
    d_vector = np.ones(SMALL.hidden_size)
    tables = b.backward(d_vector, saved, ids, nested, SMALL, token_type_ids=types)
    position = tables["embeddings.position_embeddings.weight"]
    assert_close(
        tables["embeddings.token_type_embeddings.weight"],
        np.array([position[:3].sum(axis=0), position[3:6].sum(axis=0)]),
        rel=1e-12,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_names_and_shapes_are_those_of_the_weights(dtype: Any) -> None:
    for pooling_mode in POOLING_MODES:
        config = replace(SMALL, pooling_mode=pooling_mode)
        weights = {name: array.astype(dtype) for name, array in living_weights(config, 0).items()}
        engine = ReferenceTrainingEngine(config, weights | {"pooler.dense.bias": np.zeros(12)})
        vectors = engine.forward(TEXTS, Dropout(0, 0))
        assert vectors.dtype == dtype
        gradients = engine.backward(TEXTS, vectors, Dropout(0, 0))
        assert {name: array.shape for name, array in gradients.items()} == parameter_shapes(config)
        assert {array.dtype for array in gradients.values()} == {np.dtype(dtype)}


def test_the_engine_uses_changed_weights() -> None:
    weights = living_weights(SMALL, 0)
    engine = ReferenceTrainingEngine(SMALL, weights)
    before = engine.forward(TEXTS)
    assert_close(before, reference.encode_ragged(TEXTS, reference.nest(weights, np.float64), SMALL), rel=1e-13)
    weights["encoder.layer.0.output.dense.weight"] *= 1.5
    engine.refresh()
    after = engine.forward(TEXTS)
    assert_same_bits(after, ReferenceTrainingEngine(SMALL, weights).forward(TEXTS))
    assert np.abs(after - before).max() > 0.01


def test_the_gradient_of_normalize_at_a_zero_vector_equals_torch() -> None:
    d_y = np.arange(3.0)
    np.testing.assert_array_equal(b.normalize_backward(d_y, np.zeros(3)), d_y / 1e-12)


def test_dropout_with_a_padding_mask_is_refused() -> None:
    nested = reference.nest(living_weights(SMALL, 0), np.float64)
    ids = np.array([[1, 2]])
    with pytest.raises(InputValueError, match="mask: expected None, found a mask together with dropout"):
        b.forward_saving(ids, nested, SMALL, mask=np.array([[True, False]]), dropout=Dropout(0, 0))


def test_weights_of_two_dtypes_are_refused() -> None:
    weights = living_weights(SMALL, 0)
    weights["embeddings.LayerNorm.bias"] = weights["embeddings.LayerNorm.bias"].astype(np.float32)
    with pytest.raises(InputTypeError, match="weights: expected one dtype, found float32 and float64"):
        ReferenceTrainingEngine(SMALL, weights)
