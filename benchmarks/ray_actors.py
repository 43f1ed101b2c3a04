"""Ray Data against one process: short sentences per second, with actors that share the processors of this machine.

    python -m benchmarks.ray_actors [--texts N] [--rounds N] [--compute-type float32]

One process with as many threads as processors, and actors of one thread each, take turns. A round of Ray begins with
a dataset in memory, and starts the actors, each of which loads the model. So a second job is timed: one text per actor,
which is little more than that start.
"""

import argparse
import os
import statistics
import time

from benchmarks.common import markdown, processor
from benchmarks.texts import short_sentences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=100_000, metavar="N", help="default: 100,000")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--compute-type", default="float32", help="default: float32")
    options = parser.parse_args()

    import ray

    from minilm_np import SentenceEncoder

    processors = len(os.sched_getaffinity(0))
    texts = short_sentences(options.texts)
    encoder = SentenceEncoder(threads=processors, compute_type=options.compute_type)
    encoder.encode(texts[:1000])
    ray.init(num_cpus=processors, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    found: dict[str, list[float]] = {"one process": [], "Ray": []}
    starts = []
    for _ in range(options.rounds):
        begin = time.perf_counter()
        encoder.encode(texts)
        found["one process"].append(len(texts) / (time.perf_counter() - begin))
        found["Ray"].append(len(texts) / seconds_of_ray(texts, processors, options.compute_type))
        starts.append(seconds_of_ray(texts[:processors], processors, options.compute_type))
        time.sleep(1)
    ray.shutdown()
    base = statistics.median(found["one process"])
    print(f"{processor()}, {processors} processors, {len(texts):,} short sentences, {options.compute_type}\n")
    rows = [
        [name, f"{statistics.median(rates):,.0f}", f"{100 * statistics.median(rates) / base:.0f} %"]
        for name, rates in found.items()
    ]
    print(markdown(["", "sentences per second", "of one process"], rows))
    print(f"\nA job of Ray with one text per actor takes {statistics.median(starts):.1f} s.")


def seconds_of_ray(texts: list[str], actors: int, compute_type: str) -> float:
    """Return the seconds of one job, from the start of its actors to its last vector."""
    import ray

    from minilm_np.integrations.ray import BATCH_ROWS, embed_dataset

    blocks = min(len(texts), max(2 * actors, len(texts) // BATCH_ROWS))
    dataset = ray.data.from_items([{"text": text} for text in texts], override_num_blocks=blocks).materialize()
    begin = time.perf_counter()
    embedded = embed_dataset(dataset, "text", threads_per_actor=1, actors=actors, compute_type=compute_type)
    done = sum(len(batch["embedding"]) for batch in embedded.iter_batches(batch_size=None, batch_format="numpy"))
    seconds = time.perf_counter() - begin
    assert done == len(texts)
    return seconds


if __name__ == "__main__":
    main()
