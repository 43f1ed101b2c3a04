"""The samples of each batch: the published sampling, made reproducible, resumable, and safe for small data sets.

The training script of all-MiniLM-L6-v2 works in cycles. A cycle draws a few data sets with replacement, each with the
probability weight / total weight. Each set then supplies the batches of a few consecutive steps. Within a cycle no text
occurs twice, because a repeated text would be its own negative. This module differs in three points:

- A sample that would repeat a text is not dropped, but postponed: it comes in the first later batch that can take it.
  Postponed samples go first, in their order. A sample that is still postponed when the next pass over its set reaches
  it comes once, not twice.
- A set that is too small for its part of a cycle does not loop forever. Once every sample of it has been tried without
  success, the texts of the cycle may occur again, except for those of the current batch. Within a batch, no text ever
  occurs twice.
- All batches are a function of the seed and of the state that `Sampler.state` returns.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, Protocol

import numpy as np

from minilm_np._checks import check_int
from minilm_np.errors import InputValueError

# The most postponed samples that a batch tries first. There are more only if one text occurs in a large part of a set.
# Then each batch can take one of them, and reading them all for every batch would take longer than training.
LATE_AT_A_TIME = 1024


class Source(Protocol):
    """A data set: numbered samples, each with the same number of texts."""

    name: str
    crc32: int  # of the whole set: a state can be restored only with the same data

    def __len__(self) -> int: ...

    def __getitem__(self, sample: int) -> list[str]: ...


@dataclass(frozen=True)
class Batch:
    """The texts of one step: `columns[c][b]` is text c of sample b."""

    columns: list[list[str]]
    source: str  # the name of the data set that all samples come from
    lines: list[int]  # the line of each sample in it, from 1


class Sampler:
    """An endless iterator of batches from one or several data sets.

    sources, weights: the data sets, and how often each one is drawn in relation to the others.
    batch_size: samples per batch. A batch has fewer only if its set cannot fill it without repeating a text.
        (`data.open_data` refuses such a file if one pass over it in order shows this.)
    sets_per_cycle, steps_per_set: the published values are 2 and 4. With 1 and 1, texts are distinct within each batch
        only, and a set of distinct texts is used up completely before it is shuffled again.

    Memory: 8 bytes per sample of each set. Raises InputTypeError, InputValueError.
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
        self.step = 0  # batches returned so far
        self._sources = list(sources)
        try:
            self._weights = [float(weight) for weight in weights]
            total = sum(self._weights)
        except OverflowError:  # an int above the largest float
            total = math.inf
        if not math.isfinite(total) or not all(weight > 0 for weight in self._weights):
            raise InputValueError(f"weights: expected numbers above 0 with a finite sum, found {weights!r:.80}")
        self._probabilities = np.array(self._weights) / total
        self._walks = [Walk(source, seed, number) for number, source in enumerate(self._sources)]
        self._cycle: list[tuple[int, int]] = []  # the set and the number of each sample in this cycle
        self._seen: set[str] = set()  # their texts, which must not occur again in this cycle

    def __len__(self) -> int:
        """The number of samples in all data sets."""
        return sum(len(source) for source in self._sources)

    def texts(self) -> Iterator[str]:
        """Yield every text of every data set, in the order of the files. This does not affect the batches."""
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
        """The state on which all following batches depend, as JSON values."""
        return {
            "data": self._data(),
            "step": self.step,
            "walks": [
                {"passes": walk.passes, "position": walk.position, "late": list(walk.late)} for walk in self._walks
            ],
            "cycle": [list(pair) for pair in self._cycle],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state: the following batches are those that followed when `state` returned it.

        Raises InputValueError if the state is broken, or belongs to other data, another seed or another batch size. The
        sampler is then unchanged.
        """
        data = state.get("data")
        if not isinstance(data, dict):
            raise InputValueError(f"state of the sampler: expected a result of state(), found the data {data!r:.80}")
        for key, expected in self._data().items():
            if (found := data.get(key)) != expected:
                raise InputValueError(
                    f"state of the sampler: it belongs to another run: {key}: expected {expected!r}, found {found!r}: "
                    "resume with the same data, seed and batch size"
                )
        try:
            step = index(state["step"])
            walks = [
                (index(walk["passes"]), index(walk["position"]), [index(sample) for sample in walk["late"]])
                for walk in state["walks"]
            ]
            cycle = [(index(number), index(sample)) for number, sample in state["cycle"]]
            for source, (passes, position, late) in zip(self._sources, walks, strict=True):
                if not (0 <= passes < 2**63 and 0 <= position <= len(source)) or not _in_range(late, len(source)):
                    raise IndexError(f"{source.name} has {len(source)} samples")
            if not 0 <= step < 2**63 or not _in_range((number for number, _ in cycle), len(self._sources)):
                raise IndexError(f"there are {len(self._sources)} data sets")
            if not all(0 <= sample < len(self._sources[number]) for number, sample in cycle):
                raise IndexError("a set has fewer samples")
            seen = {text for number, sample in cycle for text in self._sources[number][sample]}
        except (LookupError, TypeError, ValueError) as error:
            raise InputValueError(
                f"state of the sampler: expected a result of state(), found a broken one ({error!r})"
            ) from None
        self.step, self._cycle, self._seen = step, cycle, seen
        for walk, (passes, position, late) in zip(self._walks, walks, strict=True):
            walk.go_to(passes, position, late)

    def _data(self) -> dict[str, Any]:
        sets = zip(self._sources, self._weights, strict=True)
        return self._numbers | {f"set {source.name}": [len(source), source.crc32, weight] for source, weight in sets}


class Walk:
    """A shuffled walk through one data set, pass after pass, with the samples that are postponed (`late`)."""

    def __init__(self, source: Source, seed: int, number: int) -> None:
        self._source = source
        self._seed = seed
        self._number = number
        self.go_to(0, 0, ())

    def go_to(self, passes: int, position: int, late: Iterable[int]) -> None:
        """Continue at this position: after `passes` whole passes, with these postponed samples."""
        self.passes = passes
        self.position = position  # in the order of the current pass
        self.late = dict.fromkeys(late)  # an ordered set
        generator = _generator(self._seed, 1 + self._number, passes)
        self._order = generator.permutation(len(self._source))

    def draw(self, count: int, seen: set[str]) -> list[int]:
        """Take `count` samples without a text in `seen`, and add their texts to it. Fewer if no more can be found."""
        drawn = self.draw_late(count, seen, LATE_AT_A_TIME)
        last = self.passes + 1  # the rest of this pass and one whole pass try every sample
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
        """Like `draw`, but from the postponed samples only, or from the first `look_at` of them."""
        drawn: list[int] = []
        for sample in list(self.late)[:look_at]:
            if len(drawn) == count:
                break
            if _new(self._source[sample], seen):
                drawn.append(sample)
                del self.late[sample]
        return drawn


def _in_range(numbers: Iterable[int], count: int) -> bool:
    return all(0 <= number < count for number in numbers)


def _new(texts: list[str], seen: set[str]) -> bool:
    """Whether none of these texts is in `seen`. If so, add them to it."""
    if not seen.isdisjoint(texts):
        return False
    seen.update(texts)
    return True


def _generator(seed: int, *place: int) -> np.random.Generator:
    """The random generator of one place: of the sets of one cycle, or of one pass over one set."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=place))
