"""`minilm-np embed` against `encode` of the same texts in memory: rate and peak memory; and kills at random moments.

    python -m benchmarks.jobs [--texts 1000000] [--rounds 1] [--compute-type float32] [--output npy] [--kills 50]
                              [--quick] [--json FILE]

The texts are different short sentences of 5 to 40 tokens. Every figure comes from a new process. The two of a round
take turns of --turn seconds: one is stopped (SIGSTOP) while the other works, so a machine whose speed changes meanwhile
changes both; the seconds of a process are those of its turns. The rate of `encode` counts the call only: its texts are
in memory, and its vectors stay there. That of `embed` counts everything from the call of `embed_files` to the finished
file: reading, the fingerprint of the model, flushing each part to the disk, joining the parts. Memory is VmHWM, the
peak of the process. The CPU time per text shows whether something else ran meanwhile: undisturbed, it is nearly the
number of threads divided by the rate.

--kills N: N times, a process of the command is killed (SIGKILL) at a random moment of its run, from its start on. The
same command then continues, and the bytes of its output are compared with those of a run that nothing disturbed.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.common import CHECKOUT, Worker, describe, machine, markdown, peak_memory, say, take_stdout, write_json
from benchmarks.texts import short_sentences
from minilm_np import SentenceEncoder
from minilm_np.engine.registry import COMPUTE_TYPES
from minilm_np.jobs import embed_files
from minilm_np.model_files.hub import fetch

KILL_TEXTS, QUICK_TEXTS = 4000, 1500
PART_ROWS = 256  # of the killed jobs, so that they have many parts

# The command, with smaller parts.
COMMAND = """
import sys
from minilm_np import cli
from minilm_np.jobs import cutting
cutting.PART_ROWS = int(sys.argv[1])
sys.exit(cli.main(sys.argv[2:]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1_000_000, help="number of texts (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="processes of each kind (default: %(default)s)")
    parser.add_argument("--turn", type=float, default=1.0, help="seconds of a turn (default: %(default)s)")
    parser.add_argument("--compute-type", choices=COMPUTE_TYPES, default="float32", help="(default: %(default)s)")
    parser.add_argument("--output", choices=("npy", "parquet", "jsonl"), default="npy", help="(default: %(default)s)")
    parser.add_argument("--kills", type=int, default=50, help="number of kills, 0 for none (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--quick", action="store_true", help="few texts and kills, only to check that it runs")
    parser.add_argument("--json", type=Path, help="write every measured figure to this file")
    options = parser.parse_args()
    n_texts, kills = (QUICK_TEXTS, 3) if options.quick else (options.texts, options.kills)
    facts = machine()
    print(describe(facts))
    folder = str(fetch(on_message=lambda message: None).path)
    with TemporaryDirectory(prefix="minilm-np-jobs-") as scratch:
        runs = rates(folder, Path(scratch), n_texts, options) if n_texts else []
        if n_texts:
            print_rates(runs, n_texts, options)
        killed = kill(folder, Path(scratch), QUICK_TEXTS if options.quick else KILL_TEXTS, kills, options.seed)
    if options.json:
        write_json(options.json, {"machine": facts, "texts": n_texts, "runs": runs, "kills": killed})
    if killed["wrong"]:
        sys.exit(f"{killed['wrong']} outputs of {kills} differ")


def rates(folder: str, scratch: Path, n_texts: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The figures of a process of each kind per round."""
    texts = scratch / "texts.txt"
    texts.write_text("".join(f"{text}\n" for text in short_sentences(n_texts)), encoding="utf-8")
    runs = []
    output = str(scratch / f"out.{options.output}")
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}: encode and embed in turns, {n_texts:,} texts each")
        workers = {
            kind: Worker("-m", "benchmarks.jobs", "worker", kind, folder, options.compute_type, str(texts), output)
            for kind in ("encode", "embed")
        }
        for worker in workers.values():
            worker.answer()  # it is ready
        seconds = in_turns(list(workers.values()), options.turn)
        for (kind, worker), own in zip(workers.items(), seconds, strict=True):
            runs.append({"kind": kind, "seconds": own, **worker.answer()})
            worker.close()
    return runs


def in_turns(workers: list[Worker], turn: float) -> list[float]:
    """Let workers that are ready work, one at a time -> the seconds that each of them worked."""
    seconds = [0.0] * len(workers)
    for worker in workers:
        worker.tell(go=True)
        worker.pause()
    working = list(range(len(workers)))
    try:
        while working:
            for number in list(working):
                began = time.perf_counter()
                workers[number].resume()
                if workers[number].answers_within(turn):
                    working.remove(number)
                else:
                    workers[number].pause()
                seconds[number] += time.perf_counter() - began
    finally:
        for worker in workers:
            worker.resume()
    return seconds


def work(pipe: Any, kind: str, folder: str, compute_type: str, texts: str, output: str) -> None:
    """The work of such a process: it says that it is ready, waits for a line, works, and writes what it measured."""
    encoder = SentenceEncoder(folder, compute_type=compute_type)
    encoder.encode(short_sentences(100, seed=1))
    lines = Path(texts).read_text(encoding="utf-8").splitlines() if kind == "encode" else []
    print(json.dumps("ready"), file=pipe)
    sys.stdin.readline()
    cpu = time.process_time()
    if kind == "encode":
        encoder.encode(lines)
    else:
        embed_files(texts, output, encoder=encoder, overwrite=True)
    print(json.dumps({"cpu_seconds": time.process_time() - cpu, "peak": peak_memory()}), file=pipe)


def print_rates(runs: list[dict[str, Any]], n_texts: int, options: argparse.Namespace) -> None:
    """Print the rates, the ratio and the memory."""
    seconds = {kind: [run["seconds"] for run in runs if run["kind"] == kind] for kind in ("encode", "embed")}
    rows = [
        [
            "`encode` in memory" if kind == "encode" else f"`embed` to .{options.output}",
            f"{n_texts / statistics.median(seconds[kind]):,.0f}",
            f"{1000 * statistics.median(run['cpu_seconds'] for run in runs if run['kind'] == kind) / n_texts:.2f}",
            f"{statistics.median(run['peak'] for run in runs if run['kind'] == kind) / 1e6:,.0f}",
        ]
        for kind in seconds
    ]
    print(f"\n{n_texts:,} short sentences, {options.compute_type}\n")
    print(markdown(["", "texts / s", "CPU ms per text", "peak memory, MB"], rows))
    ratios = [100 * before / after for before, after in zip(seconds["encode"], seconds["embed"], strict=True)]
    listed = ", ".join(f"{ratio:.1f}" for ratio in ratios)
    print(f"\n`embed` reaches {statistics.median(ratios):.1f} % of the rate of `encode` (rounds: {listed}).")


def kill(folder: str, scratch: Path, n_texts: int, kills: int, seed: int) -> dict[str, int]:
    """Kill and continue jobs -> how many were killed before they ended, and how many outputs differ."""
    if not kills:
        return {"kills": 0, "wrong": 0}
    texts, moments = scratch / "killed.txt", random.Random(seed)
    texts.write_text("".join(f"{text}\n" for text in short_sentences(n_texts)), encoding="utf-8")
    command = [sys.executable, "-c", COMMAND, str(PART_ROWS), "embed", str(texts), "--model", folder, "--output"]
    whole, cut = scratch / "whole.npy", scratch / "cut.npy"
    began = time.monotonic()
    subprocess.run([*command, str(whole)], check=True, cwd=CHECKOUT, stderr=subprocess.DEVNULL)
    seconds, expected = time.monotonic() - began, whole.read_bytes()
    wrong = killed = parts = 0
    for number in range(kills):
        say(f"kill {number + 1} of {kills}")
        process = subprocess.Popen([*command, str(cut)], cwd=CHECKOUT, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=moments.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
        parts += len(list(scratch.glob("cut.npy.parts/[0-9]*.json")))
        if not cut.exists() or (scratch / "cut.npy.parts").exists():
            subprocess.run([*command, str(cut)], check=True, cwd=CHECKOUT, stderr=subprocess.DEVNULL)
        left = [path.name for path in scratch.iterdir() if "cut.npy" in path.name]
        wrong += cut.read_bytes() != expected or left != ["cut.npy"]
        cut.unlink()
    print(
        f"\n{kills} jobs of {n_texts:,} texts in parts of {PART_ROWS}: {killed} killed, the others had ended; "
        f"{parts / kills:.1f} parts were finished on average; continued, {kills - wrong} of {kills} have equal bytes."
    )
    return {"kills": kills, "killed": killed, "wrong": wrong}


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        work(take_stdout(), *sys.argv[2:])
    else:
        main()
