"""config.json of an encoder: the keys of transformers -> the encoder's fields of `ModelConfig`.

Anything that is not implemented is an error that names it.
"""

from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

from minilm_np._checks import one_of
from minilm_np._files import shown
from minilm_np.errors import ConfigError
from minilm_np.model_files.config import ModelConfig
from minilm_np.model_files.families import DEFAULTS, FAMILIES, REQUIRED
from minilm_np.model_files.json_files import read_object, warn_of_unknown

# Keys of config.json that change the computation, with the only values that are implemented.
_ONLY_IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "quantization_config": (None,),
    "pruned_heads": (None, {}),
}

# The class with a head that `cross_encoder_files.py` reads.
CROSS_ENCODER = "BertForSequenceClassification"

# Keys of config.json that do not change what inference computes: training, generation, bookkeeping.
_NO_EFFECT = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path adapters attention_dropout
    attention_probs_dropout_prob bos_token_id chunk_size_feed_forward classifier_dropout cross_attention_hidden_size
    directionality dropout dtype eos_token_id finetuning_task gradient_checkpointing hidden_dropout_prob id2label
    initializer_range label2id language model_max_length name output_attentions output_hidden_states output_past
    pad_token_id pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type
    prefix problem_type qa_dropout return_dict sep_token_id seq_classif_dropout sinusoidal_pos_embds
    task_specific_params tie_weights_ tie_word_embeddings tokenizer_class torch_dtype torchscript transformers_version
    use_bfloat16 use_cache
    """.split()
)


def read_encoder(path: Path, architectures: Sequence[str] = (), known: Set[str] = frozenset()) -> dict[str, Any]:
    """config.json -> the encoder's fields of ModelConfig.

    architectures: the classes of transformers that are accepted; none: those of the family's encoder.
    known: further keys that the caller reads.
    """
    values = read_object(path)
    if "model_type" not in values:
        raise ConfigError(f"{path}: model_type is missing: expected {one_of(FAMILIES)}")
    model_type = values["model_type"]
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ConfigError(f"{path}: model_type {shown(model_type)} is not implemented: expected {one_of(FAMILIES)}")
    if CROSS_ENCODER in architectures and model_type != "bert":
        raise ConfigError(
            f"{path}: model_type {shown(model_type)} is not implemented for a cross-encoder: expected 'bert'"
        )
    family = FAMILIES[model_type]
    for key, implemented in _ONLY_IMPLEMENTED.items():
        if key in values and not any(type(values[key]) is type(v) and values[key] == v for v in implemented):
            raise ConfigError(
                f"{path}: {key} {shown(values[key])} is not implemented: expected {shown(implemented[0])}"
            )
    check_architectures(path, values.get("architectures"), architectures or family.architectures)
    fields: dict[str, Any] = {"model_type": model_type}
    used = {"model_type", "architectures", "embedding_size"}
    for field in (*REQUIRED, *DEFAULTS):
        fields[field] = family.fixed.get(field, DEFAULTS.get(field))
        if stored := family.key(field):
            used.add(stored)
            if field in REQUIRED and stored not in values:
                raise ConfigError(f"{path}: {stored} is missing")
            fields[field] = values.get(stored, fields[field])
    if values.get("embedding_size", fields["hidden_size"]) != fields["hidden_size"]:
        raise ConfigError(
            f"{path}: embedding_size {shown(values['embedding_size'])} is not implemented: expected hidden_size, "
            f"{shown(fields['hidden_size'])}"
        )
    warn_of_unknown(path, values.keys() - used - _ONLY_IMPLEMENTED.keys() - _NO_EFFECT - known)
    try:
        ModelConfig(**fields, max_seq_length=2)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return fields


def check_architectures(path: Path, found: Any, expected: Sequence[str]) -> None:
    """Refuse a model whose result is not the expected one: labels, scores or spans, by a head that is not implemented.

    Sentence encoders may lack the key. Cross-encoders may not: it names their head.
    """
    wants_head = CROSS_ENCODER in expected
    names = found if isinstance(found, list) else [None]
    if (found is None and not wants_head) or (isinstance(found, list) and all(name in expected for name in names)):
        return
    where = f"{path}: architectures {shown(found)}"
    if names == [CROSS_ENCODER]:
        raise ConfigError(f"{where}: this is a cross-encoder: use minilm_np.CrossEncoder")
    if wants_head and all(name is None or name in FAMILIES["bert"].architectures for name in names):
        raise ConfigError(
            f"{where}: expected {CROSS_ENCODER}, found no classifier: use minilm_np.SentenceEncoder for a model that "
            "gives a vector of each text"
        )
    advice = "save it alone (transformers: AutoModel.from_pretrained, save_pretrained)"
    raise ConfigError(
        f"{where} is not implemented: expected {', '.join(expected)}"
        + ("" if wants_head else f": to use the encoder without its head, {advice}")
    )
