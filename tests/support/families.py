"""Small random models of every family, as transformers itself writes them. Independent of `model_files/families.py`."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from hypothesis import strategies as st

NAMES = ("bert", "distilbert", "roberta", "xlm-roberta", "mpnet")


class Sizes(NamedTuple):
    """The sizes of a model; its longest text has `tokens` tokens."""

    vocabulary: int = 150
    tokens: int = 40
    hidden: int = 24
    layers: int = 2
    heads: int = 3
    feed_forward: int = 40
    eps: float = 1e-12
    token_types: int = 2
    padding_id: int = 1  # where the config decides it


@st.composite
def sizes(draw: st.DrawFn) -> Sizes:
    heads = draw(st.integers(1, 4))
    return Sizes(
        vocabulary=draw(st.integers(8, 40)),
        tokens=draw(st.integers(2, 24)),
        hidden=heads * draw(st.integers(1, 9)) * 2,
        layers=draw(st.integers(1, 3)),
        heads=heads,
        feed_forward=draw(st.integers(1, 40)),
        eps=draw(st.sampled_from([1e-12, 1e-5])),
        token_types=draw(st.integers(1, 3)),
        padding_id=draw(st.integers(0, 3)),
    )


def config_of(family: str, activation: str, s: Sizes) -> Any:
    """The config of transformers."""
    if family == "distilbert":
        return transformers.DistilBertConfig(
            vocab_size=s.vocabulary, max_position_embeddings=s.tokens, dim=s.hidden, n_layers=s.layers, n_heads=s.heads,
            hidden_dim=s.feed_forward, activation=activation,
        )  # fmt: skip
    common: dict[str, Any] = {
        "vocab_size": s.vocabulary, "hidden_size": s.hidden, "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads, "intermediate_size": s.feed_forward, "hidden_act": activation,
        "layer_norm_eps": s.eps,
    }  # fmt: skip
    if family == "mpnet":
        return transformers.MPNetConfig(max_position_embeddings=s.tokens + 2, **common)
    common["type_vocab_size"] = s.token_types
    if family == "bert":
        return transformers.BertConfig(max_position_embeddings=s.tokens, **common)
    kind = transformers.RobertaConfig if family == "roberta" else transformers.XLMRobertaConfig
    return kind(max_position_embeddings=s.tokens + s.padding_id + 1, pad_token_id=s.padding_id, **common)


def model_of(family: str, activation: str, s: Sizes, seed: int, head: str = "") -> Any:
    """A model of transformers in which every parameter matters; head: the class "ForMaskedLM" and the like."""
    config = config_of(family, activation, s)
    config._attn_implementation = "eager"
    auto = getattr(transformers, f"AutoModel{head}")
    model = auto.from_config(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.copy_(centre + 0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def write(folder: Path, model: Any) -> Path:
    """Let transformers write the model, and add the files of sentence-transformers, with mean pooling."""
    model.save_pretrained(folder)
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"))
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"embedding_dimension": model.config.hidden_size, "pooling_mode": "mean"}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder
