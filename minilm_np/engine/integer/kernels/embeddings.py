"""Embeddings of a ragged batch from a word table of int16: LayerNorm of (word + position) + token type.

Twin: `reference.embeddings(...)` with the table of this engine's `reference.quantise_weights`; the float32 kernel is
`float32/kernels/embeddings.py`.

Reads   token_ids, position_ids and token_type_ids (N,) int64, word (V, 2 * D padded to 16) bytes of int16,
        word_scale (V,), position (P, D), token_type (types, D), LayerNorm's weight (D,) and bias (D,), eps.
Writes  rows row_start..row_stop of out (N, D).
Order   float32(integer) * scale; (word + position) + token type; then LayerNorm's own order.

Ids are not checked: one outside its table reads foreign memory.
"""

import numpy as np

from minilm_np.engine.float32.kernels.layer_norm import layer_norm_row
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import integers, kernel, load_part, splat, store_part
from minilm_np.engine.runtime.simd.integers import load_shorts, to_floats

_ZERO = np.float32(0.0)


@kernel
def embeddings(
    token_ids, position_ids, token_type_ids, word, word_scale, position, token_type, weight, bias, eps, out,
    row_start, row_stop,
):  # fmt: skip
    # (N,), (N,), (N,), (V, D), (V,), (P, D), (types, D), (D,), (D,) -> (N, D)
    D, row_bytes = out.shape[1], word.shape[1]
    for n in range(row_start, row_stop):
        word_row = integers.bytes_address(word) + token_ids[n] * row_bytes
        scale = splat(word_scale[token_ids[n]])
        position_row = simd.address(position) + position_ids[n] * D
        token_type_row = simd.address(token_type) + token_type_ids[n] * D
        out_row = simd.address(out) + n * D
        for d in range(0, D, simd.LANES):
            total = to_floats(load_shorts(word_row + 2 * d)) * scale + load_part(position_row + d, D - d, _ZERO)
            store_part(out_row + d, D - d, total + load_part(token_type_row + d, D - d, _ZERO))
        layer_norm_row(out_row, simd.address(weight), simd.address(bias), eps, D, out_row)
