"""The gradient of LayerNorm.

Twin: `backward.layer_norm_backward`. With x_hat = (x - mean) * scale, scale = 1 / sqrt(variance + eps) and
g = d_y * weight:

    d_x = scale * (g - mean(g) - x_hat * mean(g * x_hat))

d_weight = sum of d_y * x_hat and d_bias = sum of d_y, over the tokens, are `products.column_dots` and `column_sums`.

Sums    mean and variance as in `engine/float32/kernels/layer_norm.py`; mean(g) and mean(g * x_hat) in the same way.
"""

import numpy as np

from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import kernel, lane_sum, load_part, splat, sqrt, store_part

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


@kernel
def layer_norm_backward(d_y, x, weight, eps, d_x, x_hat, row_start, row_stop):
    # (N, D), (N, D), (D,) -> (N, D), (N, D); d_x may be d_y, x_hat may be x
    D = x.shape[1]
    count = np.float32(D)
    weight_row = simd.address(weight)
    for n in range(row_start, row_stop):
        start = n * D
        x_row, d_y_row = simd.address(x) + start, simd.address(d_y) + start
        x_hat_row, d_x_row = simd.address(x_hat) + start, simd.address(d_x) + start
        total = splat(_ZERO)
        for d in range(0, D, simd.LANES):
            total = total + load_part(x_row + d, D - d, _ZERO)
        mean = lane_sum(total) / count
        total = splat(_ZERO)
        for d in range(0, D, simd.LANES):
            difference = load_part(x_row + d, D - d, mean) - splat(mean)  # +0 for missing elements
            total = total + difference * difference
        scale = splat(_ONE) / sqrt(splat(lane_sum(total) / count) + splat(eps))
        total, total_x_hat = splat(_ZERO), splat(_ZERO)
        for d in range(0, D, simd.LANES):
            normalized = (load_part(x_row + d, D - d, mean) - splat(mean)) * scale
            store_part(x_hat_row + d, D - d, normalized)
            g = load_part(d_y_row + d, D - d, _ZERO) * load_part(weight_row + d, D - d, _ZERO)
            total = total + g
            total_x_hat = total_x_hat + g * normalized
        mean_g, mean_g_x_hat = splat(lane_sum(total) / count), splat(lane_sum(total_x_hat) / count)
        for d in range(0, D, simd.LANES):
            g = load_part(d_y_row + d, D - d, _ZERO) * load_part(weight_row + d, D - d, _ZERO)
            centred = (g - mean_g) - load_part(x_hat_row + d, D - d, _ZERO) * mean_g_x_hat
            store_part(d_x_row + d, D - d, centred * scale)
