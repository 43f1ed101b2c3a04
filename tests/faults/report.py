"""The table of the results, at most 100 columns wide, and the results as JSON."""

import textwrap
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tests.faults import TITLE, Experiment
from tests.faults.running import Result

HELD = 38  # characters of the third column
HEADER = f"{'what was tried':{TITLE}} {'times':>7}  {'what came of it':{HELD}} {'failed':>6} {'seconds':>7}"
RULE = "-" * len(HEADER)
SHOWN = 5  # failures of one experiment that are printed


def rows(result: Result) -> str:
    """The lines of an experiment in the table, and below it the first failures and the command that repeats them."""
    outcome = result.outcome
    held = ", ".join(f"{times:,} {how}" for how, times in sorted(outcome.held.items(), key=lambda item: -item[1]))
    held = f"skipped: {outcome.skipped}" if outcome.skipped else held
    first, *others = textwrap.wrap(held, HELD) or [""]
    lines = [
        f"{result.experiment.title:{TITLE}} {outcome.tried:7,}  {first:{HELD}} {len(outcome.failures):6,} "
        f"{result.seconds:7.1f}"
    ]
    lines += [f"{'':{TITLE + 10}}{line}" for line in others]
    for failure, times in Counter(outcome.failures).most_common(SHOWN):
        lines.append(textwrap.indent(failure + (f" ({times:,} times)" if times > 1 else ""), "    ! "))
    if (more := len(set(outcome.failures)) - SHOWN) > 0:
        lines.append(f"    ! and {more:,} others")
    if outcome.failures:
        lines.append(f"    ! repeat: {result.command}")
    return "\n".join(lines)


def as_json(result: Result) -> Mapping[str, Any]:
    """One result as JSON's values."""
    return {
        "name": result.experiment.name,
        "title": result.experiment.title,
        "tried": result.outcome.tried,
        "held": dict(result.outcome.held),
        "failures": result.outcome.failures,
        "skipped": result.outcome.skipped,
        "seconds": round(result.seconds, 1),
        "command": result.command,
    }


def listing(experiment: Experiment) -> str:
    """An experiment's names and what it does, for `--list`."""
    what = textwrap.fill(" ".join(experiment.what.split()), 98, initial_indent="  ", subsequent_indent="  ")
    return f"{experiment.name}: {experiment.title} ({experiment.count:,} times)\n{what}"
