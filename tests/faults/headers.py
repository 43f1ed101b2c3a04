"""Damaged weights files: refused by the file's name, or read as the same weights."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random

import numpy as np

from minilm_np import CheckpointError, ModelConfig
from minilm_np.model_files.checkpoint import load_checkpoint, parameter_shapes, write_checkpoint
from tests.faults import Outcome, experiment

TINY = ModelConfig(
    vocab_size=5, max_position_embeddings=4, type_vocab_size=2, hidden_size=2, num_hidden_layers=1,
    num_attention_heads=1, intermediate_size=3, max_seq_length=4,
)  # fmt: skip


@contextmanager
def weights_file() -> Iterator[tuple[Path, Mapping[str, np.ndarray]]]:
    """The file of a tiny model, and its weights."""
    generator = np.random.default_rng(0)
    weights = {name: generator.normal(size=shape).astype(np.float32) for name, shape in parameter_shapes(TINY).items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        write_checkpoint(path, weights)
        yield path, weights


def read(path: Path, weights: Mapping[str, np.ndarray]) -> str:
    """How reading the file ends."""
    try:
        found = load_checkpoint(path.parent, TINY)
    except CheckpointError as error:
        return "refused by name" if path.name in str(error) else f"refused without a name: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    same = list(found) == list(weights) and all(found[name].tobytes() == weights[name].tobytes() for name in weights)
    return "same weights" if same else "other weights"


@experiment("weights: a flipped header byte", count=8000, quick=200)
def header_flips(count: int, random: Random) -> Outcome:
    """Change one byte of a weights file's header or of its length; the file is refused, or gives the same weights."""
    outcome = Outcome()
    with weights_file() as (path, weights):
        whole = path.read_bytes()
        header = 8 + int.from_bytes(whole[:8], "little")
        for _ in range(count):
            place, byte = random.randrange(header), random.randrange(1, 256)
            path.write_bytes(whole[:place] + bytes([whole[place] ^ byte]) + whole[place + 1 :])
            how = read(path, weights)
            right = how in ("refused by name", "same weights")
            outcome.check(right, how, f"byte {place} of {path.name} changed by ^ {byte}: {how}")
    return outcome


@experiment("weights: cut at every length", count=10_000, quick=200)
def truncations(count: int, random: Random) -> Outcome:
    """Cut a weights file after each number of bytes (or as many drawn numbers); it is refused by name."""
    outcome = Outcome()
    with weights_file() as (path, weights):
        whole = path.read_bytes()
        lengths = random.sample(range(len(whole)), min(count, len(whole)))
        for length in lengths:
            path.write_bytes(whole[:length])
            how = read(path, weights)
            outcome.check(how == "refused by name", how, f"{length} of {len(whole)} bytes: {how}")
    return outcome
