"""What the tests of the float32 engine share: the contract's whole pass, families of engines, child processes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minilm_np import ModelConfig, SentenceEncoder
from minilm_np.engine.float32.engine import Float32Engine
from minilm_np.engine.runtime.targets import COMPILE, VARIABLE
from tests.support import contract
from tests.support.engine_children import SMALL
from tests.support.places import CHECKOUT
from tests.support.targets import TARGETS, forced_libraries

PATIENCE = 300  # seconds after which a test fails with a deadlock
THREADS = (1, 2, 4)
# Environment variables that force the instruction sets of a whole pass, in a child. Compiling takes long, so only the
# code for this processor is compiled, and the code for which there is no library. For the other instruction sets the
# child loads the library; `test_kernel_targets.py` compiles the single kernels for each of them.
_LIBRARIES = forced_libraries("minilm_np.engine.float32.kernels")
_X86 = ("native", "none") if _LIBRARIES else tuple(TARGETS)
COMPILED = {name: TARGETS[name] for name in (_X86 if os.uname().machine == "x86_64" else ("native",))}
FORCED = COMPILED | _LIBRARIES
# of texts for `SMALL`
IDS = [np.random.default_rng(6).integers(0, SMALL.vocab_size, length).tolist() for length in (3, 40, 90, 128)]


def float32(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.astype(np.float32) for name, array in weights.items()}


def random_model(threads: int = 2) -> SentenceEncoder:
    """The random model of `engine_children`, whose vectors every child process prints the SHA-256 of."""
    return SentenceEncoder.random(SMALL, 7, threads=threads)


def engine_of(model: SentenceEncoder) -> Float32Engine:
    assert isinstance(model.model.engine, Float32Engine)
    return model.model.engine


def encode_by_contract(
    texts: Sequence[Sequence[int]],
    weights: dict[str, np.ndarray],
    config: ModelConfig,
    token_type_ids: Sequence[Sequence[int]] | None = None,
) -> np.ndarray:
    """The whole pass, made of the contract's scalar functions."""
    lengths = [len(text) for text in texts]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    eps = config.layer_norm_eps

    def at(name: str) -> tuple[np.ndarray, np.ndarray]:
        return weights[f"{name}.weight"], weights[f"{name}.bias"]

    word, position = (weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position"))
    no_types = np.zeros((1, config.hidden_size), np.float32)
    token_type = weights.get("embeddings.token_type_embeddings.weight", no_types)
    table = weights.get("encoder.relative_attention_bias.weight")
    ids = np.concatenate(texts)
    positions = np.concatenate([contract.positions(text, config.padding_idx) for text in texts])
    types = np.zeros_like(ids) if token_type_ids is None else np.concatenate(token_type_ids)
    x = contract.embeddings(ids, positions, word, position, token_type, *at("embeddings.LayerNorm"), eps, types)
    for number in range(config.num_hidden_layers):
        layer = f"encoder.layer.{number}."
        parts = [contract.linear(x, *at(f"{layer}attention.self.{name}")) for name in ("query", "key", "value")]
        context = contract.attention(np.concatenate(parts, axis=1), offsets, config.num_attention_heads, table)
        attended = contract.linear_residual(context, *at(f"{layer}attention.output.dense"), x)
        attended = contract.layer_norm(attended, *at(f"{layer}attention.output.LayerNorm"), eps)
        activation = contract.ACTIVATIONS[config.hidden_act]
        intermediate = activation(contract.linear(attended, *at(f"{layer}intermediate.dense")))
        x = contract.linear_residual(intermediate, *at(f"{layer}output.dense"), attended)
        x = contract.layer_norm(x, *at(f"{layer}output.LayerNorm"), eps)
    vectors = contract.pooling(x, offsets, config.pooling_mode)
    return contract.normalize(vectors) if config.normalize else vectors


class Family:
    """One model on different numbers of threads, texts of random ids, and each text's vector when it is alone."""

    def __init__(self, config: ModelConfig, weights: dict[str, np.ndarray], lengths: Iterable[int]) -> None:
        generator = np.random.default_rng(5)
        self.engines = {threads: Float32Engine(config, weights.items(), threads) for threads in THREADS}
        self.texts = [generator.integers(0, config.vocab_size, length).tolist() for length in lengths]
        self.alone = np.concatenate([self.engines[1].encode([text]) for text in self.texts])


# ---- child processes -------------------------------------------------------------------------------------------------


def start(program: str, folder: Path | None, cache: Path, **environment: str) -> "subprocess.Popen[str]":
    """Start a program of `engine_children.py`, with its own kernel cache, for kernels that are compiled here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "OMP_"))}
    paths = os.pathsep.join(path for path in (str(CHECKOUT), kept.get("PYTHONPATH", "")) if path)
    arguments = [program] if folder is None else [program, str(folder)]
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.support.engine_children", *arguments],
        env=kept | {"PYTHONPATH": paths, "MINILM_NP_CACHE": str(cache), VARIABLE: COMPILE} | environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def answer(process: "subprocess.Popen[str]") -> Any:
    """What a child printed as JSON."""
    try:
        out, errors = process.communicate(timeout=2 * PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return json.loads(out)
