"""Safetensors files for the tests of checkpoint.py, built byte by byte, and what the library reads from them."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch
import torch

from minilm_np.model_files.checkpoint import parameter_shapes
from minilm_np.model_files.config import ModelConfig

CONFIG = ModelConfig(
    vocab_size=5,
    max_position_embeddings=4,
    type_vocab_size=2,
    hidden_size=2,
    num_hidden_layers=1,
    num_attention_heads=1,
    intermediate_size=3,
    max_seq_length=4,
)
WORD = "embeddings.word_embeddings.weight"  # (5, 2), the first in these files
POSITION = "embeddings.position_embeddings.weight"  # (4, 2), the second
BIAS = "encoder.layer.0.output.LayerNorm.bias"  # (2,), the last
SIZES = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}

Weights = dict[str, np.ndarray]
Header = dict[str, Any]


def random_weights(config: ModelConfig, seed: int = 0) -> Weights:
    """Normally distributed float32 weights of a config."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in parameter_shapes(config).items()}


def pack(header: Header | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file: the length of the header, the header, the data."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def unpacked(weights: Mapping[str, np.ndarray], dtype: str = "F32") -> tuple[Header, bytes]:
    """Header and data of arrays of one dtype (BF16: float32, rounded towards zero)."""
    header: Header = {}
    data = b""
    for name, array in weights.items():
        if dtype == "BF16":
            raw = (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        else:
            raw = array.astype(f"<f{SIZES[dtype]}").tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    return header, data


def in_folder(folder: Path, content: bytes) -> Path:
    """Write model.safetensors to the folder, and return the folder."""
    (folder / "model.safetensors").write_bytes(content)
    return folder


@contextmanager
def file_of(content: bytes) -> Iterator[Path]:
    """A folder with one model.safetensors, for tests that Hypothesis runs many times."""
    with tempfile.TemporaryDirectory() as folder:
        yield in_folder(Path(folder), content)


def assert_same_bits(loaded: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """The same names in the same order, float32, the same shapes and bits."""
    assert list(loaded) == list(expected)
    for name, array in loaded.items():
        assert array.dtype == expected[name].dtype == np.float32
        assert array.shape == expected[name].shape, name
        assert array.tobytes() == expected[name].tobytes(), name


def valid() -> bytes:
    """A valid model.safetensors."""
    return pack(*unpacked(random_weights(CONFIG)))


def oracle(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of model.safetensors as the safetensors library reads them."""
    return dict(safetensors.torch.load_file(folder / "model.safetensors"))
