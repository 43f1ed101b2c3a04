"""A small training run for tests, and what it writes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minilm_np import ModelConfig, SentenceEncoder
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from minilm_np.train.data import open_data
from minilm_np.train.loop import Evaluation, Habits, Result, TrainingOptions, train

CONFIG = ModelConfig(
    vocab_size=len(CHARACTER_VOCABULARY), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=48, max_position_embeddings=32, max_seq_length=32,
)  # fmt: skip
RECIPE = TrainingOptions(steps=12, rate=1e-3, warmup_steps=2, seed=5)
WORDS = "list copy move remove open close find sort count print start stop user file folder disk".split()


def write_pairs(path: Path) -> None:
    """Write 96 pairs whose texts share a word and a number."""
    generator = np.random.default_rng(0)
    lines = [[f"{word} {n}", f"{n} {generator.choice(WORDS)} {word}"] for word in WORDS for n in range(6)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def run(
    encoder: SentenceEncoder,
    pairs: Path,
    output: Path,
    recipe: TrainingOptions = RECIPE,
    habits: Habits | None = None,
    resume: bool = False,
    evaluations: Mapping[str, Evaluation] | None = None,
    threads: int | None = None,
) -> Result:
    """Train with batches of 16 pairs."""
    data = open_data(pairs, batch_size=16, seed=recipe.seed)
    return train(encoder, data, output, recipe, habits, resume=resume, evaluations=evaluations, threads=threads)


def weights_of(folder: Path) -> Mapping[str, np.ndarray]:
    """The weights of a model folder."""
    return SentenceEncoder(folder, backend="numpy").weights


def same_bits(first: Path, second: Path) -> bool:
    """Whether two model folders have the same weights, bit for bit."""
    a, b = weights_of(first), weights_of(second)
    return all(a[name].tobytes() == b[name].tobytes() for name in a)


def log_of(output: Path) -> list[dict[str, Any]]:
    """The entries of a run's log."""
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
