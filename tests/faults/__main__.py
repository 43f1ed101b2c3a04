"""The command `python -m tests.faults`."""

import argparse
import json
import os
import sys

# BLAS's threads wait by spinning, and would survive in no forked process
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from tests.faults import Experiment, experiments
from tests.faults.report import HEADER, MARKDOWN_HEADER, RULE, as_json, listing, markdown_item, markdown_row, rows
from tests.faults.running import run


def main() -> int:
    """Run the experiments that the arguments choose; return 1 if anything failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="Break what surrounds the package, and check that no wrong result comes of it.",
        epilog="exit code: 0 if everything held, 1 if anything failed",
    )
    parser.add_argument(
        "names",
        metavar="EXPERIMENT",
        nargs="*",
        help="names of experiments, beginnings of names, or modules (default: all)",
    )
    parser.add_argument("--list", action="store_true", help="print the experiments, and run none")
    parser.add_argument("--quick", action="store_true", help="a few tries of each, as the test suite does")
    parser.add_argument("--count", type=int, metavar="N", help="tries of each experiment (default: its own number)")
    parser.add_argument(
        "--seconds", type=float, default=0.0, metavar="S", help="repeat each, with the next seeds, for S seconds"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of what is random (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="experiments at a time (default: 1)")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print one JSON object per experiment")
    output.add_argument("--markdown", action="store_true", help="print the table and the list of the manual's page")
    options = parser.parse_args()

    found = experiments().values()
    if unknown := [name for name in options.names if not any(_is_meant(one, name) for one in found)]:
        parser.error(f"expected names of experiments or modules, found {', '.join(unknown)}: `--list` prints them")
    chosen = [one for one in found if not options.names or any(_is_meant(one, name) for name in options.names)]
    if options.list:
        print("\n".join(map(listing, chosen)))
        return 0

    failed = tried = 0
    if not options.json:
        print(MARKDOWN_HEADER if options.markdown else f"{HEADER}\n{RULE}")
    for result in run(
        chosen, quick=options.quick, count=options.count, seconds=options.seconds, seed=options.seed, jobs=options.jobs
    ):
        failed += len(result.outcome.failures)
        tried += result.outcome.tried
        if options.json:
            print(json.dumps(as_json(result)), flush=True)
        else:
            print(markdown_row(result) if options.markdown else rows(result), flush=True)
    if options.markdown:
        print("\n" + "\n".join(map(markdown_item, chosen)))
    elif not options.json:
        print(f"{RULE}\n{tried:,} tries, {failed:,} failed; seed {options.seed}")
    return 1 if failed else 0


def _is_meant(experiment: Experiment, name: str) -> bool:
    return experiment.name.startswith(name) or experiment.module == name


if __name__ == "__main__":
    sys.exit(main())
