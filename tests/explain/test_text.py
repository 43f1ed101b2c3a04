"""The arrays of one text: they are what the trace and the definitions say, for every pooling."""

import dataclasses
import math

import numpy as np
import pytest

from minilm_np import InputTypeError, ModelConfig, SentenceEncoder, explain
from minilm_np.model_files.config import POOLING_MODES
from minilm_np.model_files.random_weights import SMALL

TEXTS = ["", "a", "a b c, d", "abc " * 60]


def encoder_of(mode: str, normalize: bool = True) -> SentenceEncoder:
    config: ModelConfig = dataclasses.replace(SMALL, pooling_mode=mode, normalize=normalize)
    return SentenceEncoder.random(config, seed=3, backend="numpy")


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("mode", POOLING_MODES)
def test_contributions_add_up_to_the_vector_of_encode(mode: str, normalize: bool) -> None:
    encoder = encoder_of(mode, normalize)
    for text in TEXTS:
        found = explain.text(encoder, text)
        np.testing.assert_array_equal(found.vector, encoder.encode(text, on_truncation="ignore"))
        largest = float(np.abs(found.vector).max())
        assert np.abs(found.contributions.sum(axis=0) - found.vector).max() == found.error <= 1e-6 * largest
        assert found.shares.sum() == pytest.approx(1, abs=1e-6)
        assert found.contributions.shape == (len(found.trace.tokens), encoder.config.hidden_size)


def test_each_mean_contribution_is_the_token_vector_over_the_norm_of_the_sum() -> None:
    found = explain.text(encoder_of("mean"), "a b c")
    last = [array for name, array in found.trace.items() if name.endswith("output.LayerNorm")][-1].astype(np.float64)
    total = [math.fsum(column) for column in last.T]
    norm = math.sqrt(math.fsum(value * value for value in total))
    np.testing.assert_allclose(found.contributions, last / norm, rtol=1e-12)


def test_the_first_token_contributes_everything_with_cls_pooling() -> None:
    found = explain.text(encoder_of("cls"), "a b c")
    assert not found.contributions[1:].any() and found.contributions[0].any()


def test_each_dimension_has_one_owner_with_max_pooling() -> None:
    found = explain.text(encoder_of("max"), "a b c")
    assert ((found.contributions != 0).sum(axis=0) == 1).all()


def test_layers_are_measured_by_their_definitions() -> None:
    encoder = encoder_of("mean")
    found = explain.text(encoder, "a b c")
    L, trace = encoder.config.num_hidden_layers, found.trace
    states = [trace["embeddings.LayerNorm"]] + [trace[f"encoder.layer.{n}.output.LayerNorm"] for n in range(L)]
    T = len(trace.tokens)
    assert found.norms.shape == found.cosine_to_final.shape == found.cosine_to_vector.shape == (T, L + 1)
    assert found.residual_norms.shape == found.update_norms.shape == (T, 2 * L)
    for t in range(T):
        for n, state in enumerate(states):
            x, last, vector = (a.astype(np.float64) for a in (state[t], states[-1][t], found.vector))
            size = math.sqrt(x @ x)
            assert found.norms[t, n] == pytest.approx(size, rel=1e-12)
            assert found.cosine_to_final[t, n] == pytest.approx(x @ last / size / math.sqrt(last @ last), rel=1e-9)
            assert found.cosine_to_vector[t, n] == pytest.approx(
                x @ vector / size / math.sqrt(vector @ vector), rel=1e-9
            )
        update = trace["encoder.layer.0.output.dense"][t].astype(np.float64)
        before = trace["encoder.layer.0.attention.output.LayerNorm"][t].astype(np.float64)
        assert found.update_norms[t, 1] == pytest.approx(math.sqrt(update @ update), rel=1e-12)
        assert found.residual_norms[t, 1] == pytest.approx(math.sqrt(before @ before), rel=1e-12)


def test_the_remainder_is_what_was_truncated() -> None:
    encoder = encoder_of("mean")
    assert explain.text(encoder, "a b c").remainder == ""
    found = explain.text(encoder, TEXTS[-1])
    end = max(stop for _, stop in found.trace.offsets)
    assert found.trace.truncated and found.remainder == TEXTS[-1][end:] != ""


def test_only_a_text_is_accepted() -> None:
    with pytest.raises(InputTypeError):
        explain.text(encoder_of("mean"), 3)  # type: ignore[arg-type]
