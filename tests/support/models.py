"""What several test files draw or build: small configs, weights in which every parameter matters, torch's BertModel."""

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minilm_np import ModelConfig
from minilm_np.model_files.checkpoint import parameter_shapes
from minilm_np.model_files.config import ACTIVATIONS, POOLING_MODES
from minilm_np.model_files.families import FAMILIES


@st.composite
def small_configs(draw: st.DrawFn) -> ModelConfig:
    """Configs of every kind that the package implements, small enough for scalar loops."""
    heads = draw(st.integers(1, 4))
    positions = draw(st.integers(9, 24))
    return ModelConfig(
        vocab_size=draw(st.integers(8, 40)),
        max_position_embeddings=positions,
        type_vocab_size=draw(st.integers(1, 3)),
        hidden_size=heads * draw(st.integers(1, 9)) * 2,
        num_hidden_layers=draw(st.integers(1, 3)),
        num_attention_heads=heads,
        intermediate_size=draw(st.integers(1, 40)),
        layer_norm_eps=draw(st.sampled_from([1e-12, 1e-5])),
        max_seq_length=positions,
        pooling_mode=draw(st.sampled_from(POOLING_MODES)),
        normalize=draw(st.booleans()),
    )


@st.composite
def encoder_configs(draw: st.DrawFn) -> ModelConfig:
    """`small_configs`, and the same sizes for every other family and activation."""
    config = draw(small_configs())
    family = draw(st.sampled_from(list(FAMILIES)))
    changes: dict[str, Any] = {"model_type": family, "hidden_act": draw(st.sampled_from(ACTIVATIONS))}
    if family == "distilbert":
        changes |= {"type_vocab_size": 0, "layer_norm_eps": 1e-12}
    elif family == "mpnet":
        changes |= {"type_vocab_size": 0, "padding_idx": 1, "relative_attention_num_buckets": 32}
    elif family in ("roberta", "xlm-roberta"):
        changes["padding_idx"] = draw(st.integers(0, 3))
    if "padding_idx" in changes:  # the limit stays, so that the texts are as long
        changes["max_position_embeddings"] = config.max_position_embeddings + changes["padding_idx"] + 1
    return replace(config, **changes)


@st.composite
def ragged_ids(draw: st.DrawFn, config: ModelConfig, max_texts: int = 4) -> list[list[int]]:
    """Token ids of a few texts of any lengths from 1 to the limit; id 0 is a token like any other."""
    text = st.lists(st.integers(0, config.vocab_size - 1), min_size=1, max_size=config.max_seq_length)
    return draw(st.lists(text, min_size=1, max_size=max_texts))


def living_weights(config: ModelConfig, seed: int, scale: float = 0.4) -> dict[str, np.ndarray]:
    """Float64 weights in which every parameter matters: biases are not 0, LayerNorm weights not 1."""
    generator = np.random.default_rng(seed)
    return {
        name: generator.normal(1.0 if name.endswith("LayerNorm.weight") else 0.0, scale, shape)
        for name, shape in parameter_shapes(config).items()
    }


def torch_model(config: ModelConfig, weights: dict[str, np.ndarray]) -> Any:
    """transformers' BertModel with these weights, in their dtype, with plain (eager) attention, for inference."""
    import torch
    from transformers import BertConfig, BertModel

    model = BertModel(
        BertConfig(
            vocab_size=config.vocab_size,
            max_position_embeddings=config.max_position_embeddings,
            type_vocab_size=config.type_vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            layer_norm_eps=config.layer_norm_eps,
            attn_implementation="eager",  # type: ignore[call-arg]  # of PretrainedConfig
        ),
        add_pooling_layer=False,
    ).eval()
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
    model = model.to(next(iter(tensors.values())).dtype)
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert all("position_ids" in name or "token_type_ids" in name for name in missing)
    return model


def torch_intermediates(model: Any, ids: Any, mask: Any = None, token_type_ids: Any = None) -> dict[str, np.ndarray]:
    """Run a BertModel on (B, T) ids and keep the outputs of its modules, by the names of `reference.py`.

    torch has no module for the attention scores, nor for what follows the encoder.
    """
    import torch

    outputs: dict[str, Any] = {}
    hooks = [
        module.register_forward_hook(lambda module, args, output, name=name: outputs.update({name: output}))
        for name, module in model.named_modules()
        if not name.endswith("dropout")
    ]
    tensors = [None if array is None else torch.from_numpy(np.asarray(array)) for array in (ids, mask, token_type_ids)]
    with torch.no_grad():
        model(tensors[0], None if tensors[1] is None else tensors[1].long(), tensors[2])
    for hook in hooks:
        hook.remove()
    kept = {}
    for name, output in outputs.items():
        if name.endswith("attention.self"):
            kept[f"{name}.context"], kept[f"{name}.probs"] = (tensor.numpy() for tensor in output)
        elif isinstance(output, torch.Tensor) and name.count(".") and not name.rpartition(".")[2].isdigit():
            kept[name] = output.numpy()
    # modules whose output is that of the last module inside them
    inner = ("attention.output", ".intermediate", ".output")
    return {name: array for name, array in kept.items() if not name.endswith(inner)}
