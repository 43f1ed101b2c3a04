"""The table of the results, at most 100 columns wide, and the results as JSON."""

import textwrap
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tests.faults import TITLE, Experiment, Outcome
from tests.faults.running import Result

HELD = 38  # characters of the third column
HEADER = f"{'what was tried':{TITLE}} {'times':>7}  {'what came of it':{HELD}} {'failed':>6} {'seconds':>7}"
RULE = "-" * len(HEADER)
SHOWN = 5  # failures of one experiment that are printed
LONGEST = 2000  # characters of a failure that are printed


def rows(result: Result) -> str:
    """The lines of an experiment in the table, and below it the first failures and the command that repeats them."""
    outcome = result.outcome
    first, *others = textwrap.wrap(_held(outcome), HELD) or [""]
    lines = [
        f"{result.experiment.title:{TITLE}} {outcome.tried:7,}  {first:{HELD}} {len(outcome.failures):6,} "
        f"{result.seconds:7.1f}"
    ]
    lines += [f"{'':{TITLE + 10}}{line}" for line in others]
    for failure, times in Counter(outcome.failures).most_common(SHOWN):
        shown = failure if len(failure) <= LONGEST else f"{failure[:LONGEST]} ..."
        lines.append(textwrap.indent(shown + (f" ({times:,} times)" if times > 1 else ""), "    ! "))
    if (more := len(set(outcome.failures)) - SHOWN) > 0:
        lines.append(f"    ! and {more:,} others")
    if outcome.failures:
        lines.append(f"    ! repeat: {result.command}")
    return "\n".join(lines)


def _held(outcome: Outcome) -> str:
    """How the tries ended that ended well, the most frequent first."""
    if outcome.skipped:
        return f"skipped: {outcome.skipped}"
    return ", ".join(f"{times:,} {how}" for how, times in sorted(outcome.held.items(), key=lambda item: -item[1]))


MARKDOWN_HEADER = "| what was tried | times | what came of it | failed | seconds |\n|---|--:|---|--:|--:|"


def markdown_row(result: Result) -> str:
    """The row of an experiment in the table of the manual."""
    outcome = result.outcome
    return (
        f"| {result.experiment.title} | {outcome.tried:,} | {_held(outcome)} | {len(outcome.failures):,} | "
        f"{result.seconds:,.0f} |"
    )


def markdown_item(experiment: Experiment) -> str:
    """What an experiment does, as an item of a list in the manual."""
    text = f"**{experiment.title}** (`{experiment.name}`): {' '.join(experiment.what.split())}"
    return textwrap.fill(text, 120, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)


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
