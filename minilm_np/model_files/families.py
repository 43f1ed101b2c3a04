"""The families of encoders, and how their folders differ from BERT's: keys of config.json, names of tensors.

All of them are the encoder of `reference.py`; the fields of `ModelConfig` say what it computes. Inside the package,
every parameter has BERT's name; only the files have the names of these tables. Upstream: the models of transformers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

# Fields of ModelConfig that config.json gives: those that it must give, then the others with their defaults.
REQUIRED = (
    "vocab_size", "max_position_embeddings", "hidden_size", "num_hidden_layers", "num_attention_heads",
    "intermediate_size",
)  # fmt: skip
DEFAULTS: Mapping[str, Any] = {
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "padding_idx": 1,
    "relative_attention_num_buckets": 0,
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """One `model_type` of transformers."""

    architectures: tuple[str, ...]  # classes of transformers: first the encoder alone, then those for pretraining
    prefix: str  # of the tensors of the encoder if it was saved with a head
    head: tuple[str, ...]  # how the tensors of a pretraining head begin, which are unused
    fixed: Mapping[str, Any]  # field of ModelConfig -> its value in every model of the family
    keys: Mapping[str, str]  # field of ModelConfig -> key of config.json, where the two differ
    names: tuple[tuple[str, str], ...] = ()  # (part of BERT's name, what replaces it), applied in this order

    def key(self, field: str) -> str | None:
        """The key of config.json for a field of `ModelConfig`; None if the field is fixed and has no key."""
        return self.keys.get(field, None if field in self.fixed else field)

    def stored_name(self, name: str) -> str:
        """The name of a parameter in a file of this family, without prefix; name: BERT's name for it."""
        for part, stored in self.names:
            name = name.replace(part, stored)
        return name


_BERT = Family(
    architectures=(
        "BertModel", "BertForPreTraining", "BertForMaskedLM", "BertForNextSentencePrediction", "BertLMHeadModel",
    ),
    prefix="bert.",
    head=("cls.",),
    fixed={"padding_idx": None, "relative_attention_num_buckets": 0},
    keys={},
)  # fmt: skip

_DISTILBERT = Family(
    architectures=("DistilBertModel", "DistilBertForMaskedLM"),
    prefix="distilbert.",
    head=("vocab_transform.", "vocab_layer_norm.", "vocab_projector."),
    fixed={"type_vocab_size": 0, "layer_norm_eps": 1e-12, "padding_idx": None, "relative_attention_num_buckets": 0},
    keys={
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
    },
    names=(
        ("encoder.layer.", "transformer.layer."),
        (".attention.self.query.", ".attention.q_lin."),
        (".attention.self.key.", ".attention.k_lin."),
        (".attention.self.value.", ".attention.v_lin."),
        (".attention.output.dense.", ".attention.out_lin."),
        (".attention.output.LayerNorm.", ".sa_layer_norm."),
        (".intermediate.dense.", ".ffn.lin1."),
        (".output.dense.", ".ffn.lin2."),
        (".output.LayerNorm.", ".output_layer_norm."),
    ),
)

_ROBERTA = Family(
    architectures=("RobertaModel", "RobertaForMaskedLM", "RobertaForCausalLM"),
    prefix="roberta.",
    head=("lm_head.",),
    fixed={"relative_attention_num_buckets": 0},
    keys={"padding_idx": "pad_token_id"},
)

_XLM_ROBERTA = replace(
    _ROBERTA, architectures=("XLMRobertaModel", "XLMRobertaForMaskedLM", "XLMRobertaForCausalLM")
)  # the same encoder with another vocabulary

_MPNET = Family(
    architectures=("MPNetModel", "MPNetForMaskedLM"),
    prefix="mpnet.",
    head=("lm_head.",),
    # transformers reads neither the padding index nor the number of buckets from config.json
    fixed={"type_vocab_size": 0, "padding_idx": 1, "relative_attention_num_buckets": 32},
    keys={"relative_attention_num_buckets": "relative_attention_num_buckets"},  # another number is refused
    names=(
        (".attention.self.query.", ".attention.attn.q."),
        (".attention.self.key.", ".attention.attn.k."),
        (".attention.self.value.", ".attention.attn.v."),
        (".attention.output.dense.", ".attention.attn.o."),
        (".attention.output.LayerNorm.", ".attention.LayerNorm."),
    ),
)

# model_type of config.json -> family
FAMILIES: Mapping[str, Family] = {
    "bert": _BERT,
    "distilbert": _DISTILBERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _XLM_ROBERTA,
    "mpnet": _MPNET,
}
