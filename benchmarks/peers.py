"""Compare this project with the other engines that run the model on a CPU, at every precision, from text to vector.

    python -m benchmarks.peers [--quick] [--sts FILE.tsv] [--rounds N] [--threads N] [--busy N] [--only KEY,...]
                               [--workloads NAME,...] [--json FILE] [--chart FILE.png]

Each variant of each engine, with each type of numbers, runs in a separate process, on the same number of threads;
`contestants.py` lists them. A contestant that is not installed or does not run is left out and named.

1. Accuracy: 1 - cosine to the reference in float64 over 200 texts, and the Spearman correlation on a .tsv of sentence
   pairs (the columns score, sentence1, sentence2). They decide the group of an engine. A group includes the engines of
   the groups before it, because a user can choose them as well:
       float32                       no number of a vector is off by more than 1e-5
       as close as bf16 or closer    1 - cosine is at most 1e-4 on average
       8 bits                        the others
   An engine whose correlation is more than 0.5 below that of float32 is shown, and not counted.
2. Tuning: each engine that takes padded batches gets the batch size that is the fastest for the workload. A variant
   that is clearly slower than another variant of the same engine is not measured any more for this workload.
3. Rounds: the engines take turns: a block of calls, a pause, the next engine. Without the pause the spinning threads of
   most engines would slow the next one. Each round begins with another engine.
4. Starts: process start to first vector, in turns, with files in the page cache and kernels compiled.
5. The share of the sustained peak of float32 fma that our dense layers and attention reach: see `benchmarks.peak`.

With --busy, other processes compute during 3 and 4.
"""

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import machine, say, write_json
from benchmarks.contestants import CONTESTANTS
from benchmarks.install_size import installed_size, own_requirements
from benchmarks.peers_accuracy import Judge, fault
from benchmarks.peers_field import Field, UnfitError, contestants_here, start
from benchmarks.peers_figures import summary
from benchmarks.peers_report import tables
from benchmarks.workloads import Workload, flops, workloads
from minilm_np import SentenceEncoder
from minilm_np.engine.runtime.workers import default_threads
from minilm_np.model_files.folder_config import load_config
from minilm_np.model_files.hub import fetch

TRUSTED = "minilm_np-float32"  # its vectors of the workloads are the expected ones, after its accuracy was measured
CLEARLY_SLOWER = 1.2  # times the time of an engine's best variant
SLOW_START = 4.0  # seconds; what needs longer is started only twice
ACCURACY, PAIRS = "accuracy", "pairs"  # the names of these texts, beside the workloads

Times = dict[str, dict[str, list[list[float]]]]  # by workload and contestant: the seconds of every call, by round


class Course:
    """The number of rounds and texts, and the duration of blocks and pauses."""

    def __init__(self, quick: bool, rounds: int | None) -> None:
        self.rounds = rounds or (1 if quick else 5)
        self.accuracy_texts = 10 if quick else 200
        self.block_seconds, self.pause = (0.02, 0.02) if quick else (0.5, 0.3)
        self.begin = time.perf_counter()

    def say(self, what: str) -> None:
        say(f"{time.perf_counter() - self.begin:.0f} s: {what}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few texts and repeats, as a smoke test")
    parser.add_argument("--sts", type=Path, metavar="FILE", help="a .tsv of sentence pairs with scores")
    parser.add_argument("--rounds", type=int, metavar="N", help="number of rounds (default: 5; with --quick 1)")
    parser.add_argument(
        "--threads", type=int, metavar="N", default=default_threads(), help="per engine (default: %(default)s)"
    )
    parser.add_argument(
        "--busy", type=int, metavar="N", default=0, help="processes that compute beside the engines (default: 0)"
    )
    parser.add_argument("--only", metavar="KEY,...", help="the first letters of the peers: onnxruntime,openvino-bf16")
    parser.add_argument("--workloads", metavar="NAME,...", help=f"some of {','.join(workloads())} (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measured figure to FILE")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw time against accuracy as PNG to FILE")
    options = parser.parse_args()
    loads = workloads(options.quick)
    if options.workloads:
        names = options.workloads.split(",")
        if unknown := [name for name in names if name not in loads]:
            parser.error(f"argument --workloads: expected some of {', '.join(loads)}, found {', '.join(unknown)}")
        loads = {name: loads[name] for name in names}

    found = measured(loads, Course(options.quick, options.rounds), options)
    found["summary"] = summary(found)
    print(tables(found))
    if options.json:
        write_json(options.json, found)
    if options.chart:
        from benchmarks.peers_chart import chart

        chart(found, options.chart)


def measured(loads: dict[str, Workload], course: Course, options: argparse.Namespace) -> dict[str, Any]:
    """Return all measurements."""
    found: dict[str, Any] = {
        "machine": machine(), "threads": options.threads, "busy": options.busy, "rounds": course.rounds,
        "quick": options.quick, "left_out": {},
    }  # fmt: skip
    folder = fetch(on_message=lambda message: None).path
    found["workloads"] = described(folder, loads)
    models = contestants_here(options.only, found["left_out"])
    course.say("computing the reference in float64")
    judge = Judge(course.accuracy_texts, options.sts)
    texts = {name: load.texts for name, load in loads.items()} | {ACCURACY: judge.texts, PAIRS: judge.pairs}
    course.say(f"loading {len(models)} contestants")
    with Field(models, str(folder), options.threads, texts, found["left_out"]) as field:
        course.say("measuring the accuracy")
        found["accuracy"] = field.each(
            lambda key: judge.judge(
                field.vectors(key, ACCURACY), field.vectors(key, PAIRS) if judge.pairs else None
            )._asdict()
        )
        found["tuned"] = {workload: tune(field, workload, course) for workload in loads}
        with busy(options.busy):
            found["times"] = compare(field, {name: finalists(times) for name, times in found["tuned"].items()}, course)
        course.say("measuring the sustained peak")
        found["sustained"] = {
            workload: field.ask(TRUSTED, "sustained", workload=workload, seconds=2 * course.block_seconds)
            for workload in loads
        }
        here = [key for key in field if CONTESTANTS[key].starts]
    with busy(options.busy):
        found["starts"] = starts({key: models[key] for key in here}, str(folder), options.threads, course)
    found["sizes"] = {
        CONTESTANTS[key].engine.name: installed_size(CONTESTANTS[key].engine.distributions or own_requirements())
        for key in here
    }
    return found


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Run `count` processes that only compute, until the block ends."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def described(folder: Path, loads: dict[str, Workload]) -> dict[str, dict[str, Any]]:
    """Return the title, the tokens and the FLOP of each workload."""
    config, tokenizer = load_config(folder), SentenceEncoder(backend="numpy").tokenizer
    found = {}
    for name, load in loads.items():
        lengths = tokenizer(load.texts).n_tokens
        found[name] = {
            "title": load.title,
            "texts": len(lengths),
            "tokens": sum(lengths),
            "flops": flops(lengths, config),
        }
    return found


# ---- the workloads ---------------------------------------------------------------------------------------------------


def tune(field: Field, workload: str, course: Course) -> dict[str, float]:
    """Let each contestant choose its batch size, and check its vectors. Returns the seconds of a call of each."""
    course.say(f"tuning: {workload}")
    expected = None

    def one(key: str) -> float:
        time.sleep(course.pause)
        seconds = field.ask(key, "tune", workload=workload, seconds=course.block_seconds)
        if expected is not None and (reason := fault(field.vectors(key, workload), expected)):
            raise UnfitError(reason)
        return float(seconds)

    found = field.each(one, [TRUSTED])
    expected = field.vectors(TRUSTED, workload)
    return found | field.each(one, [key for key in field if key != TRUSTED])


def finalists(seconds: dict[str, float]) -> list[str]:
    """Return the contestants that may be the fastest variant of their engine and numbers."""
    best: dict[str, float] = {}
    for key, value in seconds.items():
        best[CONTESTANTS[key].name] = min(value, best.get(CONTESTANTS[key].name, value))
    return [key for key, value in seconds.items() if value <= CLEARLY_SLOWER * best[CONTESTANTS[key].name]]


def compare(field: Field, keys: dict[str, list[str]], course: Course) -> Times:
    """Return the seconds of every call of the contestants of each workload."""
    times: Times = {workload: {key: [] for key in keys[workload]} for workload in keys}
    for number in range(course.rounds):
        course.say(f"round {number + 1} of {course.rounds}")
        for workload, turns in keys.items():
            here = [key for key in turns if key in set(field)]
            first = number * len(here) // course.rounds

            def one(key: str, workload: str = workload) -> None:
                time.sleep(course.pause)
                times[workload][key].append(field.ask(key, "time", workload=workload, seconds=course.block_seconds))

            field.each(one, here[first:] + here[:first])
    alive = set(field)
    return {name: {key: value for key, value in found.items() if key in alive} for name, found in times.items()}


# ---- start, memory ---------------------------------------------------------------------------------------------------


def starts(models: dict[str, str], folder: str, threads: int, course: Course) -> dict[str, dict[str, list[float]]]:
    """Return, by contestant, the seconds from process start to first vector, and the bytes of peak memory.

    The contestants are started in turns. The first start of each fills the page cache and is not counted, unless there
    is only one.
    """
    course.say("measuring the start of each engine")
    found: dict[str, dict[str, list[float]]] = {key: {"seconds": [], "memory": []} for key in models}
    for number in range(0 if course.rounds > 1 else 1, course.rounds + 1):
        for key, figures in found.items():
            if number > 2 and statistics.median(figures["seconds"]) > SLOW_START:
                continue
            time.sleep(course.pause)
            begin = time.perf_counter()
            worker = start(key, folder, models[key], threads, "first")
            worker.answer()
            seconds = time.perf_counter() - begin
            memory = worker.answer()
            worker.close()
            if number:
                figures["seconds"].append(seconds)
                figures["memory"].append(memory)
    return found


if __name__ == "__main__":
    main()
