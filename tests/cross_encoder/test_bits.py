"""The scores of each contract are the same bits in any batch, order and number of threads, and those of the loops."""

import numpy as np
import pytest

from minilm_np import CrossEncoder, InputValueError, ModelConfig, reference
from minilm_np.engine import registry
from minilm_np.engine.classifier import activate
from minilm_np.engine.registry import COMPUTE_TYPES
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from tests.support import integer_contract
from tests.support.compare import assert_close, assert_same_bits
from tests.support.engine import encode_by_contract
from tests.support.models import living_weights
from tests.support.pair_models import PAIRS

MANY = [(f"query {number % 5}", "document " * (number % 13) + str(number)) for number in range(150)]


@pytest.mark.parametrize("compute_type", COMPUTE_TYPES)
def test_scores_do_not_depend_on_batch_order_or_threads(compute_type: str) -> None:
    model = CrossEncoder.random(compute_type=compute_type, threads=1)
    scores = model.predict(MANY)
    assert len(set(scores.tolist())) > 100
    order = np.random.default_rng(1).permutation(len(MANY))
    assert_same_bits(model.predict([MANY[row] for row in order]), scores[order])
    assert_same_bits(np.array([model.predict(pair) for pair in MANY[:20]]), scores[:20])
    for threads in (2, 3):
        other = CrossEncoder.random(compute_type=compute_type, threads=threads)
        assert_same_bits(other.predict(MANY), scores)
        assert_same_bits(other.predict(MANY[:7]), scores[:7])


TINY = ModelConfig(
    vocab_size=len(CHARACTER_VOCABULARY), max_position_embeddings=16, hidden_size=12, num_hidden_layers=1,
    num_attention_heads=2, intermediate_size=20, max_seq_length=16, pooling_mode="cls", normalize=False,
)  # fmt: skip


@pytest.mark.parametrize("compute_type", COMPUTE_TYPES)
def test_first_tokens_of_pairs_are_those_of_the_contract_s_loops(compute_type: str) -> None:
    weights = {name: array.astype(np.float32) for name, array in living_weights(TINY, 3).items()}
    engine = registry.find("numba", compute_type).make(TINY, weights.items(), 1)
    ids = [[2, 9, 3, 12, 3], [2, 3, 3], [2, 40, 41, 42, 43, 3, 50, 3]]
    types = [[0, 0, 0, 1, 1], [0, 0, 1], [0, 0, 0, 0, 0, 0, 1, 1]]
    found = engine.encode(ids, normalize=False, report=lambda done: None, token_type_ids=types)
    if compute_type == "float32":
        expected = encode_by_contract(ids, weights, TINY, types)
    else:
        expected = integer_contract.encode(ids, weights, TINY, compute_type, types)
    assert_same_bits(found, expected)


def test_the_fingerprint_depends_on_weights_and_pairs_only() -> None:
    model, other = CrossEncoder.random(threads=1), CrossEncoder.random(threads=2)
    assert model.fingerprint() == other.fingerprint() != CrossEncoder.random(seed=1, threads=1).fingerprint()
    assert model.fingerprint(PAIRS[:2]) == other.fingerprint(PAIRS[:2]) != model.fingerprint(PAIRS[:3])
    with pytest.raises(InputValueError, match="backend 'numpy' has no numerical contract"):
        CrossEncoder.random(backend="numpy").fingerprint()


def test_the_numpy_backend_is_the_reference() -> None:
    model = CrossEncoder.random(num_labels=3, backend="numpy")
    nested = reference.nest(model.weights)
    tokens = model.model.tokenizer(PAIRS)
    logits = [
        reference.classify(np.array(ids), np.array(types), nested, model.config)
        for ids, types in zip(tokens.ids, tokens.token_type_ids, strict=True)
    ]
    assert_close(model.predict(PAIRS), np.array(logits), abs_=1e-6)


def test_token_types_matter() -> None:
    model = CrossEncoder.random(threads=1)
    engine, tokens = model.model.encoder.engine, model.model.tokenizer([("same words", "same words")])
    with_types = engine.encode(
        tokens.ids, normalize=False, report=lambda done: None, token_type_ids=tokens.token_type_ids
    )
    without = engine.encode(tokens.ids, normalize=False, report=lambda done: None)
    zeros = engine.encode(
        tokens.ids, normalize=False, report=lambda done: None, token_type_ids=[[0] * len(ids) for ids in tokens.ids]
    )
    assert not np.array_equal(with_types, without)
    assert_same_bits(zeros, without)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize(
    ("types", "message"),
    [
        ([], "token_type_ids: expected those of 1 texts, found 0"),
        ([[0, 0]], "text 0: expected 3 token types, found 2"),
        ([[0, 1, 2]], "text 0: expected token types from 0 to 1, found 2"),
        ([[0, -1, 0]], "text 0: expected token types from 0 to 1, found -1"),
    ],
)
def test_token_types_are_checked(backend: str, types: list[list[int]], message: str) -> None:
    engine = CrossEncoder.random(backend=backend).model.encoder.engine
    with pytest.raises(InputValueError, match=message):
        engine.encode([[1, 2, 3]], normalize=False, report=lambda done: None, token_type_ids=types)


def test_an_activation_of_a_call_changes_the_scores_of_the_same_logits() -> None:
    model = CrossEncoder.random(threads=1)
    logits = model.predict(PAIRS, activation_fn="Identity")
    assert_same_bits(model.predict(PAIRS), activate(logits[:, None], "Sigmoid")[:, 0])
