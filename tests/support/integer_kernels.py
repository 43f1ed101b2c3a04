"""The integer kernels on arrays, their rules in scalar NumPy, and a program that tells what they are made of.

    python -m tests.support.integer_kernels

runs every kernel on fixed inputs and prints the target, the SHA-256 of all outputs and counts of instructions, as JSON.
"""

import hashlib
import json
import math
import re
from fractions import Fraction

import numpy as np

from minilm_np.engine.integer.kernels import layout, linear, quantise
from tests.support import contract
from tests.support.targets import aarch64_assembly

F32 = np.float32
MOST_NORM = 46_340

KERNELS = (
    linear.linear_16, linear.linear_gelu_16, linear.linear_residual_16,
    linear.linear_8, linear.linear_gelu_8, linear.linear_residual_8,
    quantise.quantise_rows_16, quantise.quantise_rows_8,
)  # fmt: skip


# ---- the kernels -----------------------------------------------------------------------------------------------------


def packed(bits, weight):
    out = layout.aligned_bytes(layout.packed_shape(bits, *weight.shape))
    layout.pack(bits, weight, out)
    return out


def run_linear(bits, x, x_scale, weight, weight_scale, bias, kind="linear", x_zero=None, residual=None, ranges=None):
    """A dense layer of integers (M, K) and (N, K); ranges: of rows and panels, each pair of them a call."""
    out = np.full((len(x), len(weight)), np.nan, F32)
    rows, weight_packed = layout.pack_rows(bits, x), packed(bits, weight)
    arguments = [rows, x_scale, weight_packed, weight_scale, bias]
    if bits == 8:
        arguments.insert(2, x_zero)
        arguments.insert(5, weight.sum(1, dtype=np.int32))
    if residual is not None:
        arguments.append(residual)
    function = getattr(linear, f"{kind}_{bits}")
    for row_start, row_stop, panel_start, panel_stop in ranges or [(0, len(x), 0, len(weight_packed))]:
        function(*arguments, out, row_start, row_stop, panel_start, panel_stop)
    return out


def run_quantise(bits, x, checks_padding=True):
    """Integers (M, K), scale (M,) and, with 8 bits, zero (M,), of float32 rows."""
    rows = layout.aligned_bytes(layout.rows_shape(bits, *x.shape))
    rows[:] = 0xA5
    scale, zero = np.empty(len(x), F32), np.empty(len(x), np.int32)
    if bits == 16:
        quantise.quantise_rows_16(x, rows, scale, 0, len(x))
    else:
        quantise.quantise_rows_8(x, rows, scale, zero, 0, len(x))
    if checks_padding:  # zeros, as the rule makes them
        padding = layout.unpack_rows(bits, rows, len(x), layout.padded(x.shape[1]))[:, x.shape[1] :]
        assert (padding == (0 if bits == 16 else zero[:, None])).all()
    return layout.unpack_rows(bits, rows, *x.shape), scale, zero


# ---- their rules -----------------------------------------------------------------------------------------------------


def exact_product(x, weight):
    """x @ weight.T in Python's integers."""
    return x.astype(object) @ weight.astype(object).T


def linear_rule(sums, x_scale, weight_scale, bias, kind="linear", residual=None):
    """The float part of a dense layer; sums are Python's integers."""
    assert abs(sums).max() < 2**31
    with np.errstate(all="ignore"):
        out = sums.astype(np.int64).astype(F32) * (x_scale[:, None] * weight_scale) + bias
    if kind == "linear_gelu":
        return contract.gelu(out)
    return out + residual if kind == "linear_residual" else out


def nearest(x, factor):
    """The exact product, rounded to nearest even: Python's `round` of a fraction."""
    return round(Fraction(float(x)) * Fraction(float(factor)))


def quantise_rule_16(row):
    """Integers and scale of a finite row."""
    amax = abs(row).max()
    inverse = F32(1) / amax if amax > F32(2.0**-100) else F32(0)
    lanes = np.zeros(16, F32)
    for value in np.pad(row, (0, -len(row) % 16)).reshape(-1, 16):
        lanes = lanes + (value * inverse) * (value * inverse)
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    with np.errstate(divide="ignore"):
        limit = F32(46_338 - math.isqrt(len(row))) / np.sqrt(lanes[0])
    steps = min(limit, F32(32_767))
    factor = inverse * steps
    return np.array([nearest(x, factor) for x in row]), amax / steps


def quantise_rule_8(row):
    """Integers, scale and zero of a finite row."""
    high, low = max(F32(0), row.max()), min(F32(0), row.min())
    inverse = F32(255) / (high - low) if high - low > F32(2.0**-100) else F32(0)
    zero = nearest(-low, inverse)
    return np.array([min(nearest(x, inverse) + zero, 255) for x in row]), (high - low) / F32(255), zero


# ---- what they are made of -------------------------------------------------------------------------------------------


def within_norm(values):
    """int16 rows, divided by powers of two until their 2-norm is at most MOST_NORM."""
    values = values.astype(np.int64)
    while (long := (values * values).sum(1) > MOST_NORM**2).any():
        values[long] //= 2
    return values.astype(np.int16)


def outputs():
    """The outputs of all kernels on fixed inputs, with tails in every dimension."""
    rng = np.random.default_rng(20260101)
    for M, K, N in ((1, 64, 48), (10, 384, 96), (70, 300, 100), (5, 129, 17), (33, 1, 1)):
        x = rng.integers(-(2**20), 2**20, (M, K)).astype(F32) * F32(2.0**-17)
        bias, residual = (rng.integers(-(2**20), 2**20, n).astype(F32) * F32(2.0**-19) for n in (N, (M, N)))
        scale = rng.integers(1, 2**20, N).astype(F32) * F32(2.0**-32)
        for bits in (16, 8):
            integers, x_scale, x_zero = run_quantise(bits, x)
            yield x_scale
            if bits == 8:
                yield x_zero
            high = 2**15 if bits == 16 else 2**7
            weight = rng.integers(1 - high, high, (N, K)).astype(np.int16 if bits == 16 else np.int8)
            weight = within_norm(weight) if bits == 16 else weight
            for kind in ("linear", "linear_gelu", "linear_residual"):
                extra = {"residual": residual} if kind == "linear_residual" else {}
                zero = {"x_zero": x_zero} if bits == 8 else {}
                yield run_linear(bits, integers, x_scale, weight, scale, bias, kind, **zero, **extra)


INSTRUCTIONS = (
    "tdpbssd", "tdpbsud", "tdpbusd", "tdpbuud", "tileloadd", "tilestored", "ldtilecfg", "tilerelease",
    "vpdpwssd", "vpdpbusd", "vpmaddwd", "pmaddwd", "vpmaddubsw", "pmaddubsw", "vpdpwssds", "vpdpbusds",
)  # fmt: skip


def main():
    digest = hashlib.sha256()
    for out in outputs():
        assert np.isfinite(out).all()
        digest.update(out.tobytes())
    assembly = "\n".join(text for kernel in KERNELS for text in kernel.inspect_asm().values())
    ir = "\n".join(text for kernel in KERNELS for text in kernel.inspect_llvm().values())
    facts = {
        "target": layout.TARGET,
        "sha256": digest.hexdigest(),
        "counts": {name: len(re.findall(rf"^\s+(?:\{{vex\}}\s+)?{name}\b", assembly, re.M)) for name in INSTRUCTIONS},
        "zmm": len(re.findall(r"\bvp(?:dp\w+|maddwd)\b.*%zmm", assembly)),
        "ymm": len(re.findall(r"\bvp(?:dp\w+|maddwd)\b.*%ymm", assembly)),
        "fast": sorted(set(re.findall(r"\b(?:fast|reassoc|contract|afn|fmuladd|vector\.reduce\.\w+)\b", ir))),
        "libm": sorted(set(re.findall(r"\b(?:fmaf?|expf?|erff?|sqrtf?|roundevenf?|floorf?|rintf?)@PLT", assembly))),
        "versions": max(len(kernel.signatures) for kernel in KERNELS),
    }
    if layout.TARGET == "neon":
        aarch64 = "\n".join(aarch64_assembly(text) for kernel in KERNELS for text in kernel.inspect_llvm().values())
        patterns = {name: rf"^\s+{name}\s+v\d" for name in ("smlal", "smlal2", "mul")}
        patterns["calls to libm"] = r"\bbl\s+(expf?|erff?|fmaf?|roundevenf?|sqrtf?)\b"
        facts["aarch64"] = {name: len(re.findall(pattern, aarch64, re.M)) for name, pattern in patterns.items()}
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
