"""The limit of BLAS's threads: it holds in a block, and is gone when nothing needs it any more."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import threadpoolctl

from minilm_np import SentenceEncoder, reference
from minilm_np.engine.blas import one_blas_thread


def threads() -> set[int]:
    """The number of threads of NumPy's BLAS; other tests may have loaded that of another library into this process."""
    found = [one for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"]
    of_numpy = [one for one in found if "numpy" in one["filepath"]]
    return {one["num_threads"] for one in of_numpy or found}


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """BLAS with two threads, as a host may set it."""
    before = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
    numbers = [one.num_threads for one in before]
    for one in before:
        one.set_num_threads(2)
        one.clear_controlling_thread()
    if threads() != {2}:
        pytest.skip("BLAS has no threads here")
    yield
    for one, number in zip(before, numbers, strict=True):
        one.set_num_threads(number)
        one.clear_controlling_thread()


def test_the_limit_holds_in_a_block_and_in_the_blocks_inside_it() -> None:
    with one_blas_thread():
        assert threads() == {1}
        with pytest.raises(ValueError, match="inside"), one_blas_thread():
            raise ValueError("inside")
        assert threads() == {1}
    assert threads() == {2}


def test_blocks_in_several_threads_do_not_leave_the_limit_behind() -> None:
    """Each thread would otherwise restore the limit that another one had set."""
    entered, first_left = threading.Barrier(2), threading.Event()

    def first() -> None:
        with one_blas_thread():
            entered.wait(30)
        first_left.set()

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(30)
    with one_blas_thread():
        assert first_left.wait(30)
    thread.join(30)
    assert threads() == {2}


@pytest.mark.parametrize(("n_texts", "expected"), [(1, {1}), (40, {2})])
def test_the_numpy_backend_limits_batches_of_few_tokens_only(
    monkeypatch: pytest.MonkeyPatch, n_texts: int, expected: set[int]
) -> None:
    seen, encode_ragged = [], reference.encode_ragged

    def spy(*arguments: Any) -> Any:
        seen.append(threads())
        return encode_ragged(*arguments)

    monkeypatch.setattr(reference, "encode_ragged", spy)
    vectors = SentenceEncoder.random(backend="numpy").encode(["a text"] * n_texts)
    assert seen == [expected]
    assert np.isfinite(vectors).all() and threads() == {2}
