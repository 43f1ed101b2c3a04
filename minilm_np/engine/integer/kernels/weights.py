"""A float32 weight to rows of int16, whatever the target's layout is; `layout.pack` packs them.

Twin: `reference.quantise_16` (levels 0), `reference.quantise_symmetric` (levels 127 or 32767).

Reads   weight (N, K), channels (K,).
Writes  out (N, 2 * K padded to 16) bytes, scale (N,); scratch (K,).
Fused   the product with the channels.
"""

import numpy as np

from minilm_np.engine.integer.kernels.quantise import SMALLEST, largest_magnitude, nearest, scale_and_factor
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import integers, kernel, load_part, splat, store_part
from minilm_np.engine.runtime.simd.integers import store_shorts

_ZERO = np.float32(0.0)


@kernel
def quantise_weight(weight, channels, levels, out, scale, scratch):
    # (N, K), (K,) -> (N, K), (N,)
    N, K = weight.shape
    line, by, row_bytes = simd.address(scratch), simd.address(channels), out.shape[1]
    for n in range(N):
        row, out_row = simd.address(weight) + n * K, integers.bytes_address(out) + n * row_bytes
        for k in range(0, K, simd.LANES):
            store_part(line + k, K - k, load_part(row + k, K - k, _ZERO) * load_part(by + k, K - k, _ZERO))
        largest = largest_magnitude(line, K)
        if levels == 0:
            scale[n], factor = scale_and_factor(line, K, largest)
        else:
            last = np.float32(levels)
            scale[n], factor = largest / last, splat(last / largest if largest > SMALLEST else _ZERO)
        for k in range(0, K, simd.LANES):
            store_shorts(out_row + 2 * k, nearest(load_part(line + k, K - k, _ZERO), factor))
