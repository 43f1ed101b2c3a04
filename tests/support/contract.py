"""The numerical contract as scalar loops, for comparison bit for bit. It imports nothing of the package.

`fma_exact` is arithmetic on Python's fractions. Loops that many outputs share (over k, over lanes) run on NumPy arrays
of outputs, and each output is computed independently; their `fma` is computed in float64 with rounding to odd, and
tested against `fma_exact`. The coefficients are repeated here: the contract fixes them too.
"""

import itertools
import math
from fractions import Fraction

import numpy as np

F = np.float32


# ---- fma -------------------------------------------------------------------------------------------------------------


def round_to_float32(value):
    """The float32 nearest to a Fraction, ties to even, subnormals kept; 0 gives +0."""
    if value == 0:
        return F(0.0)
    magnitude = abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if Fraction(2) ** exponent > magnitude:
        exponent -= 1
    exponent = max(exponent, -126)  # below it the spacing remains 2^-149
    units = round(magnitude / Fraction(2) ** (exponent - 23))  # Python rounds a Fraction to even
    result = math.inf if units * 2.0 ** (exponent - 23) >= 2.0**128 else units * 2.0 ** (exponent - 23)
    return F(math.copysign(result, value))


def fma_exact(a, b, c):
    """a * b + c of finite float32, rounded once."""
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    if exact == 0:
        return F(float(a) * float(b) + float(c))  # exact too: only the sign of zero is needed
    if round_to_float32(exact) == 0:
        return F(math.copysign(0.0, exact))
    return round_to_float32(exact)


def fma(a, b, c):
    """The same for arrays."""
    a, b, c = np.broadcast_arrays(*(np.asarray(value, dtype=np.float32).astype(np.float64) for value in (a, b, c)))
    product = a * b
    total = np.asarray(product + c)
    c_part = total - product
    error = (product - (total - c_part)) + (c - c_part)
    even = total.view(np.int64) & 1 == 0
    toward = np.where((error > 0) == (total > 0), np.inf, 0.0)
    neighbour = np.nextafter(total, np.copysign(toward, total))
    return np.where((error != 0) & np.isfinite(error) & even, neighbour, total).astype(np.float32)


# ---- exp, erf, activations -------------------------------------------------------------------------------------------

# fmt: off
EXP = (
    0.5, 0.1666666716337204, 0.041666530072689056, 0.008333245292305946,
    0.0013928738189861178, 0.00019908773538190871,
)
ERF = (
    0.3651091158390045, -0.024299023672938347, 0.0024091051891446114, -0.0002607270434964448,
    2.868239243980497e-05, -3.0987957870820537e-06, 3.212415151665482e-07, -3.117769153959671e-08,
    2.846024083069665e-09, -2.604366444725059e-10, 2.2303396976508516e-11, -1.3366595157104921e-12,
    6.413631155029534e-14, -8.571871782259849e-15, 9.29927720758224e-16, -3.46844639428467e-17,
)
# fmt: on


def polynomial(coefficients, x):
    result = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = fma(result, x, F(coefficient))
    return result


def exp(x):
    x = np.asarray(x, dtype=np.float32)
    lowest, shift = F(-87.33654), F(1.5 * 2**23)
    clamped = np.where(x > lowest, x, lowest)
    n = fma(clamped, F(1.0 / math.log(2.0)), shift) - shift
    with np.errstate(invalid="ignore"):
        r = fma(n, F(0.693359375 - math.log(2.0)), fma(n, F(-0.693359375), x))
        result = (F(1) + fma(r * r, polynomial(EXP, r), r)) * np.ldexp(F(1), n.astype(np.int32))
    return np.where(lowest > x, F(0), result)


def erf_parts(z):
    z = np.clip(z, F(-4), F(4))
    return z, polynomial(ERF, fma(z, z, F(-7.5)))


def erf(z):
    z, quotient = erf_parts(np.asarray(z, dtype=np.float32))
    return z * quotient


def gelu(x):
    x = np.asarray(x, dtype=np.float32)
    z, quotient = erf_parts(x * F(math.sqrt(0.5)))
    return (F(0.5) * x) * fma(z, quotient, F(1))


def sigmoid(x):
    e = exp(np.where(x > 0, -x, x))
    return np.where(x > 0, F(1), e) / (F(1) + e)


def gelu_tanh(x):
    x = np.asarray(x, dtype=np.float32)
    factor = 2.0 * math.sqrt(2.0 / math.pi)
    return x * sigmoid(x * fma(x * x, F(0.044715 * factor), F(factor)))


def relu(x):
    x = np.asarray(x, dtype=np.float32)
    return np.where(F(0) > x, F(0), x)


def silu(x):
    x = np.asarray(x, dtype=np.float32)
    return x * sigmoid(x)


ACTIVATIONS = {"gelu": gelu, "gelu_new": gelu_tanh, "gelu_pytorch_tanh": gelu_tanh, "relu": relu, "silu": silu}


# ---- sums ------------------------------------------------------------------------------------------------------------


def fold_lanes(lanes, combine):
    lanes = list(lanes)
    for half in (8, 4, 2, 1):
        lanes = [combine(lanes[i], lanes[i + half]) for i in range(half)]
    return lanes[0]


def row_sum(row):
    """Sum of one row in sixteen lanes."""
    lanes = [F(0)] * 16
    for start in range(0, len(row), 16):
        for i in range(16):
            lanes[i] = lanes[i] + (row[start + i] if start + i < len(row) else F(0))
    return fold_lanes(lanes, lambda a, b: a + b)


def dense(x, weight):
    """x @ weight.T: (M, K), (N, K) -> (M, N). One chain of fma for each output and block of 128."""
    K = x.shape[1]
    total = None
    for block in range(0, K, 128):
        acc = np.zeros((x.shape[0], weight.shape[0]), np.float32)
        for k in range(block, min(block + 128, K)):
            acc = fma(x[:, k, None], weight[None, :, k], acc)
        total = acc if total is None else total + acc
    return total


# ---- the operations --------------------------------------------------------------------------------------------------


def linear(x, weight, bias):
    return dense(x, weight) + bias


def linear_gelu(x, weight, bias):
    return gelu(linear(x, weight, bias))


def linear_residual(x, weight, bias, residual):
    return linear(x, weight, bias) + residual


def layer_norm(x, weight, bias, eps):
    out = np.empty_like(x)
    count = F(x.shape[1])
    for n, row in enumerate(x):
        mean = row_sum(row) / count
        difference = row - mean
        variance = row_sum(difference * difference) / count
        scale = F(1) / np.sqrt(variance + F(eps))
        out[n] = fma(difference * scale, weight, bias)
    return out


def embeddings(token_ids, position_ids, word, position, token_type, weight, bias, eps, token_type_ids=0):
    return layer_norm((word[token_ids] + position[position_ids]) + token_type[token_type_ids], weight, bias, eps)


def positions(ids, padding_idx):
    """The row of the position table for each token of a text."""
    if padding_idx is None:
        return np.arange(len(ids))
    rows, count = [], 0
    for number in ids:
        count += number != padding_idx
        rows.append(padding_idx if number == padding_idx else padding_idx + count)
    return np.array(rows)


def bucket(distance):
    """The row of the table of relative positions; distance: the key's position minus the query's."""
    n, first = abs(distance), 16 if distance > 0 else 0
    return first + (n if n < 8 else min(15, 8 + math.floor(2.0 * math.log2(n / 8.0))))


def attention(qkv, offsets, n_heads, table=None):
    N, D = qkv.shape[0], qkv.shape[1] // 3
    E = D // n_heads
    scale = F(1.0 / math.sqrt(E))
    context = np.empty((N, D), np.float32)
    for first, last in itertools.pairwise(offsets):
        for h in range(n_heads):
            query, key, value = (qkv[first:last, i * D + h * E : i * D + (h + 1) * E] for i in range(3))
            scores = dense(query, key) * scale
            if table is not None:
                T = last - first
                scores = scores + np.array([[table[bucket(s - t), h] for s in range(T)] for t in range(T)])
            exponentials = np.stack([exp(row - max(row)) for row in scores])
            totals = np.array([row_sum(row) for row in exponentials])
            context[first:last, h * E : (h + 1) * E] = dense(exponentials, value.T) / totals[:, None]
    return context


def pooling(hidden_states, offsets, mode):
    rows = []
    for first, last in itertools.pairwise(offsets):
        tokens = hidden_states[first:last]
        if mode == "lasttoken":
            row = tokens[-1]
        elif mode == "weightedmean":
            row = np.zeros_like(tokens[0])
            for position, token in enumerate(tokens, 1):
                row = row + token * F(position)
            row = row / F(sum(range(1, len(tokens) + 1)))
        elif mode == "cls":
            row = tokens[0]
        elif mode == "max":
            row = tokens[0]
            for token in tokens[1:]:
                row = np.where(token > row, token, row)
        else:
            row = np.zeros_like(tokens[0])
            for token in tokens:
                row = row + token
            row = row / (F(len(tokens)) if mode == "mean" else np.sqrt(F(len(tokens))))
        rows.append(row)
    return np.stack(rows)


def normalize(x):
    return np.stack([row / max(np.sqrt(row_sum(row * row)), F(1e-12)) for row in x])
