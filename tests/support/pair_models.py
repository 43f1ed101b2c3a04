"""Cross-encoders for tests: folders that transformers and sentence-transformers write, with random weights."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from tests.support.compare import observe

BOUND = 2e-6  # of the largest score: relative error of float32 engines, whose encoder, pooler and classifier differ

PAIRS = [
    ("a query", "a document"),
    ("", ""),
    ("", "only the second"),
    ("only the first", ""),
    ("a query that is long, too long for the model of the tests", "short"),
    ("short", "a document that is long, too long for the model of the tests"),
    ("both texts are longer than one half of the limit of the model", "so both of them lose tokens at their ends!"),
    ("[SEP] [PAD]", "ünïcödé [CLS]"),
]


@dataclass(frozen=True)
class PairShape:
    """The configuration of a cross-encoder, at a small size."""

    layers: int = 2
    heads: int = 2
    hidden: int = 48
    labels: int = 1
    limit: int | None = 40  # of tokenizer_config.json; None: no key
    activation: str | None = None  # the value in config.json; None: no key
    old_activation: str | None = None  # the key of versions before 4


TORCH = {
    "Identity": "torch.nn.modules.linear.Identity",
    "ReLU": "torch.nn.modules.activation.ReLU",
    "Sigmoid": "torch.nn.modules.activation.Sigmoid",
    "Tanh": "torch.nn.modules.activation.Tanh",
}


@st.composite
def pair_shapes(draw: st.DrawFn) -> PairShape:
    """Shapes of every kind that the package implements."""
    heads = draw(st.integers(1, 3))
    path = st.none() | st.sampled_from(list(TORCH.values()))
    return PairShape(
        layers=draw(st.integers(1, 3)),
        heads=heads,
        hidden=heads * draw(st.sampled_from([8, 16, 20])),
        labels=draw(st.integers(1, 4)),
        limit=draw(st.none() | st.integers(3, 90)),
        activation=draw(path),
        old_activation=draw(path),
    )


def write_pair_folder(folder: Path, shape: PairShape, seed: int = 1) -> Path:
    """Let transformers write a random BertForSequenceClassification over single characters, as the Hub has them."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    torch.manual_seed(seed)
    bert = BertConfig(
        vocab_size=200,
        max_position_embeddings=100,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=2 * shape.hidden,
        initializer_range=0.2,
        num_labels=shape.labels,  # type: ignore[call-arg]  # of PretrainedConfig
    )
    model = BertForSequenceClassification(bert)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(CHARACTER_VOCABULARY))
    BertTokenizer.from_pretrained(str(folder)).save_pretrained(folder)
    (folder / "vocab.txt").unlink(missing_ok=True)
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer.pop("model_max_length", None)
    if shape.limit is not None:
        tokenizer["model_max_length"] = shape.limit
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    activation = None if shape.activation is None else {"activation_fn": shape.activation, "version": "4.1.0"}
    change_config(folder, sentence_transformers=activation, sbert_ce_default_activation_function=shape.old_activation)
    return folder


def change_config(folder: Path, file: str = "config.json", **changes: Any) -> None:
    """Change keys of a JSON file of a folder; None removes a key."""
    path = folder / file
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def upstream(folder: Path, **options: Any) -> Any:
    """sentence-transformers' CrossEncoder of a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import CrossEncoder

        return CrossEncoder(str(folder), device="cpu", local_files_only=True, **options)


def assert_scores(found: Any, expected: Any, what: str = "") -> None:
    """Assert equal shapes and dtypes, and scores within BOUND of the largest one, or of 1."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype), what
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    difference = float(np.abs(found - expected).max(initial=0.0)) / scale
    assert difference <= BOUND, what
    observe("rel", difference, BOUND)
