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

# by the name of a deviation: options of transformers' BertTokenizer, and a class of tokenizers.pre_tokenizers
UNSPLIT: dict[str, Any] = {"pre_tokenizer": "WhitespaceSplit"}
CASED: dict[str, Any] = {"do_lower_case": False}
WORDS: dict[str, Any] = UNSPLIT | {"tokenize_chinese_chars": False}
TOKENIZERS: dict[str, dict[str, Any]] = {
    "no lower-casing": CASED,
    "no lower-casing, accents stripped": CASED | {"strip_accents": True},
    "accents not stripped": {"strip_accents": False},
    "Chinese characters not split": {"tokenize_chinese_chars": False},
    "punctuation not split off": UNSPLIT,
    "punctuation split off in runs": {"pre_tokenizer": "Whitespace"},
    "splitting at white space only": WORDS,
    "splitting at white space only, accents not stripped": WORDS | {"strip_accents": False},
    "splitting at white space only, no lower-casing": WORDS | CASED,
    "no lower-casing, punctuation not split off": UNSPLIT | CASED,
}
PROMPTS = (
    "query: ", "passage: ", "search_query: ", "search_document: ", "clustering: ", "classification: ",
    "Represent this sentence for searching relevant passages: ", "为这个句子生成表示以用于检索相关文章：",
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ",
    "task: search result | query: ", "title: none | text: ",
)  # fmt: skip
LAYERS = {
    "second-to-last layer": (-2,),
    "mean of the last two layers": (-2, -1),
    "mean of the last four layers": (-4, -3, -2, -1),
}


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
    how = next((TOKENIZERS[name] for name in TOKENIZERS if found(re.escape(name))), {})
    prompts = {prompt if len(prompt) <= 30 else f"{prompt[:27]}...": prompt for prompt in PROMPTS}
    prompt = next((full for short, full in prompts.items() if found(re.escape(f"prompt {short!r}"))), "")
    special = not found("special tokens left out of the input")
    limit = int(match[1]) if (match := found(r"truncation at (\d+)")) else config.max_seq_length
    tokenizer = _tokenizer(vocabulary, **how)
    all_ids = [
        tokenizer(prompt + text, truncation=True, max_length=limit, add_special_tokens=special)["input_ids"]
        for text in texts
    ]
    if found("token ids one too high"):
        all_ids = [[min(number + 1, len(vocabulary) - 1) for number in ids] for ids in all_ids]
    if found("vocabulary in alphabetical order"):
        place = {token: number for number, token in enumerate(sorted(vocabulary))}
        all_ids = [[place[vocabulary[number]] for number in ids] for ids in all_ids]

    windows = found(r"windows of (\d+) tokens averaged(, weighted)?(, normalised)?(, words kept whole)?")

    # padding
    padding = found(rf"padding to ({'|'.join(PADDINGS)}) (counted in the mean|attended to and counted|attended to)")
    targets = [0] * len(texts) if padding is None else _padded(padding[1], list(map(len, all_ids)), texts)
    attended = padding is not None and "attended" in padding[padding.re.groups]
    counted = padding is not None and padding[padding.re.groups].endswith(("mean", "counted"))
    zeros = found("attention mask (of zeros|and token types swapped), (attention to all alike|no attention)")
    swapped = zeros is not None and zeros[1] != "of zeros"
    ones = bool(found("token types of ones"))
    pools_special = not found("special tokens left out of the mean")

    # the rest
    eps = float(match[1]) if (match := found(r"LayerNorm eps (\S+)")) else config.layer_norm_eps
    sums = found("sums instead of means(, no normalisation)?")
    pooling = (match[1] if (match := found("(CLS|max|mean|last-token) pooling")) else config.pooling_mode).lower()
    pooling = "weighted" if found("position-weighted mean") else "sum" if sums else pooling
    normalize = (not found("no normalisation") if config.normalize else bool(found("normalisation"))) and not sums
    layers = [layers for name, layers in LAYERS.items() if found(name)]
    parameters = {name: torch.from_numpy(np.array(array, np.float32)) for name, array in weights.items()}
    if levels := found("arithmetic in int8, weights per (tensor|channel)"):
        left.add(f"int8 weights per {levels[1]}")
    for rounding in [name for name in left if name.startswith(("weights rounded", "int8 weights", "uint8 weights"))]:
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

    def pooled_vector(ids: Sequence[int], target: int) -> Any:
        n = len(ids)
        is_token = torch.arange(max(n, target)) < n
        pooled = torch.ones_like(is_token) if counted else is_token.clone()
        if not pools_special:
            pooled[0] = pooled[n - 1] = False
        padded = torch.tensor([*ids, *[tokenizer.pad_token_id] * (len(is_token) - n)], dtype=torch.int64)
        mask = torch.ones_like(is_token) if attended else is_token
        if zeros and zeros[2] == "no attention":  # as transformers gives it to torch
            mask = torch.zeros_like(is_token)
        elif zeros:  # as transformers adds it to the scores
            mask = torch.full(is_token.shape, torch.finfo(torch.float32).min)
        types = is_token.long() if swapped else torch.full_like(padded, int(ones))
        states = bert(padded, mask, types) if len(padded) else []
        hidden = torch.stack([states[layer] for layer in (layers[0] if layers else (-1,))]).mean(0) if states else None
        if hidden is None or (not pooled.any() and pooling != "cls"):
            return torch.zeros(config.hidden_size)
        if pooling in ("cls", "last-token"):
            return hidden[0 if pooling == "cls" else n - 1]
        if pooling == "sum":
            return hidden[pooled].sum(0)
        if pooling == "weighted":
            positions = (torch.nonzero(pooled) + 1).to(hidden.dtype)
            return (hidden[pooled] * positions).sum(0) / positions.sum()
        return hidden[pooled].amax(0) if pooling == "max" else hidden[pooled].mean(0)

    vectors = []
    with torch.no_grad():
        for text, ids, target in zip(texts, all_ids, targets, strict=True):
            if windows:
                parts = _parts(tokenizer, prompt + text, int(windows[1]), whole=bool(windows[4]))
                pooled = torch.stack([pooled_vector(part, 0) for part in parts])
                if windows[3]:
                    pooled = torch.nn.functional.normalize(pooled, dim=1)
                sizes = torch.tensor([float(max(1, len(part) - 2)) if windows[2] else 1.0 for part in parts])
                vector = (pooled * sizes[:, None]).sum(0) / sizes.sum()
            else:
                vector = pooled_vector(ids, target)
            vectors.append((torch.nn.functional.normalize(vector, dim=0) if normalize else vector).float())
    return torch.stack(vectors).numpy()


PADDINGS = (
    r"\d+", "the longest text", r"multiples of \d+", r"the longest of each batch of \d+(?:, longest texts first)?",
)  # fmt: skip


def _padded(rule: str, lengths: Sequence[int], texts: Sequence[str]) -> list[int]:
    """The number of tokens to which each text is padded."""
    number = int(match[0]) if (match := re.search(r"\d+", rule)) else len(texts)
    if rule.startswith("multiples"):
        return [-(-n // number) * number for n in lengths]
    if rule.isdigit():
        return [number] * len(lengths)
    order = list(range(len(texts)))
    if rule.endswith("first"):
        order = sorted(order, key=lambda row: -len(texts[row]))
    padded = [0] * len(texts)
    for start in range(0, len(order), number):
        batch = order[start : start + number]
        for row in batch:
            padded[row] = max(lengths[other] for other in batch)
    return padded


def _parts(tokenizer: Any, text: str, size: int, whole: bool) -> list[list[int]]:
    """The ids of the parts of a text, with [CLS] and [SEP]; whole: no part ends before a token that begins with ##."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    tokens = tokenizer.convert_ids_to_tokens(ids)
    parts, start = [], 0
    while start < len(ids):
        stop = min(start + size, len(ids))
        while whole and stop < len(ids) and tokens[stop].startswith("##"):
            stop -= 1
        parts.append(ids[start:stop])
        start = stop
    return [[tokenizer.cls_token_id, *part, tokenizer.sep_token_id] for part in parts or [[]]]


class Bert:
    """The encoder: token ids, mask and types of one text, (T), -> hidden states of every layer, (T, D)."""

    def __init__(
        self, parameters: Mapping[str, Any], heads: int, eps: float, *, gelu: str, token_types: bool,
        first_position: int, pre_norm: bool, levels: bool,
    ) -> None:  # fmt: skip
        self.parameters, self.heads, self.eps, self.gelu = parameters, heads, eps, gelu
        self.token_types, self.first_position, self.pre_norm = token_types, first_position, pre_norm
        self.levels = levels
        self.layers = 1 + max(int(name.split(".")[2]) for name in parameters if name.startswith("encoder.layer"))

    def __call__(self, ids: Any, mask: Any, types: Any) -> list[Any]:
        import torch

        p = self.parameters
        positions = p["embeddings.position_embeddings.weight"]
        where = (torch.arange(len(ids)) + self.first_position).clamp(max=len(positions) - 1)
        x = p["embeddings.word_embeddings.weight"][ids] + positions[where]
        if self.token_types:
            x = x + p["embeddings.token_type_embeddings.weight"][types]
        x = self.norm("embeddings.LayerNorm", x)
        states = [x]
        for number in range(self.layers):
            layer = f"encoder.layer.{number}"
            if self.pre_norm:
                x = x + self.attention(layer, self.norm(f"{layer}.attention.output.LayerNorm", x), mask)
                x = x + self.feed_forward(layer, self.norm(f"{layer}.output.LayerNorm", x))
            else:
                x = self.norm(f"{layer}.attention.output.LayerNorm", x + self.attention(layer, x, mask))
                x = self.norm(f"{layer}.output.LayerNorm", x + self.feed_forward(layer, x))
            states.append(x)
        return states

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
    if rounding == "uint8 weights with a zero point":
        low, high = float(tensor.min().clamp(max=0)), float(tensor.max().clamp(min=0))
        scale = (high - low) / 255
        return torch.fake_quantize_per_tensor_affine(tensor, scale, round(-low / scale), 0, 255)
    if rounding == "int8 weights per tensor":
        return torch.fake_quantize_per_tensor_affine(tensor, float(tensor.abs().max() / 127), 0, -127, 127)
    scales = tensor.abs().amax(1) / 127
    return torch.fake_quantize_per_channel_affine(
        tensor, scales, torch.zeros(len(scales), dtype=torch.int32), 0, -127, 127
    )


def _tokenizer(vocabulary: Sequence[str], pre_tokenizer: str = "", **options: Any) -> Any:
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        from tokenizers import pre_tokenizers
        from transformers import BertTokenizer

        path = Path(folder, "vocab.txt")
        path.write_text("\n".join(vocabulary), encoding="utf-8")
        tokenizer = BertTokenizer(str(path), **options)
        if pre_tokenizer:
            tokenizer.backend_tokenizer.pre_tokenizer = getattr(pre_tokenizers, pre_tokenizer)()
        return tokenizer
