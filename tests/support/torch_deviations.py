"""BERT, pooling and normalisation in torch with every known deviation, written without the package's own code.

The deviations have the names that `diagnose` uses; several may be combined. transformers tokenizes the texts. They are
run one by one, so that the only padding is a planted one.
"""

import re
import tempfile
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def planted(
    texts: Sequence[str], config: Any, weights: Mapping[str, np.ndarray], vocabulary: Sequence[str],
    names: Collection[str],
) -> np.ndarray:  # fmt: skip
    """Return the vectors of texts, (B, D) float32, by a model with all these deviations.

    config: an object with the sizes, limit, pooling, eps and normalisation of the model without deviations.
    """
    import torch

    left = set(names)

    def found(pattern: str) -> re.Match[str] | None:
        matches = [match for name in left if (match := re.fullmatch(pattern, name))]
        left.difference_update(match[0] for match in matches)
        return matches[0] if matches else None

    # text -> ids
    cased = bool(found("no lower-casing(, accents stripped)?"))
    strips = {"no lower-casing, accents stripped": True, "accents not stripped": False}
    strip_accents = next((value for name, value in strips.items() if name in names), None)
    found("accents not stripped")
    special = not found("special tokens left out of the input")
    limit = int(match[1]) if (match := found(r"truncation at (\d+)")) else config.max_seq_length
    tokenizer = _tokenizer(vocabulary, do_lower_case=not cased, strip_accents=strip_accents)
    all_ids = [
        tokenizer(text, truncation=True, max_length=limit, add_special_tokens=special)["input_ids"] for text in texts
    ]

    # padding
    padding = found(r"padding to (\d+|the longest text) (counted in the mean|attended to and counted|attended to)")
    longest = max(map(len, all_ids))
    target = 0 if padding is None else longest if padding[1] == "the longest text" else int(padding[1])
    attended = padding is not None and padding[2].startswith("attended")
    counted = padding is not None and padding[2].endswith(("mean", "counted"))
    pools_special = not found("special tokens left out of the mean")

    # the rest
    eps = float(match[1]) if (match := found(r"LayerNorm eps (\S+)")) else config.layer_norm_eps
    pooling = (match[1] if (match := found("(CLS|max|mean) pooling")) else config.pooling_mode).lower()
    normalize = not found("no normalisation") if config.normalize else bool(found("normalisation"))
    parameters = {name: torch.from_numpy(np.array(array, np.float32)) for name, array in weights.items()}
    if levels := found("arithmetic in int8, weights per (tensor|channel)"):
        left.add(f"int8 weights per {levels[1]}")
    for rounding in [name for name in left if name.startswith(("weights rounded", "int8 weights"))]:
        found(rounding)
        parameters = {name: _rounded(name, tensor, rounding) for name, tensor in parameters.items()}
    arithmetic = match[1] if (match := found("arithmetic in (float16|bfloat16)")) else "float32"
    parameters = {name: tensor.to(getattr(torch, arithmetic)) for name, tensor in parameters.items()}
    bert = Bert(
        parameters, config.num_attention_heads, eps,
        gelu="table" if found("tanh GELU from a float16 table") else "tanh" if found("tanh GELU") else "none",
        token_types=not found("no token-type embedding"),
        first_position=2 if found("positions off by two") else 0,
        pre_norm=bool(found("pre-norm")), levels=bool(levels),
    )  # fmt: skip
    assert not left, f"no such deviation: {left}"

    vectors = []
    for ids in all_ids:
        n = len(ids)
        is_token = torch.arange(max(n, target)) < n
        pooled = torch.ones_like(is_token) if counted else is_token.clone()
        if not pools_special:
            pooled[0] = pooled[n - 1] = False
        padded = torch.tensor([*ids, *[tokenizer.pad_token_id] * (len(is_token) - n)], dtype=torch.int64)
        with torch.no_grad():
            hidden = bert(padded, torch.ones_like(is_token) if attended else is_token) if len(padded) else None
            if hidden is None or (not pooled.any() and pooling != "cls"):
                vector = torch.zeros(config.hidden_size)
            elif pooling == "cls":
                vector = hidden[0]
            else:
                vector = hidden[pooled].amax(0) if pooling == "max" else hidden[pooled].mean(0)
            vectors.append(torch.nn.functional.normalize(vector, dim=0) if normalize else vector)
            vectors[-1] = vectors[-1].float()
    return torch.stack(vectors).numpy()


class Bert:
    """The encoder: token ids of one text and its mask, (T), -> hidden states, (T, D)."""

    def __init__(
        self, parameters: Mapping[str, Any], heads: int, eps: float, *, gelu: str, token_types: bool,
        first_position: int, pre_norm: bool, levels: bool,
    ) -> None:  # fmt: skip
        self.parameters, self.heads, self.eps, self.gelu = parameters, heads, eps, gelu
        self.token_types, self.first_position, self.pre_norm = token_types, first_position, pre_norm
        self.levels = levels
        self.layers = 1 + max(int(name.split(".")[2]) for name in parameters if name.startswith("encoder.layer"))

    def __call__(self, ids: Any, mask: Any) -> Any:
        import torch

        p = self.parameters
        positions = p["embeddings.position_embeddings.weight"]
        where = (torch.arange(len(ids)) + self.first_position).clamp(max=len(positions) - 1)
        x = p["embeddings.word_embeddings.weight"][ids] + positions[where]
        if self.token_types:
            x = x + p["embeddings.token_type_embeddings.weight"][0]
        x = self.norm("embeddings.LayerNorm", x)
        for number in range(self.layers):
            layer = f"encoder.layer.{number}"
            if self.pre_norm:
                x = x + self.attention(layer, self.norm(f"{layer}.attention.output.LayerNorm", x), mask)
                x = x + self.feed_forward(layer, self.norm(f"{layer}.output.LayerNorm", x))
            else:
                x = self.norm(f"{layer}.attention.output.LayerNorm", x + self.attention(layer, x, mask))
                x = self.norm(f"{layer}.output.LayerNorm", x + self.feed_forward(layer, x))
        return x

    def linear(self, name: str, x: Any) -> Any:
        import torch

        if self.levels:  # as DynamicQuantizeLinear of onnxruntime: 256 levels, one of them 0
            low, high = x.min().clamp(max=0), x.max().clamp(min=0)
            scale = float((high - low) / 255)
            x = torch.fake_quantize_per_tensor_affine(x, scale, round(float(-low) / scale), 0, 255)
        return torch.nn.functional.linear(x, self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"])

    def norm(self, name: str, x: Any) -> Any:
        import torch

        weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        return torch.nn.functional.layer_norm(x, weight.shape, weight, bias, self.eps)

    def attention(self, layer: str, x: Any, mask: Any) -> Any:
        import torch

        parts = (self.linear(f"{layer}.attention.self.{name}", x) for name in ("query", "key", "value"))
        query, key, value = (part.unflatten(1, (self.heads, -1)).transpose(0, 1) for part in parts)
        context = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.linear(f"{layer}.attention.output.dense", context.transpose(0, 1).flatten(1))

    def feed_forward(self, layer: str, x: Any) -> Any:
        import torch

        x = self.linear(f"{layer}.intermediate.dense", x)
        if self.gelu == "table":
            x = torch.nn.functional.gelu(x.half().float(), approximate="tanh").half().float()
        else:
            x = torch.nn.functional.gelu(x, approximate=self.gelu)
        return self.linear(f"{layer}.output.dense", x)


def _rounded(name: str, tensor: Any, rounding: str) -> Any:
    import torch

    if rounding.startswith("weights rounded"):
        return tensor.to(torch.float16 if "float16" in rounding.split() else torch.bfloat16).float()
    if not (name.startswith("encoder.layer") and tensor.dim() == 2):
        return tensor
    if rounding == "int8 weights per tensor":
        return torch.fake_quantize_per_tensor_affine(tensor, float(tensor.abs().max() / 127), 0, -127, 127)
    scales = tensor.abs().amax(1) / 127
    return torch.fake_quantize_per_channel_affine(
        tensor, scales, torch.zeros(len(scales), dtype=torch.int32), 0, -127, 127
    )


def _tokenizer(vocabulary: Sequence[str], **options: Any) -> Any:
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        from transformers import BertTokenizer

        path = Path(folder, "vocab.txt")
        path.write_text("\n".join(vocabulary), encoding="utf-8")
        return BertTokenizer(str(path), **options)
