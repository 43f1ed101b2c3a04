"""A port from CONFORMANCE.md alone, without the package's code; and conformance files with something changed."""

import hashlib
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from minilm_np.verify.conformance_subjects import FULL_TEXTS

TEXTS = [*FULL_TEXTS, "punctuation?! ... (yes)", "long " * 300, "naïve 日本"]


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    """The bytes, as the page describes them."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    manifest = json.loads(header.pop("__metadata__")["minilm_np"])
    arrays = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        dtype = {"I64": "<i8", "F32": "<f4", "F64": "<f8"}[entry["dtype"]]
        data = content[8 + length + start : 8 + length + stop]
        arrays[name] = np.frombuffer(data, dtype).reshape(entry["shape"])
    return arrays, manifest


def digest(weights: dict[str, np.ndarray], manifest: Any) -> str:
    found = hashlib.sha256()
    for name, shape in (entry.values() for entry in manifest["model"]["parameters"]):
        sizes = f"({shape[0]},)" if len(shape) == 1 else f"({', '.join(map(str, shape))})"
        found.update(f"{name} {sizes}\n".encode())
        found.update(np.ascontiguousarray(weights[name], "<f4").tobytes())
    return found.hexdigest()


def erf_gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.vectorize(math.erf)(x.astype(np.float64) / math.sqrt(2)).astype(x.dtype))


def tanh_gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def port(
    ids: np.ndarray, w: dict[str, np.ndarray], config: dict[str, Any], gelu: Callable[..., Any] = erf_gelu,
    token_types: np.ndarray | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """The steps of the page, in the dtype of the weights. token_types: of a pair, for a cross-encoder."""
    seen = {}
    T, D, H = len(ids), config["hidden_size"], config["num_attention_heads"]
    E = D // H

    def see(name: str, x: np.ndarray) -> np.ndarray:
        seen[name] = x
        return x

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return see(name, np.einsum("tk,mk->tm", x, w[f"{name}.weight"]) + w[f"{name}.bias"])

    def layer_norm(name: str, x: np.ndarray) -> np.ndarray:
        mean = x.sum(1, keepdims=True) / D
        var = ((x - mean) ** 2).sum(1, keepdims=True) / D
        root = np.sqrt(var + x.dtype.type(config["layer_norm_eps"]))
        return see(name, (x - mean) / root * w[f"{name}.weight"] + w[f"{name}.bias"])

    kinds = np.zeros(T, int) if token_types is None else token_types
    words = see("embeddings.word_embeddings", w["embeddings.word_embeddings.weight"][ids])
    positions = see("embeddings.position_embeddings", w["embeddings.position_embeddings.weight"][np.arange(T)])
    types = see("embeddings.token_type_embeddings", w["embeddings.token_type_embeddings.weight"][kinds])
    x = layer_norm("embeddings.LayerNorm", words + positions + types)
    for number in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{number}."
        query = dense(f"{at}attention.self.query", x)
        key = dense(f"{at}attention.self.key", x)
        value = dense(f"{at}attention.self.value", x)
        scores, context = np.zeros((H, T, T), x.dtype), np.zeros((T, D), x.dtype)
        for h in range(H):
            columns = slice(h * E, (h + 1) * E)
            scores[h] = query[:, columns] @ key[:, columns].T / math.sqrt(E)
        exp = np.exp(scores - scores.max(2, keepdims=True))
        probs = exp / exp.sum(2, keepdims=True)
        for h in range(H):
            context[:, h * E : (h + 1) * E] = probs[h] @ value[:, h * E : (h + 1) * E]
        see(f"{at}attention.self.scores", scores)
        see(f"{at}attention.self.probs", probs)
        see(f"{at}attention.self.context", context)
        a = layer_norm(f"{at}attention.output.LayerNorm", dense(f"{at}attention.output.dense", context) + x)
        active = see(f"{at}intermediate.intermediate_act_fn", gelu(dense(f"{at}intermediate.dense", a)))
        x = layer_norm(f"{at}output.LayerNorm", dense(f"{at}output.dense", active) + a)
    if token_types is not None:
        first = see("pooler.activation", np.tanh(dense("pooler.dense", x[:1])))
        dense("classifier", first)
        return seen | {name: seen[name][0] for name in ("pooler.dense", "pooler.activation", "classifier")}
    pooled = {"mean": x.mean(0), "cls": x[0], "max": x.max(0), "mean_sqrt_len_tokens": x.sum(0) / math.sqrt(T)}
    pooled |= {"lasttoken": x[-1], "weightedmean": np.arange(1, T + 1, dtype=x.dtype) @ x / (T * (T + 1) // 2)}
    x = see("pooling", pooled[config["pooling_mode"]])
    if config["normalize"]:
        x = see("normalize", x / max(math.sqrt((x * x).sum()), 1e-12))
    return seen


def error(x: np.ndarray, r: np.ndarray) -> float:
    assert x.shape == r.shape
    difference, largest = np.abs(x.astype(np.float64) - r).max(), np.abs(r).max()
    return float(difference / largest) if largest else (0.0 if difference == 0 else math.inf)


def first_out(path: Path, weights: dict[str, np.ndarray], dtype: str, **options: Any) -> tuple[str, float] | None:
    """The first name of the port that does not conform, and its error; every array of the file is looked at."""
    arrays, manifest = read_safetensors(path)
    assert manifest["format"] == "minilm_np conformance 2"
    assert digest(weights, manifest) == manifest["model"]["weights_sha256"]
    tolerance = manifest["tolerance"][dtype]
    names = [step["name"] for step in manifest["intermediates"]]
    left = {name for name in arrays if ".float32" not in name and not name.startswith("tokenizer_lines.")}
    w = {name: array.astype(dtype) for name, array in weights.items()}
    for i, text in enumerate(manifest["texts"]):
        seen = port(arrays[f"texts.{i}.ids"], w, manifest["model"]["config"], **options)
        left -= {f"texts.{i}.ids", "vectors.float64"}
        expected = {"vector": arrays["vectors.float64"][i]}
        if text["intermediates"]:
            assert set(seen) == set(names)
            expected = {name: arrays[f"texts.{i}.float64.{name}"] for name in names} | expected
            left -= {f"texts.{i}.float64.{name}" for name in names}
        seen["vector"] = seen["normalize" if manifest["model"]["config"]["normalize"] else "pooling"]
        for name, r in expected.items():
            if not error(seen[name], r) <= tolerance:
                return name, error(seen[name], r)
    assert not left
    return None


def changed(path: Path, change: Callable[[dict[str, np.ndarray], Any], object]) -> Path:
    """A copy of a file, beside it, with something changed."""
    arrays, manifest = read_safetensors(path)
    arrays = {name: array.copy() for name, array in arrays.items()}
    change(arrays, manifest)
    copy = path.with_name("changed.safetensors")
    copy.write_bytes(save(arrays, {"minilm_np": json.dumps(manifest)}))
    return copy


def set_first(array: np.ndarray, value: Any) -> None:
    array.flat[0] = value
