"""Accuracy and time of a cross-encoder of the sizes of ms-marco-MiniLM-L6-v2, beside sentence-transformers.

    python -m benchmarks.cross_encoders [--pairs N] [--rounds N] [--threads N] [--accuracy-only]

The weights are random: the published ones are not needed for either figure. Logits are compared with the reference in
float64. The time is that of `predict`, from texts to scores; contestants take turns, and the median is printed.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.texts import mixed
from minilm_np import CrossEncoder, ModelConfig, reference
from minilm_np.engine.registry import COMPUTE_TYPES
from minilm_np.model_files.checkpoint import head_shapes, parameter_shapes
from minilm_np.model_files.cross_encoder_files import Head, save_cross_encoder
from minilm_np.model_files.settings import ModelSettings

CONFIG = ModelConfig(max_seq_length=512, pooling_mode="cls", normalize=False)


def write_folder(folder: Path) -> None:
    """Write a cross-encoder with random weights of a trained model's magnitude, and the published tokenizer."""
    from minilm_np import SentenceEncoder

    generator = np.random.default_rng(1)
    weights = {}
    for name, shape in (parameter_shapes(CONFIG) | head_shapes(CONFIG, 1)).items():
        mean = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        weights[name] = generator.normal(mean, 0.06, shape).astype(np.float32)
    tokenizer = SentenceEncoder().tokenizer.with_limit(CONFIG)
    save_cross_encoder(folder, CONFIG, Head(("relevance",), "Identity"), ModelSettings(prompts={}), tokenizer, weights)


def truth(model: CrossEncoder, pairs: list[tuple[str, str]]) -> np.ndarray:
    """The logits of the reference in float64."""
    weights, tokens = reference.nest(model.weights, np.float64), model.model.tokenizer(pairs)
    logits = [
        reference.classify(np.array(ids), np.array(types), weights, model.config)[0]
        for ids, types in zip(tokens.ids, tokens.token_type_ids, strict=True)
    ]
    return np.array(logits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100, help="pairs of one call (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="calls of each contestant (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="threads of each contestant (default: all)")
    parser.add_argument("--accuracy-only", action="store_true", help="measure no time")
    options = parser.parse_args()
    documents = mixed(options.pairs, 20, 200)
    pairs = [(f"what is known about number {number % 7}", text) for number, text in enumerate(documents)]
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder) / "model")
        where = Path(folder) / "model"
        contestants: dict[str, Callable[[], np.ndarray]] = {}
        for compute_type in COMPUTE_TYPES:
            model = CrossEncoder(where, compute_type=compute_type, threads=options.threads)
            contestants[f"minilm_np, {compute_type}"] = lambda model=model: model.predict(pairs)  # type: ignore[misc]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import torch
                from sentence_transformers import CrossEncoder as Upstream

            if options.threads:
                torch.set_num_threads(options.threads)
            upstream = Upstream(str(where), device="cpu", local_files_only=True)
            contestants[f"torch {torch.__version__}"] = lambda: np.asarray(upstream.predict(pairs))
        except ImportError:
            print("sentence-transformers is not installed, so torch is not measured")
        expected = truth(CrossEncoder(where, backend="numpy"), pairs)
        spread = expected.std()
        print(f"{len(pairs)} pairs; the reference's logits have the standard deviation {spread:.3f}")
        for name, call in contestants.items():
            error = np.abs(call() - expected)
            print(f"{name:22} largest error {error.max():.1e}   of the standard deviation {error.max() / spread:.1e}")
        if options.accuracy_only:
            return
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(options.rounds):
            for name, call in contestants.items():
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
        for name, seconds in times.items():
            print(f"{name:22} {1000 * statistics.median(seconds) / len(pairs):.2f} ms per pair")


if __name__ == "__main__":
    main()
