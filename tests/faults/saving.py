"""Loads of a folder to which another process saves models all the time."""

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tests.faults import Outcome, experiment
from tests.support.replaced_folders import load_while_saving


@experiment("loads while another process saves", count=30, quick=1)
def loads_while_saving(count: int, random: Random) -> Outcome:
    """Load a folder for a second per try, while a process saves to it: never a mixture of models, or an error."""
    outcome = Outcome()
    for _ in range(count):
        alternating, can_exchange = random.random() < 0.7, random.random() < 0.7
        with TemporaryDirectory() as folder:
            saves, found = load_while_saving(
                Path(folder, "model"), 1.0, alternating=alternating, can_exchange=can_exchange
            )
        wrong = {what: times for what, times in found.items() if what not in ("model 0", "model 1")}
        way = "exchanged" if can_exchange else "renamed twice"
        outcome.check(not wrong, way, f"alternating {alternating}, {way}, {saves} saves: {wrong}")
    return outcome
