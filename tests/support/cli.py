"""What the tests of the command line share: a small model, texts, and the command in this process."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import ModelConfig, SentenceEncoder, cli
from minilm_np.model_files.checkpoint import write_checkpoint
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY, random_weights

SIZES: dict[str, Any] = {
    "vocab_size": len(CHARACTER_VOCABULARY),
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}
# The command does not depend on the backend. This one compiles nothing, so it prints nothing about compiling.
NUMPY = ("--backend", "numpy")
PROGRAM = [sys.executable, "-m", "minilm_np"]
TEXTS = ["a text", "", "naïve 日本 👍", 'quotes " and \\ and \t', "long " * 20]  # the last one is truncated


def write_small_model(folder: Path) -> None:
    """Write a random model that loads in milliseconds. Its limit is 16 tokens."""
    config = ModelConfig(**SIZES, max_seq_length=16)
    write_checkpoint(folder / "model.safetensors", random_weights(config, 0))
    (folder / "vocab.txt").write_text("\n".join(CHARACTER_VOCABULARY))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"} | SIZES))
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 8}))


class Command:
    """Run the command in this process: exit code, stdout, stderr."""

    def __init__(self, capture: pytest.CaptureFixture[bytes], model: Path) -> None:
        self.capture, self.model = capture, model

    def __call__(self, *arguments: str) -> tuple[int, bytes, str]:
        try:
            code = cli.main(arguments)
        except SystemExit as stopped:  # argparse
            code = int(stopped.code or 0)
        out, err = self.capture.readouterr()
        return code, out, err.decode()

    def encode(self, *arguments: str) -> tuple[int, bytes, str]:
        return self("encode", *NUMPY, "--model", str(self.model), *arguments)

    def result(self, *arguments: str) -> bytes:
        """The stdout of a run that must succeed, and print nothing else."""
        code, out, err = self.encode(*arguments)
        assert (code, err) == (0, "")
        return out

    def failure(self, *arguments: str) -> str:
        """The error of a run that must fail: one line on stderr, exit code 1, nothing on stdout."""
        code, out, err = self(*arguments)
        assert (code, out) == (1, b"")
        assert err.startswith("minilm-np: error: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        return err

    def misuse(self, *arguments: str) -> str:
        """The last line of stderr of a run that must fail with a usage and exit code 2."""
        code, out, err = self(*arguments)
        assert (code, out) == (2, b"")
        assert err.startswith("usage: minilm-np")
        assert "Traceback" not in err
        return err.splitlines()[-1]

    def help(self, *arguments: str) -> str:
        """The help of a command."""
        code, out, err = self(*arguments, "--help")
        assert (code, err) == (0, "")
        return out.decode()


def vectors_of(items: Sequence[dict[str, Any]]) -> np.ndarray:
    """The vectors of the JSON objects that `encode` prints."""
    return np.array([item["embedding"] for item in items], np.float32)


def same_bits(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether two arrays are float32 and equal bit for bit."""
    return found.dtype == expected.dtype == np.float32 and found.tobytes() == expected.tobytes()


def check_objects(items: list[dict[str, Any]], encoder: SentenceEncoder) -> None:
    """Check the JSON objects that `encode` prints for TEXTS."""
    assert [list(item) for item in items] == [["text", "n_tokens", "truncated", "embedding"]] * len(TEXTS)
    assert [item["text"] for item in items] == TEXTS
    tokenized = encoder.tokenize(TEXTS)
    assert [item["n_tokens"] for item in items] == tokenized["n_tokens"]
    assert [item["truncated"] for item in items] == tokenized["truncated"] == [False, False, False, False, True]
    assert same_bits(vectors_of(items), encoder.encode(TEXTS))
