"""Errors of the vectors of both backends, and of torch, against the reference in float64.

    python -m benchmarks.accuracy [--texts N] [--input FILE]

FILE has one text per line. Without it, texts of 3 to 256 tokens are generated. torch is measured through
sentence-transformers, if that is installed.
"""

import argparse
import importlib.metadata
import warnings
from pathlib import Path

import numpy as np

from benchmarks.texts import mixed
from minilm_np import SentenceEncoder, reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1000, help="number of texts (default: %(default)s)")
    parser.add_argument("--input", type=Path, help="a file with one text per line")
    options = parser.parse_args()
    if options.input:
        texts = options.input.read_text(encoding="utf-8").splitlines()[: options.texts]
    else:
        texts = mixed(options.texts, 3, 256)

    encoder = SentenceEncoder()
    ids = encoder.tokenizer(texts).ids
    truth = reference.encode_ragged(ids, reference.nest(encoder.weights, np.float64), encoder.config)
    print(f"{len(texts)} texts, {sum(map(len, ids))} tokens; errors of unit vectors against the reference in float64")
    found = {"minilm_np, numba": encoder.encode(texts)}
    found["minilm_np, numpy"] = SentenceEncoder(backend="numpy").encode(texts)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from sentence_transformers import SentenceTransformer
        torch_model = SentenceTransformer(str(encoder.model_path), device="cpu")
        found[f"torch {importlib.metadata.version('torch')}"] = torch_model.encode(texts)
    except ImportError:
        print("sentence-transformers is not installed, so torch is not measured")
    for name, vectors in found.items():
        error = np.abs(vectors - truth)
        print(f"{name:20} largest {error.max():.3e}   root mean square {np.sqrt((error**2).mean()):.3e}")


if __name__ == "__main__":
    main()
