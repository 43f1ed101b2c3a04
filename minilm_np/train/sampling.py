"""Which samples make the next batch: the published sampling, made repeatable, restartable, and safe for small sets.

As published (the training script of all-MiniLM-L6-v2): a cycle is a few data sets, each drawn with probability weight /
total weight, with replacement; each gives the batches of a few consecutive steps; within a cycle no text comes twice,
for a text would be its own negative. Where this differs:

- A sample that would bring a text again is not dropped: its turn is late, and it comes up in the first batch that can
  take it. Late ones go first, in their order. One that is still late when the next pass reaches it has one turn, not
  two.
- A set too small for its share of a cycle does not loop for ever: once every sample of it was looked at in vain, the
  cycle's texts are forgotten, all but those of the batch being made. Within a batch no text ever comes twice.
- Everything is a function of the seed and of what `Sampler.state` returns.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from minilm_np._checks import check_int
from minilm_np.errors import InputValueError

# Late samples that a batch looks at first. More than that pile up only where one text is in a good part of a set: then
# those in front come up one a batch, and reading all of them each time would take longer than training.
LATE_AT_A_TIME = 1024


class Source(Protocol):
    """A data set: samples of the same number of texts each, by their number."""

    name: str
    crc32: int  # of all of it: a state is of no use with other data

    def __len__(self) -> int: ...

    def __getitem__(self, sample: int) -> list[str]: ...


@dataclass(frozen=True)
class Batch:
    """The texts of one step: `columns[c][b]` is text c of sample b."""

    columns: list[list[str]]
    source: str  # the name of the data set that all of them are of
    lines: list[int]  # where in it: the first line is 1


class Sampler:
    """Batches without end, from one data set or several.

    sources, weights: the sets, and how often each is drawn in proportion to the others.
    batch_size: samples a batch. One has fewer only where its set has no more without using a text twice, which
        `data.open_data` refuses as far as one look at the file shows it.
    sets_per_cycle, steps_per_set: 2 and 4 as published; with 1 and 1 each text comes once in a batch, and a set whose
        texts are all different is gone through once before it is shuffled again.

    A pass over a set takes 8 bytes a sample. Raises InputTypeError, InputValueError for a number that makes no sense.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float],
        *,
        batch_size: int,
        seed: int = 0,
        sets_per_cycle: int = 2,
        steps_per_set: int = 4,
    ) -> None:
        self._numbers = {
            "batch_size": check_int("batch_size", batch_size, 1),
            "seed": check_int("seed", seed, 0),
            "sets_per_cycle": check_int("sets_per_cycle", sets_per_cycle, 1),
            "steps_per_set": check_int("steps_per_set", steps_per_set, 1),
        }
        self.step = 0  # batches made so far
        self._sources = list(sources)
        self._weights = [float(weight) for weight in weights]
        self._probabilities = np.array(self._weights) / sum(self._weights)
        self._walks = [Walk(source, seed, number) for number, source in enumerate(self._sources)]
        self._cycle: list[tuple[int, int]] = []  # the set and number of each sample whose texts must not come again
        self._seen: set[str] = set()  # those texts

    def __len__(self) -> int:
        """How many samples there are in all the sets."""
        return sum(len(source) for source in self._sources)

    def texts(self) -> Iterator[str]:
        """Every text of every sample of every set, in the order of the files; the batches are not affected."""
        for source in self._sources:
            for sample in range(len(source)):
                yield from source[sample]

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        size, per_set = self._numbers["batch_size"], self._numbers["steps_per_set"]
        cycle, place = divmod(self.step, self._numbers["sets_per_cycle"] * per_set)
        if place == 0:
            self._cycle, self._seen = [], set()
        number = self._sets_of(cycle)[place // per_set]
        source, walk = self._sources[number], self._walks[number]
        batch = walk.draw(size, self._seen)
        if len(batch) < size:
            self._cycle, self._seen = [], {text for sample in batch for text in source[sample]}
            batch += walk.draw_late(size - len(batch), self._seen)
        self._cycle += [(number, sample) for sample in batch]
        self.step += 1
        columns = [list(column) for column in zip(*(source[sample] for sample in batch), strict=True)]
        return Batch(columns, source.name, [sample + 1 for sample in batch])

    def _sets_of(self, cycle: int) -> list[int]:
        generator = _generator(self._numbers["seed"], 0, cycle)
        draws = generator.choice(len(self._sources), self._numbers["sets_per_cycle"], p=self._probabilities)
        return [int(number) for number in draws]

    def state(self) -> dict[str, Any]:
        """Everything that decides which batches follow, as values for JSON."""
        return {
            "data": self._data(),
            "step": self.step,
            "walks": [
                {"passes": walk.passes, "position": walk.position, "late": list(walk.late)} for walk in self._walks
            ],
            "cycle": [list(pair) for pair in self._cycle],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken: the batches that follow are the same.

        Raises InputValueError where the state is of other data, another seed or another batch size, or is no state.
        The sampler is then as it was.
        """
        data = state.get("data")
        if not isinstance(data, dict):
            raise InputValueError(f"the sampler's state is broken (its data: {data!r}): expected what state() returned")
        for key, expected in self._data().items():
            if (found := data.get(key)) != expected:
                there = "is not there" if found is None else f"is {found!r} there"
                raise InputValueError(
                    f"the sampler's state is of another run: {key} {there}, {expected!r} here: "
                    "resume with the data, the seed and the batch size that the run was begun with"
                )
        try:
            step = int(state["step"])
            walks = [(int(walk["passes"]), int(walk["position"]), list(walk["late"])) for walk in state["walks"]]
            cycle = [(int(number), int(sample)) for number, sample in state["cycle"]]
            seen = {text for number, sample in cycle for text in self._sources[number][sample]}
            for source, (_, position, late) in zip(self._sources, walks, strict=True):
                if not 0 <= position <= len(source) or not all(0 <= sample < len(source) for sample in late):
                    raise IndexError(f"{source.name} has {len(source)} samples")
        except (LookupError, TypeError, ValueError) as error:
            raise InputValueError(
                f"the sampler's state is broken ({error!r}): expected what state() returned"
            ) from None
        self.step, self._cycle, self._seen = step, cycle, seen
        for walk, (passes, position, late) in zip(self._walks, walks, strict=True):
            walk.go_to(passes, position, late)

    def _data(self) -> dict[str, Any]:
        sets = zip(self._sources, self._weights, strict=True)
        return self._numbers | {f"set {source.name}": [len(source), source.crc32, weight] for source, weight in sets}


class Walk:
    """A shuffled walk through one data set, pass after pass, and the samples whose turn is late."""

    def __init__(self, source: Source, seed: int, number: int) -> None:
        self._source = source
        self._seed = seed
        self._number = number
        self.go_to(0, 0, ())

    def go_to(self, passes: int, position: int, late: Iterable[int]) -> None:
        self.passes = passes  # completed ones
        self.position = position  # in the order of this pass
        self.late = dict.fromkeys(late)  # a set that keeps its order
        generator = _generator(self._seed, 1 + self._number, passes)
        self._order = generator.permutation(len(self._source))

    def draw(self, count: int, seen: set[str]) -> list[int]:
        """Take `count` samples none of whose texts was seen, and add their texts; fewer if there are no more."""
        drawn = self.draw_late(count, seen, LATE_AT_A_TIME)
        last = self.passes + 1  # what is left of this pass, and a whole one, is every sample
        while len(drawn) < count:
            if self.position == len(self._order):
                if self.passes == last:
                    return drawn + self.draw_late(count - len(drawn), seen)
                self.go_to(self.passes + 1, 0, self.late)
            sample = int(self._order[self.position])
            self.position += 1
            if sample in self.late:
                continue
            if _new(self._source[sample], seen):
                drawn.append(sample)
            else:
                self.late[sample] = None
        return drawn

    def draw_late(self, count: int, seen: set[str], look_at: int | None = None) -> list[int]:
        """As `draw`, from the samples whose turn is late; only from the first `look_at` of them."""
        drawn: list[int] = []
        for sample in list(self.late)[:look_at]:
            if len(drawn) == count:
                break
            if _new(self._source[sample], seen):
                drawn.append(sample)
                del self.late[sample]
        return drawn


def _new(texts: list[str], seen: set[str]) -> bool:
    """Whether none of a sample's texts was seen; if so they are now."""
    if not seen.isdisjoint(texts):
        return False
    seen.update(texts)
    return True


def _generator(seed: int, *place: int) -> np.random.Generator:
    """The random numbers of one place: one cycle's choice of sets, or one pass over one set."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=place))
