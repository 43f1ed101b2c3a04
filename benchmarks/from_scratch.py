"""A lesson: train a small model from scratch, and compare what it finds before and after.

    python -m benchmarks.from_scratch TRAIN TEST --output DIR [--steps N] [--query TEXT]...

TRAIN, TEST: pairs of texts, as for `minilm-np train`. The model starts with a vocabulary learned from TRAIN and with
random weights, as with `minilm-np train --init random`. Prints MRR@10 and, for each query, the nearest second texts of
TEST, both before and after training. DIR receives the model, its log and its chart; to search with the model, use
`minilm-np search --model DIR/model`.
"""

import argparse
import time

from minilm_np import MiniLMError, ModelConfig, SentenceEncoder, util
from minilm_np.evaluation import retrieval
from minilm_np.train.data import open_data, read_samples
from minilm_np.train.loop import Habits, TrainingOptions, train
from minilm_np.train.scratch import new_encoder

CONFIG = ModelConfig(
    vocab_size=8000, hidden_size=128, num_hidden_layers=3, num_attention_heads=4, intermediate_size=512,
    max_position_embeddings=128, max_seq_length=128,
)  # fmt: skip
QUERIES = ("unpack a zip archive", "stop a service", "rename a git branch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", metavar="TRAIN", help="pairs to train with")
    parser.add_argument("test", metavar="TEST", help="pairs to evaluate with")
    parser.add_argument("--output", required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--steps", type=int, default=1000, help="number of steps (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=128, help="pairs per step (default: %(default)s)")
    parser.add_argument("--query", action="append", help="a text to search for; may be repeated (default: three texts)")
    options = parser.parse_args()
    try:
        lesson(options)
    except MiniLMError as error:
        parser.exit(1, f"{error}\n")


def lesson(options: argparse.Namespace) -> None:
    """Search, train, and search again."""
    data = open_data(options.train, batch_size=options.batch_size)
    encoder = new_encoder(data.texts(), CONFIG)
    documents = sorted({texts[1] for texts in read_samples(options.test)})
    queries = options.query or list(QUERIES)
    print(f"before: MRR@10 {retrieval(encoder, options.test)['MRR@10']:.3f}")
    show(encoder, queries, documents)
    recipe = TrainingOptions(steps=options.steps, rate=1e-3)
    habits = Habits(evaluate_every=max(1, options.steps // 4), progress=True)
    evaluations = {"MRR@10": lambda current: retrieval(current, options.test)["MRR@10"]}
    began = time.perf_counter()
    train(encoder, data, options.output, recipe, habits, evaluations=evaluations)
    encoder = SentenceEncoder(f"{options.output}/model")
    seconds = time.perf_counter() - began
    print(f"after {options.steps} steps, {seconds:.0f} s: MRR@10 {retrieval(encoder, options.test)['MRR@10']:.3f}")
    show(encoder, queries, documents)


def show(encoder: SentenceEncoder, queries: list[str], documents: list[str]) -> None:
    """Print the three documents nearest to each query, with their cosines."""
    corpus = encoder.encode(documents, on_truncation="ignore")
    found = util.semantic_search(encoder.encode(queries), corpus, top_k=3)
    for query, hits in zip(queries, found, strict=True):
        print(f"    {query}")
        for hit in hits:
            print(f"        {hit['score']:.3f}  {documents[int(hit['corpus_id'])][:80]}")


if __name__ == "__main__":
    main()
