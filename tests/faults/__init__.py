"""The faults suite: experiments that break what surrounds the package, and check that no wrong result comes of it.

`python -m tests.faults` runs all experiments and prints a table; `python -m tests.faults --help` lists the options.

To add an experiment, write a function in a module of this package, new or existing; nothing else has to be changed:

    from random import Random

    from tests.faults import Outcome, experiment

    @experiment("headers: one flipped byte", count=8000, quick=50)
    def header_flips(count: int, random: Random) -> Outcome:
        \"\"\"Flip one byte of a weights file's header; it is refused by name, or gives the same weights.\"\"\"
        outcome = Outcome()
        for _ in range(count):
            place = random.randrange(100)
            ...
            if refused:
                outcome.hold("refused by name")
            elif same_weights:
                outcome.hold("same weights")
            else:
                outcome.fail(f"byte {place}: loaded with other weights")
        return outcome

- The title is the row of the table: at most 36 characters. The function's name, with dashes, selects the experiment:
  `python -m tests.faults header-flips --seed 3`; the module's name selects all experiments in it. The docstring says
  in one or two sentences what is done and what must hold; `--list` prints it.
- `count` is the number of tries of a full run, `quick` that of the run in the test suite, which has about a second for
  each experiment; 0 leaves it out there. The function makes `count` tries, and notes each of them by one call of
  `hold`, `fail` or `check`.
- All that is random is drawn from `random`, so that the seed repeats it. A failure's text says which input failed.
- Each experiment runs in a forked process, which is killed with all its descendants after `limit_s` seconds. An
  exception that the function does not catch is a failure. What could hang or kill the process belongs into a child
  process with a time limit: `tests.faults.children` starts them.
"""

import importlib
import pkgutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import cleandoc
from random import Random

TITLE = 36  # characters, the width of the table's first column


@dataclass
class Outcome:
    """What the tries came to: `held` counts those that ended well, by how they ended; `failures` has the others.

    skipped: why the experiment could not be made here; "" if it was.
    """

    held: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    skipped: str = ""

    @property
    def tried(self) -> int:
        return self.held.total() + len(self.failures)

    def hold(self, how: str, times: int = 1) -> None:
        """Note tries that ended well, and in two or three words how: "refused by name", "same bits"."""
        self.held[how] += times

    def add(self, other: "Outcome") -> None:
        """Note the tries of another outcome, too."""
        self.held.update(other.held)
        self.failures += other.failures
        self.skipped = self.skipped or other.skipped

    def fail(self, what: str) -> None:
        """Note a try that failed: the input, what was expected, what was found."""
        self.failures.append(what)

    def check(self, right: bool, how: str, what: str) -> None:
        """Note a try: `hold(how)` if it is right, else `fail(what)`."""
        if right:
            self.hold(how)
        else:
            self.fail(what)


@dataclass(frozen=True)
class Experiment:
    """An experiment; see the module's docstring."""

    name: str
    module: str
    title: str
    what: str
    run: Callable[[int, Random], Outcome]
    count: int
    quick: int
    limit_s: float


_REGISTERED: dict[str, Experiment] = {}


def experiment(
    title: str, *, count: int, quick: int, limit_s: float = 900.0
) -> Callable[[Callable[[int, Random], Outcome]], Callable[[int, Random], Outcome]]:
    """Return a decorator that registers a function as an experiment."""
    assert len(title) <= TITLE, title

    def register(run: Callable[[int, Random], Outcome]) -> Callable[[int, Random], Outcome]:
        name = run.__name__.replace("_", "-")
        module = run.__module__.rpartition(".")[2]
        assert name not in _REGISTERED, name
        _REGISTERED[name] = Experiment(name, module, title, cleandoc(run.__doc__ or ""), run, count, quick, limit_s)
        return run

    return register


def experiments() -> dict[str, Experiment]:
    """Return all experiments by name, in the order of the modules' names."""
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}")
    return dict(_REGISTERED)
