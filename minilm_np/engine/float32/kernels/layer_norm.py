"""LayerNorm over the last axis: out = (x - mean) / sqrt(variance + eps) * weight + bias.

Twin: `reference.layer_norm(x, weight, bias, eps)`.

Reads   x (N, D), weight (D,), bias (D,), eps float32.
Writes  rows row_start..row_stop of out (N, D), which may be x itself.
Sums    mean and variance: 16 lanes; lane i adds elements i, i + 16, ... to +0 in ascending order, missing elements
        are +0; then the lane pairs. mean = sum / D. Variance, in a second pass: sum of (x - mean) * (x - mean), / D.
Order   scale = 1 / sqrt(variance + eps), once per row; out = fma((x - mean) * scale, weight, bias).
Fused   nothing.
"""

import numpy as np

from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import fma, inlined, kernel, lane_sum, load_part, splat, sqrt, store_part

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


@kernel
def layer_norm(x, weight, bias, eps, out, row_start, row_stop):
    # (N, D), (D,), (D,) -> (N, D)
    D = x.shape[1]
    x_rows, out_rows = simd.address(x), simd.address(out)
    for n in range(row_start, row_stop):
        layer_norm_row(x_rows + n * D, simd.address(weight), simd.address(bias), eps, D, out_rows + n * D)


@inlined
def layer_norm_row(x, weight, bias, eps, D, out):
    """LayerNorm of one row, all arrays as pointers; out may be x."""
    count = np.float32(D)
    total = splat(_ZERO)
    for d in range(0, D, simd.LANES):
        total = total + load_part(x + d, D - d, _ZERO)
    mean = lane_sum(total) / count
    total = splat(_ZERO)
    for d in range(0, D, simd.LANES):
        # A missing element is loaded as the mean, so its difference is +0.
        difference = load_part(x + d, D - d, mean) - splat(mean)
        total = total + difference * difference
    variance = splat(lane_sum(total) / count)
    scale = splat(_ONE) / sqrt(variance + splat(eps))
    for d in range(0, D, simd.LANES):
        normalized = (load_part(x + d, D - d, _ZERO) - splat(mean)) * scale
        scaled = fma(normalized, load_part(weight + d, D - d, _ZERO), load_part(bias + d, D - d, _ZERO))
        store_part(out + d, D - d, scaled)
