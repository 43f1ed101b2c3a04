"""A small model on which every deviation shows, texts of every kind, and vectors by torch with planted deviations."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from minilm_np import ModelConfig, SentenceEncoder
from minilm_np.model_files.checkpoint import parameter_shapes, write_checkpoint
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from minilm_np.verify.diagnosis import Diagnosis
from tests.support.torch_deviations import planted

CONFIG = ModelConfig(
    vocab_size=len(CHARACTER_VOCABULARY),
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=4,
    intermediate_size=64,
    max_seq_length=64,
)
# each deviation changes the vector of one of them, and no two change all alike
SHORT = [
    "a text of some words",
    "Capitals And MORE of them",
    "naïve café résumé, Ångström",
    "",
    "what is it? 42!",
    "the quick brown fox jumps over the lazy dog",
]
WORDS = [*SHORT, "wait... really?! no, it IS a dog's", "我喜欢 cats 机器学习"]  # on which all tokenizers differ
LONG = [*SHORT[:3], *(("jump over the lazy fox " * 40)[:n] for n in (75, 79, 170, 320, 480, 700))]


def weights(config: ModelConfig, seed: int) -> dict[str, np.ndarray]:
    """Weights on which every deviation shows: small embeddings for eps, activations of some size for GELU."""
    generator = np.random.default_rng(seed)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        mean = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        return generator.normal(mean, 0.02 if "embeddings.weight" in name else 0.2, shape).astype(np.float32)

    return {name: draw(name, shape) for name, shape in parameter_shapes(config).items()}


def folder(path: Path, config: ModelConfig, seed: int) -> Path:
    """A model of that config with random weights over single characters."""
    write_checkpoint(path / "model.safetensors", weights(config, seed))
    (path / "vocab.txt").write_text("\n".join(CHARACTER_VOCABULARY))
    sizes = {key: value for key, value in dataclasses.asdict(config).items() if key in ENCODER_KEYS}
    (path / "config.json").write_text(json.dumps({"model_type": "bert"} | sizes))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": config.max_seq_length}))
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")][: 2 + config.normalize]
    modules = [{"path": where, "type": f"sentence_transformers.models.{kind}"} for where, kind in kinds]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": config.hidden_size, "pooling_mode": config.pooling_mode}
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return path


ENCODER_KEYS = (
    "vocab_size", "max_position_embeddings", "type_vocab_size", "hidden_size", "num_hidden_layers",
    "num_attention_heads", "intermediate_size", "layer_norm_eps",
)  # fmt: skip


def by_torch(encoder: SentenceEncoder, texts: list[str], *names: str) -> np.ndarray:
    return planted(texts, encoder.config, encoder.weights, CHARACTER_VOCABULARY, names)


def explaining(diagnosis: Diagnosis) -> list[set[str]]:
    return [set(finding.deviations) for finding in diagnosis.findings if finding.explains]
