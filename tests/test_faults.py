"""The faults suite: a few tries of every experiment; and a suite that notices what fails, hangs or dies."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from random import Random
from typing import Any

import pytest

from tests.faults import Experiment, Outcome, experiments
from tests.faults.report import rows
from tests.faults.running import run
from tests.support.places import CHECKOUT

NEEDS_WEIGHTS = ("text-ids",)
QUICK = [
    pytest.param(one, marks=[pytest.mark.weights] * (name in NEEDS_WEIGHTS), id=name)
    for name, one in experiments().items()
    if one.quick
]


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """The results of `python -m tests.faults --quick`, by experiment."""
    command = [sys.executable, "-m", "tests.faults", "--quick", "--json", "--jobs", "2"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=600, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == any(result["failures"] for result in found), done.stderr
    return {result["name"]: result for result in found}


@pytest.mark.parametrize("experiment", QUICK)
def test_nothing_fails(results: dict[str, Any], experiment: Experiment) -> None:
    result = results[experiment.name]
    if result["skipped"] and not os.environ.get("CI"):
        pytest.skip(result["skipped"])
    assert not result["skipped"]
    assert not result["failures"], "\n".join([*result["failures"], f"repeat: {result['command']}"])
    assert result["tried"] >= experiment.quick


# ---- the suite itself ------------------------------------------------------------------------------------------------


def held(count: int, random: Random) -> Outcome:
    outcome = Outcome()
    for _ in range(count):
        outcome.check(random.random() < 2, "right", "wrong")
    return outcome


def failed(count: int, random: Random) -> Outcome:
    outcome = held(count, random)
    outcome.check(False, "right", f"drawn: {random.random()}")
    return outcome


def raised(count: int, random: Random) -> Outcome:
    raise ValueError("a fault")


def died(count: int, random: Random) -> Outcome:
    os.kill(os.getpid(), signal.SIGKILL)
    return Outcome()


def hung(count: int, random: Random) -> Outcome:
    subprocess.run(["sleep", "600"], check=False)
    return Outcome()


def outcome_of(function: Any, limit_s: float = 60.0) -> Outcome:
    """What the suite reports for three tries of an experiment."""
    experiment = Experiment("name", "module", "title", "what", function, 3, 1, limit_s)
    (result,) = run([experiment], quick=False, count=None, seconds=0.0, seed=4, jobs=1)
    assert result.command == "python -m tests.faults name --count 3 --seed 4"
    text = rows(result)
    assert ("repeat: python -m tests.faults name --count 3 --seed 4" in text) == bool(result.outcome.failures)
    assert all(len(line) <= 100 for line in text.splitlines() if "!" not in line)
    return result.outcome


def test_tries_are_counted() -> None:
    assert outcome_of(held) == Outcome(Counter(right=3))


def test_a_failure_is_reported_and_the_seed_repeats_it() -> None:
    first, second = outcome_of(failed), outcome_of(failed)
    assert first.failures == second.failures
    assert len(first.failures) == 1
    assert first.tried == 4


def test_an_exception_is_a_failure() -> None:
    assert "ValueError: a fault" in outcome_of(raised).failures[0]


def test_the_death_of_the_process_is_a_failure() -> None:
    assert outcome_of(died).failures == ["the experiment's process ended with exit code -9"]


def test_an_experiment_that_hangs_is_killed() -> None:
    began = time.monotonic()
    assert outcome_of(hung, limit_s=0.5).failures == ["no end within 0 s"]
    assert time.monotonic() - began < 60


def test_the_experiments_are_described() -> None:
    page = (CHECKOUT / "minilm_np" / "docs" / "faults.md").read_text(encoding="utf-8")
    for experiment in experiments().values():
        assert f"| {experiment.title} |" in page, "write the page anew: python -m tests.faults --markdown"
        assert f"(`{experiment.name}`)" in page, experiment.name
        assert experiment.what.endswith("."), experiment.name
        assert 0 <= experiment.quick <= experiment.count, experiment.name
