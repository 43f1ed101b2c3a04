"""The model as scalar loops over Python floats (float64): slow, plain, and independent of the package.

It imports nothing of the package, uses no array operation, and takes the flat weights by the checkpoint's names. It
returns every intermediate under the name that `reference.py` records.
"""

import math
from typing import Any

Vector = list[float]
Matrix = list[Vector]


def dot(a: Vector, b: Vector) -> float:
    total = 0.0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


def linear(x: Matrix, weight: Matrix, bias: Vector) -> Matrix:
    return [[dot(row, weight[m]) + bias[m] for m in range(len(weight))] for row in x]


def layer_norm(x: Matrix, weight: Vector, bias: Vector, eps: float) -> Matrix:
    normed = []
    for row in x:
        D = len(row)
        mean = 0.0
        for d in range(D):
            mean += row[d] / D
        variance = 0.0
        for d in range(D):
            variance += (row[d] - mean) ** 2 / D
        normed.append([(row[d] - mean) / math.sqrt(variance + eps) * weight[d] + bias[d] for d in range(D)])
    return normed


def gelu(x: Matrix) -> Matrix:
    return [[0.5 * value * (1.0 + math.erf(value / math.sqrt(2.0))) for value in row] for row in x]


def gelu_tanh(x: Matrix) -> Matrix:
    return [[0.5 * v * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (v + 0.044715 * v**3))) for v in row] for row in x]


def relu(x: Matrix) -> Matrix:
    return [[value if value > 0.0 else 0.0 for value in row] for row in x]


def silu(x: Matrix) -> Matrix:
    return [[value / (1.0 + math.exp(-value)) for value in row] for row in x]


ACTIVATIONS = {"gelu": gelu, "gelu_new": gelu_tanh, "gelu_pytorch_tanh": gelu_tanh, "relu": relu, "silu": silu}


def positions(ids: list[int], padding_idx: int | None) -> list[int]:
    """The row of the position table for each token."""
    if padding_idx is None:
        return list(range(len(ids)))
    rows, count = [], 0
    for number in ids:
        count += number != padding_idx
        rows.append(padding_idx if number == padding_idx else padding_idx + count)
    return rows


def bucket(distance: int) -> int:
    """The row of MPNet's table of relative positions; distance: the key's position minus the query's."""
    n, first = abs(distance), 16 if distance > 0 else 0
    return first + (n if n < 8 else min(15, 8 + math.floor(2.0 * math.log2(n / 8.0))))


def softmax(row: Vector) -> Vector:
    largest = max(row)
    exps = [math.exp(value - largest) for value in row]
    total = 0.0
    for e in exps:
        total += e
    return [e / total for e in exps]


def add(a: Matrix, b: Matrix) -> Matrix:
    return [[a[t][d] + b[t][d] for d in range(len(a[t]))] for t in range(len(a))]


def encode(ids: list[int], arrays: dict[str, Any], config: Any) -> tuple[Vector, dict[str, Any]]:
    """Token ids of one text, the flat weights as nested lists -> its vector, and every intermediate by name."""
    H, E, eps = config.num_attention_heads, config.hidden_size // config.num_attention_heads, config.layer_norm_eps
    kept: dict[str, Any] = {}

    def keep(name: str, x: Any) -> Any:
        kept[name] = x
        return x

    def norm(name: str, x: Matrix) -> Matrix:
        return keep(name, layer_norm(x, arrays[f"{name}.weight"], arrays[f"{name}.bias"], eps))

    def dense(name: str, x: Matrix) -> Matrix:
        return keep(name, linear(x, arrays[f"{name}.weight"], arrays[f"{name}.bias"]))

    T = len(ids)
    word = keep("embeddings.word_embeddings", [arrays["embeddings.word_embeddings.weight"][i] for i in ids])
    rows = [arrays["embeddings.position_embeddings.weight"][row] for row in positions(ids, config.padding_idx)]
    x = add(word, keep("embeddings.position_embeddings", rows))
    if config.type_vocab_size > 0:
        types = [arrays["embeddings.token_type_embeddings.weight"][0]] * T
        x = add(x, keep("embeddings.token_type_embeddings", types))
    x = norm("embeddings.LayerNorm", x)
    table = arrays.get("encoder.relative_attention_bias.weight")
    for number in range(config.num_hidden_layers):
        name = f"encoder.layer.{number}"
        query = dense(f"{name}.attention.self.query", x)
        key = dense(f"{name}.attention.self.key", x)
        value = dense(f"{name}.attention.self.value", x)
        scores, probs = [], []
        context = [[0.0] * (H * E) for _ in range(T)]
        for h in range(H):
            part = slice(h * E, (h + 1) * E)
            scores.append([[dot(query[t][part], key[s][part]) / math.sqrt(E) for s in range(T)] for t in range(T)])
            if table is not None:
                scores[h] = [[scores[h][t][s] + table[bucket(s - t)][h] for s in range(T)] for t in range(T)]
            probs.append([softmax(row) for row in scores[h]])
            for t in range(T):
                for s in range(T):
                    for e in range(E):
                        context[t][h * E + e] += probs[h][t][s] * value[s][h * E + e]
        keep(f"{name}.attention.self.scores", scores)
        keep(f"{name}.attention.self.probs", probs)
        keep(f"{name}.attention.self.context", context)
        attended = dense(f"{name}.attention.output.dense", context)
        x = norm(f"{name}.attention.output.LayerNorm", add(attended, x))
        activation = ACTIVATIONS[config.hidden_act](dense(f"{name}.intermediate.dense", x))
        keep(f"{name}.intermediate.intermediate_act_fn", activation)
        x = norm(f"{name}.output.LayerNorm", add(dense(f"{name}.output.dense", activation), x))
    D = len(x[0])
    if config.pooling_mode == "cls":
        vector = x[0]
    elif config.pooling_mode == "max":
        vector = [max(x[t][d] for t in range(T)) for d in range(D)]
    elif config.pooling_mode == "lasttoken":
        vector = x[T - 1]
    elif config.pooling_mode == "weightedmean":
        weight = sum(t + 1 for t in range(T))
        vector = [sum((t + 1) * x[t][d] for t in range(T)) / weight for d in range(D)]
    else:
        divisor = T if config.pooling_mode == "mean" else math.sqrt(T)
        vector = [sum(x[t][d] for t in range(T)) / divisor for d in range(D)]
    keep("pooling", vector)
    if config.normalize:
        length = max(math.sqrt(dot(vector, vector)), 1e-12)
        vector = keep("normalize", [value / length for value in vector])
    return vector, kept
