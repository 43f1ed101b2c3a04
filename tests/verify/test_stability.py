"""Implementations whose vectors depend on how they are asked, and the sentence that names it."""

import json
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import ImplementationError, InputValueError, SentenceEncoder, reference
from minilm_np.verify import Stability, check_stability
from minilm_np.verify.stability import IN_FLIGHT, MOST
from minilm_np.verify.torch_models import TransformersModel
from tests.support.vector_servers import serving

TEXTS = [
    "one",
    "two words",
    "three words here",
    "a question?",
    "a longer text than the others, with a comma",
    "six",
    "seven of nine",
    "UPPER CASE",
]


@pytest.fixture(scope="module")
def small() -> SentenceEncoder:
    return SentenceEncoder.random(backend="numpy")


class Live:
    """An implementation that computes the vectors of each call by a function."""

    name = "live"
    texts: list[str] | None = None

    def __init__(self, compute: Any) -> None:
        self._compute = compute

    def vectors(self, texts: Sequence[str]) -> Any:
        return self._compute(list(texts))

    def intermediates(self, texts: Sequence[str]) -> None:
        return None

    def token_ids(self, texts: Sequence[str]) -> None:
        return None


def one_by_one(encoder: SentenceEncoder) -> dict[str, np.ndarray]:
    return {text: encoder.encode(text) for text in TEXTS}


def ways(found: Stability) -> dict[str, int]:
    return {change.way: change.changed for change in found.changes}


def test_vectors_that_never_change_are_stable(small: SentenceEncoder) -> None:
    table = one_by_one(small)
    found = check_stability(small, Live(lambda texts: np.array([table[text] for text in texts])), [*TEXTS, TEXTS[0]])
    assert ways(found) == {"asked again": 0, "in one batch": 0, "in another order": 0}
    assert found.texts == len(TEXTS) and found.is_stable
    assert found.sentence == "Stable: no bit of any vector changes."
    assert found.not_tested == "concurrent requests, because it is not a server"
    assert found.changes[0].worst_text is None and found.changes[0].min_cosine == 1.0


def test_rounding_is_told_from_a_fault(small: SentenceEncoder) -> None:
    table, rng = one_by_one(small), np.random.default_rng(0)
    for size, is_stable in ((1e-7, True), (1e-2, False)):
        noisy = Live(lambda texts, size=size: np.array([table[text] + size * rng.uniform(-1, 1, 96) for text in texts]))
        found = check_stability(small, noisy, TEXTS)
        assert found.is_stable is is_stable
        assert set(ways(found).values()) == {len(TEXTS)}
        assert found.sentence.startswith(
            "Stable within rounding: asked again, 8 of 8 vectors change by at most"
            if is_stable
            else "Not stable: asked again, 8 of 8 vectors change by at most"
        )
        assert not any(change.by_padding or change.of_other_texts for change in found.changes)


def padded(encoder: SentenceEncoder) -> Any:
    """A forward pass over a padded batch whose attention mask is ignored: in attention, and in pooling."""
    weights = reference.nest(encoder.weights)

    def compute(texts: list[str]) -> np.ndarray:
        ids = encoder.tokenizer(texts).ids
        longest = max(map(len, ids))
        rows = (np.array(one + [0] * (longest - len(one)), np.int64) for one in ids)
        return np.array([reference.forward(row, weights, encoder.config) for row in rows])

    return compute


def test_padding_that_is_attended_to_is_named(small: SentenceEncoder) -> None:
    found = check_stability(small, Live(padded(small)), TEXTS)
    assert ways(found) == {"asked again": 0, "in one batch": len(TEXTS) - 1, "in another order": 0}
    assert found.changes[1].by_padding and not found.is_stable
    assert "Only longer texts in the same batch change a vector: the padding is attended to" in found.sentence


def test_a_batch_in_another_order_is_named(small: SentenceEncoder) -> None:
    table = one_by_one(small)

    def sorted_batch(texts: list[str]) -> np.ndarray:  # by length, and never put back
        return np.array([table[text] for text in sorted(texts, key=len)])

    found = check_stability(small, Live(sorted_batch), TEXTS)
    change = found.changes[1]
    assert change.changed == change.of_other_texts > 0 and not change.by_padding
    assert f"{change.changed} of them are vectors of other texts: the responses are mixed up." in found.sentence


def test_a_server_that_mixes_up_concurrent_requests_is_named(small: SentenceEncoder) -> None:
    """After the requests that come one at a time, each two concurrent requests get each other's vectors."""
    table, lock = one_by_one(small), threading.Lock()
    one_at_a_time = 2 * len(TEXTS) + 2
    asked: list[str] = []
    arrived: dict[int, threading.Event] = defaultdict(threading.Event)

    def answer(path: str, body: dict[str, Any]) -> Any:
        texts = body["inputs"]
        with lock:
            place = len(asked)
            asked.append(texts[0])
            mine, partner = arrived[place], arrived[place ^ 1]
        if place >= one_at_a_time:
            mine.set()
            assert partner.wait(30)
            texts = [asked[place ^ 1]]
        return 200, {}, [json.dumps([table[text].tolist() for text in texts]).encode()]

    with serving(answer) as url:
        found = check_stability(small, f"{url}/embed", TEXTS)
    assert ways(found) == {
        "asked again": 0, "in one batch": 0, "in another order": 0, f"with {IN_FLIGHT} requests at a time": len(TEXTS),
    }  # fmt: skip
    assert found.not_tested is None
    assert found.sentence.startswith("Not stable: with 8 requests at a time, 8 of 8 vectors change by at most")
    assert "8 of them are vectors of other texts: the responses are mixed up." in found.sentence


def test_a_sound_server_is_stable(small: SentenceEncoder) -> None:
    table = one_by_one(small)

    def answer(path: str, body: dict[str, Any]) -> Any:
        return 200, {}, [json.dumps([table[text].tolist() for text in body["inputs"]]).encode()]

    with serving(answer) as url:
        found = check_stability(small, f"{url}/embed", TEXTS)
    assert len(found.changes) == 4 and found.is_stable


def test_a_server_that_refuses_concurrent_requests_is_not_called_unstable(small: SentenceEncoder) -> None:
    table, asked = one_by_one(small), iter(range(1000))

    def answer(path: str, body: dict[str, Any]) -> Any:
        if next(asked) >= 2 * len(TEXTS) + 2:
            return 429, {}, [b"overloaded"]
        return 200, {}, [json.dumps([table[text].tolist() for text in body["inputs"]]).encode()]

    with serving(answer) as url:
        found = check_stability(small, f"{url}/embed", TEXTS)
    assert len(found.changes) == 3 and found.is_stable
    why = f"{url}/embed: the server answered 429"
    assert found.failure is not None and found.failure.startswith(why)
    assert f"Stable: no bit of any vector changes. But a request failed while others were in flight: {why}" in (
        found.sentence
    )


def test_a_vector_that_becomes_nan_is_a_change(small: SentenceEncoder) -> None:
    def overflowing(texts: list[str]) -> np.ndarray:
        return np.full((len(texts), 3), np.nan if len(texts) > 1 else 1.0)

    found = check_stability(small, Live(overflowing), TEXTS)
    assert ways(found) == {"asked again": 0, "in one batch": 8, "in another order": 0}
    assert not found.is_stable and found.changes[1].max_abs == np.inf
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["changes"][1]["max_abs"] is None


def test_files_are_not_tested(small: SentenceEncoder, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", small.encode(TEXTS))
    found = check_stability(small, str(tmp_path / "v.npy"))
    assert found.changes == () and found.is_stable
    assert found.sentence == "Stability is not tested: a file of vectors cannot be asked again."


class OneByOne(TransformersModel):
    """Without the package transformers."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self.name, self._encoder = "transformers", encoder

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        assert len(texts) == 1
        return self._encoder.encode(texts)


def test_a_model_that_is_run_with_one_text_at_a_time_has_no_batches(small: SentenceEncoder) -> None:
    found = check_stability(small, OneByOne(small), TEXTS)
    assert list(ways(found)) == ["asked again"]
    assert found.not_tested is not None and found.not_tested.startswith("batches, because")


def test_many_texts_are_sampled(small: SentenceEncoder) -> None:
    live = Live(lambda texts: np.ones((len(texts), 3)))
    assert check_stability(small, live, [f"text {number}" for number in range(200)]).texts == MOST


def test_refusals(small: SentenceEncoder) -> None:
    with pytest.raises(InputValueError, match="texts: expected at least one, found none"):
        check_stability(small, Live(None), [])
    with pytest.raises(ImplementationError, match=r"live: expected 1 vectors, found an array of shape \(3,\)"):
        check_stability(small, Live(lambda texts: np.ones(3)), TEXTS)
    with pytest.raises(ImplementationError, match=r"vectors in one batch: expected the shape \(8, 1\), as in"):
        check_stability(small, Live(lambda texts: np.ones((len(texts), len(texts)))), TEXTS)
