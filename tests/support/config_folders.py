"""Model folders for the tests of folder_config.py: the JSON files of sentence-transformers, with changes."""

import json
from pathlib import Path
from typing import Any

from minilm_np import ModelConfig

BERT: dict[str, Any] = {
    "architectures": ["BertModel"],
    "hidden_act": "gelu",
    "hidden_size": 32,
    "intermediate_size": 64,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "type_vocab_size": 2,
    "vocab_size": 100,
}
MEAN: dict[str, Any] = {
    "word_embedding_dimension": 32,
    "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": True,
    "pooling_mode_max_tokens": False,
    "pooling_mode_mean_sqrt_len_tokens": False,
}
FLAGS = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
CONFIG, MODULES, POOLING = "config.json", "modules.json", "1_Pooling/config.json"
SENTENCE, TOKENIZER = "sentence_bert_config.json", "tokenizer_config.json"
PROMPTS, NORMALIZE = "config_sentence_transformers.json", "2_Normalize/config.json"


def modules(*kinds: str, package: str = "sentence_transformers.models") -> list[dict[str, Any]]:
    """modules.json for Transformer and what follows it."""
    paths = ["", *(f"{number}_{kind}" for number, kind in enumerate(kinds, 1))]
    names = ("Transformer", *kinds)
    return [
        {"idx": number, "name": str(number), "path": path, "type": f"{package}.{kind}"}
        for number, (kind, path) in enumerate(zip(names, paths, strict=True))
    ]


def write(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """A folder as sentence-transformers 2 writes it, some of its files replaced; None leaves a file out."""
    files: dict[str, Any] = {
        CONFIG: BERT,
        MODULES: modules("Pooling", "Normalize"),
        POOLING: MEAN,
        SENTENCE: {"max_seq_length": 128, "do_lower_case": False},
    }
    for name, value in (files | (changes or {})).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, bytes):
            path.write_bytes(value)
        elif value is not None:
            path.write_text(json.dumps(value), encoding="utf-8")
    return folder


SMALL = ModelConfig(
    vocab_size=100,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_seq_length=128,
)


def bert(**changes: Any) -> dict[str, Any]:
    """config.json with changes."""
    return BERT | changes


def at(number: int, **changes: Any) -> list[dict[str, Any]]:
    """modules.json with one module changed."""
    found = modules("Pooling", "Normalize")
    found[number] |= changes
    return found
