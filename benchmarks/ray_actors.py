"""Ray Data against one process: short sentences per second, with actors that share the processors of this machine.

    python -m benchmarks.ray_actors [--texts N] [--rounds N] [--compute-type float32]

One process with as many threads as processors, and actors of one thread each, take turns. A round of Ray begins with
a dataset in memory, and starts the actors, each of which loads the model. So its rate is given twice: of the whole
round, and from the moment when a tenth of the vectors has come.
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
    found: dict[str, list[float]] = {"one process": [], "Ray, whole": [], "Ray, after the start": []}
    for _ in range(options.rounds):
        begin = time.perf_counter()
        encoder.encode(texts)
        found["one process"].append(len(texts) / (time.perf_counter() - begin))
        whole, running = by_ray(texts, processors, options.compute_type)
        found["Ray, whole"].append(whole)
        found["Ray, after the start"].append(running)
        time.sleep(1)
    ray.shutdown()
    base = statistics.median(found["one process"])
    print(f"{processor()}, {processors} processors, {len(texts):,} short sentences, {options.compute_type}\n")
    rows = [
        [name, f"{statistics.median(rates):,.0f}", f"{100 * statistics.median(rates) / base:.0f} %"]
        for name, rates in found.items()
    ]
    print(markdown(["", "sentences per second", "of one process"], rows))


def by_ray(texts: list[str], actors: int, compute_type: str) -> tuple[float, float]:
    """Return the sentences per second of the whole job, and those after the first tenth has come."""
    import ray

    from minilm_np.integrations.ray import BATCH_ROWS, embed_dataset

    blocks = max(2 * actors, len(texts) // BATCH_ROWS)
    dataset = ray.data.from_items([{"text": text} for text in texts], override_num_blocks=blocks).materialize()
    begin = time.perf_counter()
    done, since, at_first = 0, begin, 0
    embedded = embed_dataset(dataset, "text", threads_per_actor=1, actors=actors, compute_type=compute_type)
    for batch in embedded.iter_batches(batch_size=None, batch_format="numpy"):
        done += len(batch["embedding"])
        if not at_first and done >= len(texts) // 10:
            at_first, since = done, time.perf_counter()
    end = time.perf_counter()
    assert done == len(texts)
    return done / (end - begin), (done - at_first) / max(end - since, 1e-9)


if __name__ == "__main__":
    main()
