"""How near the integer engine's vectors are to those of the float32 engine.

    python -m benchmarks.integer_accuracy [--sts FILE.tsv] [--texts N] [FILE ...]

It prints, for both compute types, 1 - cosine to the float32 vectors over N texts of 3 to 256 tokens, and the Spearman
correlation on a file of sentence pairs (the columns score, sentence1, sentence2). The texts are made of the lines of
the files: single lines, and lines joined to longer texts. A line of a .jsonl.gz is a list of strings. Without files,
the texts are words in a random order. The rates of the products are measured by `benchmarks.integer_products`.
"""

import argparse
import gzip
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import markdown, processor
from benchmarks.texts import mixed, read_pairs
from minilm_np.engine.float32.engine import Float32Engine
from minilm_np.engine.integer.engine import IntegerEngine
from minilm_np.engine.integer.reference import COMPUTE_TYPES
from minilm_np.engine.runtime.integer_target import integer_target
from minilm_np.evaluation import spearman
from minilm_np.model_files.checkpoint import iter_checkpoint
from minilm_np.model_files.folder_config import load_config
from minilm_np.model_files.hub import resolve
from minilm_np.model_files.manifest import DEFAULT_MODEL
from minilm_np.text.tokenizer_files import load_tokenizer

Vectors = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="files of texts")
    parser.add_argument("--texts", type=int, default=2000, help="number of texts (default: %(default)s)")
    parser.add_argument("--sts", type=Path, help="a .tsv of sentence pairs with scores")
    options = parser.parse_args()
    print(f"{processor()}, integer target {integer_target()}")
    accuracy(options.files, options.texts, options.sts)


def accuracy(files: Sequence[Path], n_texts: int, sts: Path | None) -> None:
    folder = resolve(DEFAULT_MODEL)
    config = load_config(folder.path)
    tokenizer = load_tokenizer(folder.path, config)
    texts = list(_joined(files, n_texts)) if files else mixed(n_texts, 3, config.max_seq_length)
    ids = tokenizer(texts).ids
    scores, first, second = read_pairs(sts) if sts else ([], [], [])
    pairs = tokenizer([*first, *second]).ids
    lengths = [len(text) for text in ids]
    print(f"{len(ids)} texts of {min(lengths)} to {max(lengths)} tokens, {sum(lengths)} in all; {len(scores)} pairs")

    def vectors(engine: Float32Engine, texts: list[list[int]]) -> Vectors:
        found = engine.encode(texts, normalize=True).astype(np.float64)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def correlation(engine: Float32Engine) -> float:
        if not scores:
            return float("nan")
        found = vectors(engine, pairs)
        cosines = (found[: len(scores)] * found[len(scores) :]).sum(axis=1)
        return 100 * spearman(np.array(scores), cosines)

    rows = []
    engine = Float32Engine(config, iter_checkpoint(folder.path, config))
    truth, base = vectors(engine, ids), correlation(engine)
    rows.append(["float32", "0", "0", "0", "0", f"{base:.3f}" if scores else "-"])
    for compute_type in COMPUTE_TYPES:
        engine = IntegerEngine(
            config,
            iter_checkpoint(folder.path, config),
            compute_type=compute_type,
            reread=lambda: iter_checkpoint(folder.path, config),
        )
        found = vectors(engine, ids)
        distances = 1 - (found * truth).sum(axis=1)
        figures = (distances.mean(), np.quantile(distances, 0.99), distances.max(), np.abs(found - truth).max())
        found_there = correlation(engine)
        shown = f"{found_there:.3f} ({found_there - base:+.3f})" if scores else "-"
        rows.append([compute_type, *(f"{figure:.1e}" for figure in figures), shown])
    headings = ["", "1 - cosine: mean", "99 %", "largest", "largest difference of a number", "Spearman"]
    print(markdown(headings, rows))


def _joined(files: Sequence[Path], n_texts: int) -> Iterator[str]:
    """Texts of the lines of the files: one line, or lines joined to a random number of words of up to 230."""
    generator = random.Random(0)
    lines = [line for file in files for line in _lines(file)]
    for number in range(n_texts):
        text = generator.choice(lines)
        words = generator.randint(1, 230) if number % 2 else 0
        while len(text.split()) < words:
            text += " " + generator.choice(lines)
        yield text


def _lines(path: Path) -> Iterator[str]:
    if path.name.endswith(".jsonl.gz"):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield from json.loads(line)
    else:
        yield from filter(None, path.read_text(encoding="utf-8").splitlines())


if __name__ == "__main__":
    main()
