"""Spearman's correlation of cosine with human scores: python -m benchmarks.sts FILE.tsv

FILE has a header line and three tab-separated columns: score, sentence1, sentence2 (the STS benchmark's development
part gives 86.72 for the published model).
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from minilm_np import SentenceEncoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    options = parser.parse_args()
    with options.file.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    encoder = SentenceEncoder(options.model)
    first = encoder.encode([row["sentence1"] for row in rows], normalize_embeddings=True)
    second = encoder.encode([row["sentence2"] for row in rows], normalize_embeddings=True)
    cosines = (first.astype(np.float64) * second).sum(axis=1)
    spearman = spearmanr(cosines, [float(row["score"]) for row in rows]).statistic
    print(f"{len(rows)} pairs, backend {encoder.backend}: Spearman of cosine {100 * spearman:.2f}")


if __name__ == "__main__":
    main()
