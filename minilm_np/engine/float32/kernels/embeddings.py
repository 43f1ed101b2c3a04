"""Embeddings of a ragged batch: LayerNorm of (word + position) + token type.

Twin: `reference.embeddings(...)`.

Reads   token_ids, position_ids and token_type_ids (N,) int64, word (V, D), position (P, D), token_type (types, D),
        LayerNorm's weight (D,) and bias (D,), eps float32.
Writes  rows row_start..row_stop of out (N, D).
Order   (word + position) + token type, then the order of `layer_norm.py`.
Fused   the three look-ups and LayerNorm, row by row.

Ids are not checked: an id outside its table reads memory that does not belong to the table.
"""

import numpy as np

from minilm_np.engine.float32.kernels.layer_norm import layer_norm_row
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import kernel, load_part, store_part

_ZERO = np.float32(0.0)


@kernel
def embeddings(
    token_ids, position_ids, token_type_ids, word, position, token_type, weight, bias, eps, out, row_start, row_stop
):
    # (N,), (N,), (N,), (V, D), (P, D), (types, D), (D,), (D,) -> (N, D)
    D = word.shape[1]
    for n in range(row_start, row_stop):
        word_row = simd.address(word) + token_ids[n] * D
        position_row = simd.address(position) + position_ids[n] * D
        token_type_row = simd.address(token_type) + token_type_ids[n] * D
        out_row = simd.address(out) + n * D
        for d in range(0, D, simd.LANES):
            total = load_part(word_row + d, D - d, _ZERO) + load_part(position_row + d, D - d, _ZERO)
            store_part(out_row + d, D - d, total + load_part(token_type_row + d, D - d, _ZERO))
        layer_norm_row(out_row, simd.address(weight), simd.address(bias), eps, D, out_row)
