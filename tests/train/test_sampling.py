"""Test the sampling: reproducible, resumable anywhere, no text twice, no sample lost, sets drawn by their weights."""

import itertools
import json
import zlib
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np.errors import InputTypeError, InputValueError
from minilm_np.train import sampling
from minilm_np.train.sampling import Batch, Sampler, Walk


class Samples(list[list[str]]):
    """A data set in memory."""

    def __init__(self, name: str, samples: list[list[str]]) -> None:
        super().__init__(samples)
        self.name, self.crc32 = name, zlib.crc32(json.dumps(samples).encode())


def distinct(name: str, count: int, columns: int = 2) -> Samples:
    return Samples(name, [[f"{name} {sample} {column}" for column in range(columns)] for sample in range(count)])


def plain(samples: list[list[str]], batch_size: int, seed: int = 0) -> Sampler:
    return Sampler([Samples("one", samples)], [1], batch_size=batch_size, seed=seed, sets_per_cycle=1, steps_per_set=1)


def take(sampler: Sampler, count: int) -> list[Batch]:
    return list(itertools.islice(sampler, count))


def rows(batch: Batch) -> list[list[str]]:
    return [list(texts) for texts in zip(*batch.columns, strict=True)]


def repeated(batches: list[Batch]) -> list[str]:
    """The texts of more than one sample. (The texts of one sample may be equal.)"""
    texts = Counter(text for batch in batches for row in rows(batch) for text in set(row))
    return [text for text, count in texts.items() if count > 1]


@st.composite
def mixes(draw: st.DrawFn) -> dict[str, Any]:
    """Data sets of any size that share few texts, so that many samples conflict."""
    text = st.sampled_from("abcdefghijklmnop")
    sets = []
    for number in range(draw(st.integers(1, 3))):
        columns = draw(st.integers(2, 3))
        samples = draw(st.lists(st.lists(text, min_size=columns, max_size=columns), min_size=1, max_size=20))
        sets.append(Samples(f"set {number}", samples))
    return {
        "sources": sets,
        "weights": draw(st.lists(st.integers(1, 5), min_size=len(sets), max_size=len(sets))),
        "batch_size": draw(st.integers(1, 4)),
        "seed": draw(st.integers(0, 2**70)),
        "sets_per_cycle": draw(st.integers(1, 3)),
        "steps_per_set": draw(st.integers(1, 4)),
    }


@given(mixes())
def test_the_same_seed_gives_the_same_batches(mix: dict[str, Any]) -> None:
    assert take(Sampler(**mix), 20) == take(Sampler(**mix), 20)


@given(mixes(), st.integers(0, 20))
def test_a_restored_sampler_gives_the_same_following_batches(mix: dict[str, Any], stop: int) -> None:
    sampler = Sampler(**mix)
    take(sampler, stop)
    state = json.loads(json.dumps(sampler.state()))
    other = Sampler(**mix)
    take(other, 3)  # the restored state replaces its own
    other.restore(state)
    assert other.step == stop
    assert other.state() == sampler.state()
    assert take(other, 25) == take(sampler, 25)


@given(mixes())
def test_no_text_occurs_twice_in_a_batch_and_every_row_is_a_line_of_its_set(mix: dict[str, Any]) -> None:
    sources = {source.name: source for source in mix["sources"]}
    for batch in take(Sampler(**mix), 30):
        assert not repeated([batch])
        assert 1 <= len(batch.lines) <= mix["batch_size"]
        assert rows(batch) == [sources[batch.source][line - 1] for line in batch.lines]


@given(mixes())
@settings(max_examples=50)
def test_every_sample_is_drawn(mix: dict[str, Any]) -> None:
    mix |= {"sets_per_cycle": 1, "steps_per_set": 1}
    for source in mix["sources"]:
        sampler = Sampler(**mix | {"sources": [source], "weights": [1]})
        found = {line for batch in take(sampler, 4 * len(source) + 8) for line in batch.lines}
        assert found == set(range(1, len(source) + 1))


def test_distinct_texts_occur_once_per_pass_in_shuffled_order() -> None:
    sampler = plain(distinct("x", 60), 6)
    passes = [[line for batch in take(sampler, 10) for line in batch.lines] for _ in range(3)]
    for lines in passes:
        assert sorted(lines) == list(range(1, 61))
    assert passes[0] != passes[1] != passes[2] != passes[0]
    assert passes[0] != sorted(passes[0])
    assert [line for batch in take(plain(distinct("x", 60), 6, seed=1), 10) for line in batch.lines] != passes[0]


def test_within_a_cycle_no_text_occurs_twice_and_each_set_supplies_consecutive_steps() -> None:
    large = [Samples("a", [[f"{n % 211}", f"a {n}"] for n in range(500)]), distinct("b", 400, columns=3)]
    sampler = Sampler(large, [2, 1], batch_size=8, seed=3)
    seen = set()
    for _ in range(60):
        cycle = take(sampler, 8)
        assert not repeated(cycle)
        assert [len(batch.lines) for batch in cycle] == [8] * 8
        halves = [{batch.source for batch in half} for half in (cycle[:4], cycle[4:])]
        assert [len(half) for half in halves] == [1, 1]
        seen.add(tuple(next(iter(half)) for half in halves))
    assert seen == {("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")}


def test_sets_are_drawn_in_proportion_to_their_weights() -> None:
    sets = [distinct("a", 40), distinct("b", 40), distinct("c", 40)]
    sampler = Sampler(sets, [1, 2.5, 6.5], batch_size=1, seed=5)
    drawn = Counter(batch.source for batch in take(sampler, 8000))
    for name, share in (("a", 0.1), ("b", 0.25), ("c", 0.65)):
        # 2,000 draws for 4 steps each: the standard deviation is at most 11 draws
        assert abs(drawn[name] / 4 - 2000 * share) < 4 * 11


def test_a_frequent_text_occurs_once_per_batch_and_none_of_its_samples_is_lost() -> None:
    samples = [["hub", f"hub {n}"] for n in range(40)] + [[f"q {n}", f"d {n}"] for n in range(60)]
    batches = take(plain(samples, 10), 60)
    assert [len(batch.lines) for batch in batches] == [10] * 60
    assert all(batch.columns[0].count("hub") <= 1 for batch in batches)
    assert {line for batch in batches for line in batch.lines} == set(range(1, 101))


def test_no_sample_is_lost_if_more_are_postponed_than_a_batch_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "LATE_AT_A_TIME", 3)
    samples = [[f"hub {n % 4}", f"h {n}"] for n in range(40)] + [[f"q {n}", f"d {n}"] for n in range(60)]
    sampler = plain(samples, 25)
    batches = take(sampler, 400)
    assert not any(repeated([batch]) for batch in batches)
    assert {line for batch in batches for line in batch.lines} == set(range(1, 101))


def test_a_sample_that_is_still_postponed_when_a_pass_reaches_it_comes_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sampling, "LATE_AT_A_TIME", 1)
    walk = Walk(distinct("x", 10), 0, 0)
    walk.go_to(1, 0, [0, 1, 2, 3])
    assert sorted(walk.draw(7, set())) == [0, 4, 5, 6, 7, 8, 9]
    assert list(walk.late) == [1, 2, 3, 0]  # 0 came as a postponed sample, so in this pass it is postponed


def test_a_set_too_small_for_its_share_of_a_cycle_still_fills_its_batches() -> None:
    sampler = Sampler([distinct("small", 10), distinct("large", 500)], [1, 1], batch_size=8, seed=0)
    batches = take(sampler, 160)
    assert [len(batch.lines) for batch in batches] == [8] * 160
    assert not any(repeated([batch]) for batch in batches)
    counts = Counter(line for batch in batches if batch.source == "small" for line in batch.lines)
    assert len(counts) == 10
    assert max(counts.values()) - min(counts.values()) <= 8


def test_a_batch_is_short_if_a_full_one_would_repeat_a_text() -> None:
    batches = take(plain([["a", "b"], ["c", "d"], ["a", "c"]], 2), 12)
    assert {tuple(sorted(batch.lines)) for batch in batches} == {(1, 2), (3,)}


def test_a_sample_of_equal_texts_is_a_sample_like_any_other() -> None:
    (batch,) = take(plain([["same", "same"], ["a", "b"]], 2), 1)
    assert sorted(batch.lines) == [1, 2]


def test_texts_yields_all_texts_in_order() -> None:
    sampler = Sampler(
        [Samples("a", [["1", "2"]]), Samples("b", [["3", "4", "5"], ["1", "6", "7"]])], [1, 1], batch_size=1
    )
    first = next(sampler)
    assert list(sampler.texts()) == ["1", "2", "3", "4", "5", "1", "6", "7"]
    assert sampler.step == 1
    assert first.lines[0] in (1, 2)


# ---- error messages --------------------------------------------------------------------------------------------------


def test_a_state_of_another_run_is_refused_and_changes_nothing() -> None:
    samples = distinct("one", 9)
    state = plain(samples, 3).state()
    for other, message in [
        (plain(samples, 3, seed=1), "another run: seed: expected 1, found 0"),
        (plain(samples, 2), "batch_size: expected 2, found 3"),
        (plain(samples[:8], 3), r"set one: expected \[8, .*\], found \[9, "),
        (
            plain([["x", "y"], *samples[1:]], 3),
            r"set one: expected \[9, .*\], found \[9, .*\]: resume with the same data",
        ),
    ]:
        take(other, 2)
        before = other.state()
        with pytest.raises(InputValueError, match=message):
            other.restore(state)
        assert other.state() == before


@pytest.mark.parametrize(
    "change",
    [
        {"step": None},
        {"walks": [{}]},
        {"walks": []},
        {"walks": [{"passes": 0, "position": 10, "late": []}]},
        {"walks": [{"passes": 0, "position": 0, "late": [9]}]},
        {"cycle": [[0]]},
        {"cycle": [[0, 99]]},
        {"data": 3},
    ],
)
def test_a_broken_state_is_refused_and_changes_nothing(change: dict[str, Any]) -> None:
    sampler = plain(distinct("one", 9), 3)
    take(sampler, 2)
    before = sampler.state()
    with pytest.raises(InputValueError, match=r"state of the sampler: expected a result of state\(\), found"):
        sampler.restore(before | change)
    assert sampler.state() == before


def test_numbers_out_of_range_are_refused() -> None:
    source = distinct("one", 9)
    with pytest.raises(InputValueError, match="batch_size: expected an int of at least 1, found 0"):
        Sampler([source], [1], batch_size=0)
    with pytest.raises(InputTypeError, match="seed: expected an int, found float"):
        Sampler([source], [1], batch_size=1, seed=1.5)  # type: ignore[arg-type]
    with pytest.raises(InputValueError, match="seed: expected an int of at least 0, found -1"):
        Sampler([source], [1], batch_size=1, seed=-1)
    with pytest.raises(InputValueError, match="steps_per_set: expected an int of at least 1, found 0"):
        Sampler([source], [1], batch_size=1, steps_per_set=0)


@pytest.mark.parametrize("weights", [[10**400], [1e308, 1e308], [float("inf")], [float("nan")], [0], [-1]], ids=str)
def test_weights_without_a_finite_sum_are_refused(weights: list[float]) -> None:
    sources = [distinct(f"set {number}", 4) for number in range(len(weights))]
    with pytest.raises(InputValueError, match="weights: expected numbers above 0 with a finite sum, found"):
        Sampler(sources, weights, batch_size=2)
