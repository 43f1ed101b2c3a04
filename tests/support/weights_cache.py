"""A cache of packed weights in tests: a small model with a manifest takes the place of the published one."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from minilm_np import SentenceEncoder
from minilm_np.encoding import loaded_model
from minilm_np.engine import weights_cache
from minilm_np.model_files import checkpoint

NAME = "org/tiny"
TEXTS = ["a text", "", "another one, which is longer"]


class World:
    """A cache with the small model, and what a load of it reads: `hashed` and `read` count the reads of the weights."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.cache, self.hashed, self.read = root / "cache", 0, 0
        self.weights = self.cache / NAME / "model.safetensors"
        file_digest, iter_checkpoint = hashlib.file_digest, checkpoint.iter_checkpoint

        def counted_digest(stream: Any, name: str) -> Any:
            self.hashed += stream.name == str(self.weights)
            return file_digest(stream, name)

        def counted_checkpoint(*arguments: Any, **options: Any) -> Any:
            self.read += 1
            return iter_checkpoint(*arguments, **options)

        patch.setattr(hashlib, "file_digest", counted_digest)
        patch.setattr(loaded_model, "iter_checkpoint", counted_checkpoint)

    @property
    def folder(self) -> Path:
        return self.cache / weights_cache.FOLDER

    def entry(self, compute_type: str) -> Path:
        """The file with the packed weights."""
        (path,) = self.folder.glob(f"*-{compute_type}-*.weights")
        return path

    def load(self, compute_type: str = "float32") -> tuple[SentenceEncoder, tuple[int, int]]:
        """The model, and how often its weights were hashed and read."""
        self.hashed = self.read = 0
        encoder = SentenceEncoder(NAME, compute_type=compute_type, threads=1)
        return encoder, (self.hashed, self.read)

    def vectors(self, compute_type: str = "float32") -> Any:
        return self.load(compute_type)[0].encode(TEXTS)
